"""What the benchmarks share: the median, its interval, ratios of paired measurements."""

from math import comb


def median(values):
    values = sorted(values)
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def median_interval(values, confidence=0.95):
    """The narrowest symmetric pair of order statistics that covers the median so surely.

    No assumption about the distribution: the number of values below the true median is binomial.
    """
    values = sorted(values)
    n = len(values)
    outside = 0.0
    rank = 0
    while rank < n // 2:
        outside += 2 * comb(n, rank) / 2**n
        if 1 - outside < confidence:
            break
        rank += 1
    rank = max(rank - 1, 0)
    return values[rank], values[n - 1 - rank]


def paired_ratio(ours, theirs):
    """The median of the ratios within each round, with its interval."""
    ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
    low, high = median_interval(ratios)
    return {"median": median(ratios), "low": low, "high": high}


def show_ratio(ratio):
    return f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"
