"""Which transports the loop gives its connections."""

import sys
from asyncio import constants, sslproto

from . import _loop

# Up to 3.11 a second transport over the same descriptor is not refused.
_CHECKS_DESCRIPTOR = sys.version_info >= (3, 12)


class NativeTransports:
    """A mixin of the event loop: stream sockets are served by `_loop.StreamTransport`."""

    __slots__ = ()

    def _make_socket_transport(self, sock, protocol, waiter=None, *, extra=None, server=None):
        if _CHECKS_DESCRIPTOR:
            self._ensure_fd_no_transport(sock)
        return _loop.StreamTransport(self, sock, protocol, waiter, extra, server)

    def _make_ssl_transport(
        self,
        rawsock,
        protocol,
        sslcontext,
        waiter=None,
        *,
        server_side=False,
        server_hostname=None,
        extra=None,
        server=None,
        ssl_handshake_timeout=constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout=constants.SSL_SHUTDOWN_TIMEOUT,
    ):
        if _CHECKS_DESCRIPTOR:
            self._ensure_fd_no_transport(rawsock)
        ssl_protocol = sslproto.SSLProtocol(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        _loop.StreamTransport(self, rawsock, ssl_protocol, None, extra, server)
        return ssl_protocol._app_transport
