"""Which transports the loop gives its connections."""

import sys
import weakref
from asyncio import constants, selector_events, unix_events

from . import _loop, tls

# Up to 3.11 a second transport over the same descriptor is not refused.
_CHECKS_DESCRIPTOR = sys.version_info >= (3, 12)

# Where asyncio's classes are not laid out as `_loop` expects, its types are None.
_StreamTransport = _loop.StreamTransport or selector_events._SelectorSocketTransport
_DatagramTransport = _loop.DatagramTransport or selector_events._SelectorDatagramTransport
_ReadPipeTransport = _loop.ReadPipeTransport or unix_events._UnixReadPipeTransport
_WritePipeTransport = _loop.WritePipeTransport or unix_events._UnixWritePipeTransport


class Transports(weakref.WeakValueDictionary):
    """What `loop._transports` shows: descriptor -> transport.

    The loop itself knows the native ones; other transports enter themselves, as in asyncio.
    """

    def __init__(self, loop):
        super().__init__()
        self._loop = weakref.ref(loop)

    def __getitem__(self, fd):
        transport = self._loop()._claimant(fd)
        return super().__getitem__(fd) if transport is None else transport

    def __contains__(self, fd):
        return self._loop()._claimant(fd) is not None or super().__contains__(fd)

    def __setitem__(self, fd, transport):
        if not self._loop()._claim(fd, transport):
            super().__setitem__(fd, transport)

    def __delitem__(self, fd):
        if self._loop()._claimant(fd) is None:
            super().__delitem__(fd)
        else:
            self._loop()._claim(fd, None)


class NativeTransports:
    """A mixin of the event loop: its connections and endpoints are served by types of `_loop`."""

    __slots__ = ()

    # Makes what stands between a transport and the protocol of a TLS connection.
    _tls_protocol = staticmethod(tls.make_protocol)

    def _make_socket_transport(self, sock, protocol, waiter=None, *, extra=None, server=None):
        if _CHECKS_DESCRIPTOR:
            self._ensure_fd_no_transport(sock)
        return _StreamTransport(self, sock, protocol, waiter, extra, server)

    def _make_datagram_transport(self, sock, protocol, address=None, waiter=None, extra=None):
        if _CHECKS_DESCRIPTOR:
            self._ensure_fd_no_transport(sock)
        return _DatagramTransport(self, sock, protocol, address, waiter, extra)

    def _make_read_pipe_transport(self, pipe, protocol, waiter=None, extra=None):
        return _ReadPipeTransport(self, pipe, protocol, waiter, extra)

    def _make_write_pipe_transport(self, pipe, protocol, waiter=None, extra=None):
        return _WritePipeTransport(self, pipe, protocol, waiter, extra)

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
        ssl_protocol = self._tls_protocol(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        _StreamTransport(self, rawsock, ssl_protocol, None, extra, server)
        return ssl_protocol._app_transport

    async def start_tls(
        self,
        transport,
        protocol,
        sslcontext,
        *,
        server_side=False,
        server_hostname=None,
        ssl_handshake_timeout=None,
        ssl_shutdown_timeout=None,
    ):
        """Go on in TLS on a transport, for the same protocol.

        Returns the transport that the protocol is to use from now on, after the handshake.
        TypeError when sslcontext is no ssl.SSLContext or the transport cannot do this; the errors
        of the handshake as they are, and the connection is then closed.  See
        `asyncio.loop.start_tls`.
        """
        if tls.ssl is None:
            raise RuntimeError("Python ssl module is not available")
        if not isinstance(sslcontext, tls.ssl.SSLContext):
            raise TypeError(
                f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}"
            )
        if not getattr(transport, "_start_tls_compatible", False):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        shaken = self.create_future()
        between = self._tls_protocol(
            self,
            protocol,
            sslcontext,
            shaken,
            server_side,
            server_hostname,
            call_connection_made=False,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        # Nothing is received before the protocol in between knows its transport.
        transport.pause_reading()
        transport.set_protocol(between)
        steps = (
            self.call_soon(between.connection_made, transport),
            self.call_soon(transport.resume_reading),
        )
        try:
            await shaken
        except BaseException:
            transport.close()
            for step in steps:
                step.cancel()
            raise
        return between._app_transport
