"""TLS for the loop's stream transports: asyncio's SSLProtocol, data moved in C where that can be.

What is used of asyncio's and `_ssl`'s private side is named here.  `erlang._loop.TlsProtocol`
drives the OpenSSL object that `ssl.SSLContext.wrap_bio()` makes; certificates, names, sessions and
the handshake stay the `ssl` module's.  Where OpenSSL cannot be reached, or is not one that is
known, asyncio's own code serves the connection.
"""

import sys
from asyncio import sslproto

from . import _loop

try:
    import _ssl
    import ssl
except ImportError:  # a Python without ssl: asyncio says so to whoever asks for TLS
    ssl = None

# Versions of CPython whose sslproto and _ssl are as the code here expects them.
_KNOWN = ((3, 11), (3, 12), (3, 13))


def _why_not_native():
    """A reason not to drive OpenSSL from C, or None."""
    if ssl is None:
        return "there is no ssl module"
    if sys.implementation.name != "cpython" or sys.version_info[:2] not in _KNOWN:
        return "this Python is not known"
    path = getattr(_ssl, "__file__", None)
    if path is None:
        return "_ssl is built in"
    if not ssl.OPENSSL_VERSION.startswith("OpenSSL "):
        return f"{ssl.OPENSSL_VERSION} is not known"
    return _loop._load_tls(path, ssl.OPENSSL_VERSION_NUMBER)


WHY_NOT_NATIVE = _why_not_native()
NATIVE = WHY_NOT_NATIVE is None


class _Refused(Exception):
    """This connection cannot be served natively."""


class SSLTransport(_loop.TlsWriter, sslproto._SSLProtocolTransport):
    """The transport that an application gets: asyncio's, written to in C."""


class TlsProtocol(_loop.TlsProtocol, sslproto.SSLProtocol):
    """Between a transport and an application, as asyncio's SSLProtocol."""

    _again_errors = getattr(sslproto, "SSLAgainErrors", ())

    def __init__(self, *args, **kwargs):
        # Transports of ours give what they received without a buffer of this object; for another
        # transport get_buffer() makes one.
        self.max_size = 0
        try:
            super().__init__(*args, **kwargs)
        finally:
            del self.max_size
        sslobj = self._sslobj
        if (
            type(sslobj) is not ssl.SSLObject
            or getattr(self._sslcontext, "_msg_callback", None) is not None
            or not self._attach(sslobj._sslobj, self._incoming, self._outgoing)
        ):
            self._app_transport._closed = True
            raise _Refused

    def _set_app_protocol(self, app_protocol):
        _loop._adopt_stream(app_protocol)
        super()._set_app_protocol(app_protocol)

    def _get_app_transport(self):
        if self._app_transport is None:
            if self._app_transport_created:
                raise RuntimeError("a TLS connection has one transport")
            self._app_transport = SSLTransport(self._loop, self)
            self._app_transport_created = True
        return self._app_transport

    def _abort(self, *args):
        # asyncio has sent by now what was written before.
        self._flush()
        super()._abort(*args)

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self._forget()


def make_protocol(*args, **kwargs):
    """A protocol of asyncio.sslproto.SSLProtocol's arguments and behaviour."""
    if NATIVE:
        try:
            return TlsProtocol(*args, **kwargs)
        except _Refused:
            pass
    return sslproto.SSLProtocol(*args, **kwargs)
