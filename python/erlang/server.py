"""Servers: asyncio's Server with what Python 3.13 can do, and how the loop listens.

What is used of asyncio's private side is named here: `Server` with its `_sockets`, `_waiters`,
`_wakeup`, `_attach` and `_detach`, and the loop's `_start_serving`, `_stop_serving` and
`_accept_connection2`.  With a Python that is not known, asyncio's own listeners serve.
"""

import asyncio
import socket
import sys
import weakref
from asyncio import base_events, constants, log, trsock

from . import _loop
from .transports import NativeTransports

# Versions of CPython whose servers are as the code here expects them.
_KNOWN = sys.version_info[:2] in ((3, 11), (3, 12), (3, 13))

# What the native listener makes without a socket object.
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


class Server(base_events.Server):
    """What create_server() returns: asyncio.Server as it is in Python 3.13, on every version."""

    def _become(self):
        """The rest of __init__: asyncio has made the object as one of its own class."""
        self._clients = _loop.Clients()
        # Connections by transports that are not the loop's own; up to 3.12 those have no name.
        self._foreign = weakref.WeakSet()
        self._unnamed = 0

    @property
    def _active_count(self):
        return len(self._clients) + len(self._foreign) + self._unnamed

    @_active_count.setter
    def _active_count(self, count):
        raise AttributeError("connections are counted by attaching them")

    def _attach(self, transport=None):
        if self._sockets is None:
            raise RuntimeError("the server is closed")
        if transport is None:
            self._unnamed += 1
        else:
            self._foreign.add(transport)

    def _detach(self, transport=None):
        if transport is None:
            self._unnamed -= 1
        else:
            self._foreign.discard(transport)
        self._wakeup()

    def _wakeup(self):
        """Wake who waits for the end, if this is it."""
        if self._sockets is None and self._waiters is not None and not self._active_count:
            super()._wakeup()

    def close(self):
        """Stop serving; connections that are open stay so."""
        if self._sockets is None:
            return
        self._clients.close(self._wakeup)
        super().close()
        if not self._clients:
            self._clients.close(None)

    def close_clients(self):
        """Close the connections, once what they have buffered is sent."""
        for transport in (*self._clients.copy(), *self._foreign):
            transport.close()

    def abort_clients(self):
        """Close the connections at once; what they have buffered is lost."""
        for transport in (*self._clients.copy(), *self._foreign):
            transport.abort()

    async def wait_closed(self):
        """Wait until close() was called and every connection has ended, in either order."""
        if self._waiters is not None:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter


class NativeServers:
    """A mixin of the event loop: its servers accept by `erlang._loop.Listener`."""

    __slots__ = ()

    async def create_server(
        self, protocol_factory, host=None, port=None, *, start_serving=True, **options
    ):
        """Serve TCP connections.  See `asyncio.loop.create_server`."""
        server = await super().create_server(
            protocol_factory, host, port, start_serving=start_serving and not _KNOWN, **options
        )
        return await _adopt(server, start_serving)

    async def create_unix_server(
        self, protocol_factory, path=None, *, start_serving=True, **options
    ):
        """Serve connections to a Unix socket.  See `asyncio.loop.create_unix_server`."""
        server = await super().create_unix_server(
            protocol_factory, path, start_serving=start_serving and not _KNOWN, **options
        )
        return await _adopt(server, start_serving)

    def _start_serving(
        self,
        protocol_factory,
        sock,
        sslcontext=None,
        server=None,
        backlog=100,
        ssl_handshake_timeout=constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout=constants.SSL_SHUTDOWN_TIMEOUT,
    ):
        timeouts = (ssl_handshake_timeout, ssl_shutdown_timeout)
        if (
            not _KNOWN
            or type(sock).accept is not socket.socket.accept
            or sock.family not in _FAMILIES
        ):
            super()._start_serving(protocol_factory, sock, sslcontext, server, backlog, *timeouts)
            return

        def set_up(connection, address):
            """Have asyncio make the connection, as it does for TLS and in debug mode."""
            if self._debug:
                log.logger.debug("%r got a new connection from %r: %r", server, address, connection)
            self.create_task(accept(connection, {"peername": address}))

        async def accept(connection, extra):
            try:
                await self._accept_connection2(
                    protocol_factory, connection, extra, sslcontext, server, *timeouts
                )
            finally:
                # asyncio leaves one that got no transport to the collector.
                fd = connection.fileno()
                if fd >= 0 and fd not in self._transports:
                    connection.close()

        plain = not sslcontext and self._makes_plain_transports()
        self._stop_listening(sock)
        self._listeners[sock] = _loop.Listener(
            self, sock, protocol_factory, server, backlog, set_up, plain
        )

    def _makes_plain_transports(self):
        """False where a subclass has a say in how connections are made, or asyncio has to."""
        mine = type(self)
        return (
            _loop.StreamTransport is not None
            and mine._make_socket_transport is NativeTransports._make_socket_transport
            and mine._accept_connection2 is asyncio.SelectorEventLoop._accept_connection2
        )

    def _accept_failed(self, sock, error, retry):
        """Report that a listener is out of descriptors or memory, and have it wait."""
        timer = self.call_later(constants.ACCEPT_RETRY_DELAY, retry)
        self.call_exception_handler(
            {
                "message": "socket.accept() out of system resource",
                "exception": error,
                "socket": trsock.TransportSocket(sock),
            }
        )
        return timer

    def _stop_listening(self, sock):
        listener = self._listeners.pop(sock, None)
        if listener is not None:
            listener.close()

    def _stop_serving(self, sock):
        self._stop_listening(sock)
        super()._stop_serving(sock)

    def close(self):
        if not self.is_running():
            for sock in tuple(self._listeners):
                self._stop_listening(sock)
        super().close()


async def _adopt(server, start_serving):
    """Make asyncio's Server one of ours and start it."""
    if _KNOWN and type(server) is base_events.Server:
        server.__class__ = Server
        server._become()
        if start_serving:
            server._start_serving()
            # As asyncio: whatever was scheduled before runs first.
            await asyncio.sleep(0)
    return server
