"""A client speaks to nobody whose certificate it cannot verify, on our TLS as on asyncio's."""

import asyncio
import contextlib
import datetime
import re
import socket
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tls_tools import Collector, Peer, authority, certificate

TOP = Path(__file__).resolve().parents[2]
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def context_of(leaf):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return context


def trusting(*authorities):
    """As ssl.create_default_context() is, apart from whom it trusts."""
    context = ssl.create_default_context()
    for trusted in authorities:
        trusted.configure_trust(context)
    return context


def self_signed(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    path = tmp_path / "self_signed.pem"
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + made.public_bytes(pem)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def revoking(ca, leaf, tmp_path):
    """A client's context with a list of what ca has revoked: leaf."""
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    serial = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).serial_number
    revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - DAY)
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(NOW - DAY)
        .next_update(NOW + DAY)
        .add_revoked_certificate(revoked.build())
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "revoked.pem"
    path.write_bytes(crl.public_bytes(serialization.Encoding.PEM))
    context = trusting(ca)
    context.load_verify_locations(path)
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def wrong_name(tmp_path):
    return context_of(certificate("elsewhere.example")), trusting(authority())


def wrong_address(tmp_path):
    return context_of(certificate("127.0.0.2")), trusting(authority())


def expired(tmp_path):
    ca = authority()
    return context_of(ca.issue_cert("localhost", not_after=NOW - DAY)), trusting(ca)


def not_valid_yet(tmp_path):
    ca = authority()
    return context_of(ca.issue_cert("localhost", not_before=NOW + DAY)), trusting(ca)


def signed_by_itself(tmp_path):
    return self_signed(tmp_path), trusting(authority())


def of_another_authority(tmp_path):
    return context_of(trustme.CA().issue_cert("localhost")), trusting(authority())


def of_a_chain_to_nobody_trusted(tmp_path):
    between = trustme.CA().create_child_ca()
    return context_of(between.issue_cert("localhost")), trusting(authority())


def revoked(tmp_path):
    ca = authority()
    leaf = ca.issue_cert("localhost")
    return context_of(leaf), revoking(ca, leaf, tmp_path)


# OpenSSL's X509_V_ERR_ numbers.
REFUSED = {
    wrong_name: 62,
    wrong_address: 64,
    expired: 10,
    not_valid_yet: 9,
    signed_by_itself: 18,
    of_another_authority: 20,
    of_a_chain_to_nobody_trusted: 20,
    revoked: 23,
}


MADE = []


class Talker(Collector):
    """Speaks first, if it may."""

    def connection_made(self, transport):
        super().connection_made(transport)
        MADE.append(transport)
        transport.write(b"secret")


@contextlib.asynccontextmanager
async def facing(server_context):
    """A client's socket and a blocking server at its other end, which gathers what it reads."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    peer = Peer(theirs, server_context, server_side=True)

    async def shake_hands():
        with contextlib.suppress(OSError):
            await peer.a_handshake()
            peer.got = await peer.a_read(6)

    peer.got = b""
    shaking = asyncio.create_task(shake_hands())
    try:
        yield ours, peer
        await shaking
    finally:
        peer.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.__name__)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_certificate_is_refused(case, version, tmp_path):
    server, client = case(tmp_path)
    server.minimum_version = server.maximum_version = version
    MADE.clear()
    async with facing(server) as (ours, peer):
        with pytest.raises(ssl.SSLCertVerificationError) as raised:
            await asyncio.get_running_loop().create_connection(
                Talker,
                sock=ours,
                ssl=client,
                server_hostname="127.0.0.1" if case is wrong_address else "localhost",
            )
    assert raised.value.verify_code == REFUSED[case]
    assert MADE == [] and peer.got == b""


@pytest.mark.asyncio
@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.__name__)
async def test_a_certificate_is_refused_after_plain_text(case, tmp_path):
    server, client = case(tmp_path)
    loop = asyncio.get_running_loop()
    async with facing(server) as (ours, peer):
        transport, protocol = await loop.create_connection(Collector, sock=ours)
        with pytest.raises(ssl.SSLCertVerificationError) as raised:
            await loop.start_tls(
                transport,
                protocol,
                client,
                server_hostname="127.0.0.1" if case is wrong_address else "localhost",
            )
        assert raised.value.verify_code == REFUSED[case]
        await protocol.ended
    assert peer.got == b""


@pytest.mark.asyncio
async def test_the_same_clients_speak_to_whom_they_trust():
    """The control: what is refused above is refused for its certificate alone."""
    MADE.clear()
    ca = trustme.CA()
    async with facing(context_of(ca.create_child_ca().issue_cert("localhost"))) as (ours, peer):
        transport, protocol = await asyncio.get_running_loop().create_connection(
            Talker, sock=ours, ssl=trusting(ca), server_hostname="localhost"
        )
        while not peer.got:
            await asyncio.sleep(0.01)
        transport.abort()
        await protocol.ended
    assert peer.got == b"secret" and len(MADE) == 1


@pytest.mark.asyncio
async def test_ssl_true_verifies():
    """The context that is made for `ssl=True` trusts the system's authorities alone."""
    async with facing(context_of(certificate("localhost"))) as (ours, peer):
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.get_running_loop().create_connection(
                Talker, sock=ours, ssl=True, server_hostname="localhost"
            )
    assert peer.got == b""


# --- in the sources -------------------------------------------------------------------------------

TURNS_OFF = re.compile(
    r"CERT_NONE|CERT_OPTIONAL|check_hostname\s*=\s*(False|0)|_create_unverified|"
    r"_create_stdlib_context|SSL_VERIFY_NONE|verify_none|"
    r"\bverify\s*=\s*False|VERIFY_NONE|PYTHONHTTPSVERIFY|--insecure|curl\b.*\s-k\b"
)
EXAMPLES_OF_IT = [
    "context.verify_mode = ssl.CERT_NONE",
    "context.check_hostname = False",
    "ssl._create_default_https_context = ssl._create_unverified_context",
    "SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL);",
    "ssl:connect(Host, Port, [{verify, verify_none}])",
    "requests.get(url, verify=False)",
    "curl -s -k https://localhost/",
]
FOLDERS = ["bench", "build-aux", "c_src", "docs", "erl", "examples", "m4", "python", "scripts"]
FILES = ["README.md", "run", "setup.py", "pyproject.toml"]


@pytest.mark.parametrize("text", EXAMPLES_OF_IT)
def test_what_turns_verification_off_is_known(text):
    assert TURNS_OFF.search(text)


def sources():
    texts = [TOP / name for name in FILES]
    for folder in [*FOLDERS, "tests"]:
        texts += [path for path in (TOP / folder).rglob("*") if path.is_file()]
    return [path for path in texts if "__pycache__" not in path.parts and path != Path(__file__)]


def test_nothing_turns_verification_off():
    found = []
    for path in sources():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if TURNS_OFF.search(line):
                found.append(f"{path.relative_to(TOP)}:{number}: {line.strip()}")
    assert found == []
    assert len(sources()) > 200
