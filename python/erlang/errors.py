"""The exceptions of the `erlang` package; importable everywhere, inside the VM and outside."""


class NotInVM(RuntimeError):
    """Something that needs the Erlang VM was used in an ordinary Python process."""


class TermError(ValueError):
    """Bytes that are no well-formed external term, or a term that has no exact Python value."""


class ChannelClosed(Exception):
    """The channel is closed and everything that was queued on it has been received."""


class ByteChannelClosed(ChannelClosed):
    """The byte channel is closed and everything that was queued on it has been received."""


class ChannelFull(Exception):
    """The channel has no room for the message now."""


class MessageTooLarge(ValueError):
    """The message is larger than the channel's max_size, and will never fit."""


class CallCancelled(BaseException):
    """The Erlang caller of the running Python code timed out, cancelled it or died.

    A BaseException, as asyncio.CancelledError is, so that `except Exception` does not swallow it.

    It may be caught to clean up: an `except` or `finally` clause or a `with` statement that handles
    it is never interrupted, however long it takes.  Code that goes on after that is, again and
    again: nobody waits for its result.  Where an event loop runs its tasks are cancelled instead,
    once in each run of the loop.
    """


class SignalNotOurs(OSError, RuntimeError):
    """The signal is handled by the Erlang VM, so Python may not handle it."""
