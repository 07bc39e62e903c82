"""The asyncio face of byte channels: a transport for any protocol, and streams.

The channel takes the place of a socket: chunks are pieces of one stream here, and empty ones are
nothing.  What is written beyond the channel's limits waits in the transport, and what waits in
either counts for the protocol's flow control.
"""

import asyncio
import collections
import errno
import os
import warnings
from asyncio import constants, transports

from .byte_channel import ByteChannel, ByteChannelClosed

__all__ = ["ByteChannelTransport", "connect_byte_channel", "open_byte_channel"]

_CHUNK_COUNTS = 32  # bytes that a chunk counts at least
_NOT_LOGGED = BrokenPipeError, ConnectionResetError, ConnectionAbortedError


class ByteChannelTransport(transports._FlowControlMixin, transports.Transport):
    """A transport over a byte channel, which it closes at its end."""

    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.FALLBACK

    def __init__(self, loop, channel, protocol, waiter=None, extra=None):
        super().__init__({**(extra or {}), "byte_channel": channel}, loop)
        self._channel = channel
        self._try_send = channel.try_send_bytes
        self._piece = channel.max_size or 1 << 62  # the largest chunk that fits
        self._buffer = collections.deque()
        self._buffered = 0
        self._most_unsent = 0  # at least what waits in the channel of what was written here
        self._closing = self._eof = self._eof_sent = False
        self._conn_lost = 0
        self._paused = False
        self._resumed = None  # a future that the reader waits for while it is paused
        self._waiting = False  # in the channel, for a chunk
        self._interrupted = False  # that wait is over
        self._reader = self._writer = None
        self.set_protocol(protocol)
        loop.call_soon(self._start, waiter)

    def __repr__(self):
        state = "closed" if self._loop is None else "closing" if self._closing else "open"
        return f"<{type(self).__name__} {state} {self._channel!r}>"

    def _start(self, waiter):
        try:
            self._protocol.connection_made(self)
        except BaseException as error:
            if waiter is not None and not waiter.done():
                waiter.set_exception(error)
            self._force_close(None)
            return
        if not self._closing:
            self._reader = self._loop.create_task(self._read())
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --- the protocol -------------------------------------------------------------------------

    def set_protocol(self, protocol):
        self._protocol = protocol
        self._buffered_protocol = isinstance(protocol, asyncio.BufferedProtocol)

    def get_protocol(self):
        return self._protocol

    # --- reading ------------------------------------------------------------------------------

    def is_reading(self):
        return not self._closing and not self._paused

    def pause_reading(self):
        if self.is_reading():
            self._paused = True
            if self._waiting and not self._interrupted:
                # Whoever pauses may go on with the channel itself.
                self._interrupted = True
                self._reader.cancel()

    def resume_reading(self):
        if not self._closing and self._paused:
            self._paused = False
            self._wake_reader()

    def _wake_reader(self):
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)

    async def _until_resumed(self):
        while self._paused and not self._closing:
            self._resumed = self._loop.create_future()
            await self._resumed
            self._resumed = None

    async def _read(self):
        """The reader's task: gives the protocol what comes, until the end."""
        try:
            while not self._closing:
                if self._paused:
                    await self._until_resumed()
                elif await self._receive():
                    self._end_of_stream()
                    return
        except asyncio.CancelledError:
            # By whoever cancels all tasks of a loop; what has come in stays in the channel.
            if not self._closing:
                self._force_close(None)
        except (SystemExit, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            self._fatal_error(error, "Fatal error: protocol failed on what was received.")

    async def _receive(self):
        """Give the protocol what comes until it pauses: True at the end of the stream."""
        self._waiting = True
        try:
            async for chunk in self._channel:
                self._waiting = False
                if self._buffered_protocol:
                    await self._fill_buffers(memoryview(chunk))
                elif chunk:
                    self._protocol.data_received(chunk)
                if self._paused or self._closing:
                    return False
                self._waiting = True
            return True
        except asyncio.CancelledError:
            if not self._interrupted:
                raise
            self._interrupted = False
            if asyncio.current_task().uncancel():
                raise
            return False
        finally:
            self._waiting = False

    async def _fill_buffers(self, rest):
        while rest and not self._closing:
            if not self._buffered_protocol:  # it has changed between two parts
                self._protocol.data_received(bytes(rest))
                return
            buffer = memoryview(self._protocol.get_buffer(len(rest))).cast("B")
            size = min(len(buffer), len(rest))
            if size == 0:
                raise RuntimeError("get_buffer() returned an empty buffer")
            buffer[:size] = rest[:size]
            rest = rest[size:]
            self._protocol.buffer_updated(size)
            if self._paused:
                await self._until_resumed()

    def _end_of_stream(self):
        if not self._protocol.eof_received():
            self.close()

    def _stop_reading(self):
        self._wake_reader()
        if self._waiting:
            self._reader.cancel()

    # --- writing ------------------------------------------------------------------------------

    def get_write_buffer_size(self):
        # When nothing more can follow, what is in the channel is Erlang's.
        return self._buffered + (0 if self._eof_sent else self._channel.unsent)

    def write(self, data):
        size = len(data) if type(data) is bytes else 0
        if 0 < size <= self._piece and not (self._buffer or self._eof or self._conn_lost):
            # As below, without a detour.
            try:
                if self._try_send(data):
                    self._most_unsent += size if size > _CHUNK_COUNTS else _CHUNK_COUNTS
                    if self._most_unsent > self._high_water:
                        self._look_after_buffers()
                    return
            except ByteChannelClosed as error:
                self._broken(error)
                return
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(
                f"data argument must be a bytes-like object, not {type(data).__name__!r}"
            )
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data:
            return
        if self._conn_lost:
            if self._conn_lost >= constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES:
                warnings.warn("write to a byte channel that is closed", RuntimeWarning, 2)
            self._conn_lost += 1
            return
        if type(data) is not bytes:
            data = memoryview(data).cast("B")
        try:
            rest = self._send_now(data)
        except ByteChannelClosed as error:
            self._broken(error)
            return
        if rest:
            self._buffer.append(bytes(rest))
            self._buffered += len(rest)
        self._look_after_buffers()

    def writelines(self, list_of_data):
        self.write(b"".join(list_of_data))

    def _send_now(self, data):
        """Send as much as there is room for; what is left."""
        if self._buffer:
            return data
        if len(data) <= self._piece:
            return b"" if self._channel.try_send_bytes(data) else data
        data = memoryview(data)
        while data and self._channel.try_send_bytes(data[: self._piece]):
            data = data[self._piece :]
        return data

    def _look_after_buffers(self):
        self._most_unsent = self.get_write_buffer_size()
        self._maybe_pause_protocol()
        if self._writer is None and (self._buffer or self._protocol_paused):
            self._writer = self._loop.create_task(self._write_out())

    async def _write_out(self):
        """The writer's task: while something waits in the transport, or the protocol is paused."""
        try:
            while self._buffer or (self._protocol_paused and not self._closing):
                if not self._buffer:
                    await self._channel._async_drained(self._low_water)
                else:
                    await self._write_first()
                self._maybe_resume_protocol()
        except asyncio.CancelledError:
            if not self._conn_lost:
                self._force_close(None)
        except ByteChannelClosed as error:
            if not self._eof_sent:
                self._broken(error)
        except (SystemExit, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            self._fatal_error(error, "Fatal write error on a byte channel.")
        finally:
            self._writer = None
        self._written_out()

    async def _write_first(self):
        data = self._buffer[0]
        for start in range(0, len(data), self._piece):
            piece = data[start : start + self._piece]
            await self._channel.async_send_bytes(piece)
            self._buffered -= len(piece)
        self._buffer.popleft()

    def _written_out(self):
        if self._conn_lost or self._buffer:
            return
        if self._closing:
            self._lose(None)
        elif self._eof and not self._eof_sent:
            self._eof_sent = True
            self._channel.close_write()
            self._maybe_resume_protocol()

    def can_write_eof(self):
        return True

    def write_eof(self):
        if self._closing or self._eof:
            return
        self._eof = True
        self._written_out()

    # --- the end ------------------------------------------------------------------------------

    def is_closing(self):
        return self._closing

    def close(self):
        if self._closing:
            return
        self._closing = True
        self._stop_reading()
        if self._buffer:
            return
        if self._writer is not None:
            self._writer.cancel()
        self._lose(None)

    def abort(self):
        self._force_close(None)

    def _broken(self, cause):
        error = BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        error.__cause__ = cause
        self._force_close(error)

    def _fatal_error(self, error, message="Fatal error on transport"):
        if not isinstance(error, _NOT_LOGGED):
            self._loop.call_exception_handler(
                {
                    "message": message,
                    "exception": error,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )
        self._force_close(error)

    def _force_close(self, error):
        if self._conn_lost:
            return
        self._buffer.clear()
        self._buffered = 0
        if not self._closing:
            self._closing = True
            self._stop_reading()
        self._lose(error)
        if self._writer is not None:
            self._writer.cancel()

    def _lose(self, error):
        if self._conn_lost == 0:
            self._conn_lost = 1
            self._loop.call_soon(self._call_connection_lost, error)

    def _call_connection_lost(self, error):
        try:
            self._protocol.connection_lost(error)
        finally:
            self._channel.close()
            self._protocol = self._loop = None


async def connect_byte_channel(protocol_factory, channel, *, loop=None):
    """(transport, protocol) over a byte channel: a ByteChannel, or a ChannelRef of one.

    As `loop.create_connection`, with the channel in the place of the socket; the transport closes
    it at its end, and get_extra_info("byte_channel") gives it.  For any event loop; on an
    ErlangEventLoop it is also `loop.connect_byte_channel(protocol_factory, channel)`.
    """
    loop = asyncio.get_running_loop() if loop is None else loop
    if not isinstance(channel, ByteChannel):
        channel = ByteChannel(channel)
    protocol = protocol_factory()
    waiter = loop.create_future()
    transport = ByteChannelTransport(loop, channel, protocol, waiter)
    try:
        await waiter
    except BaseException:
        transport.close()
        raise
    return transport, protocol


async def open_byte_channel(channel, *, limit=65536):
    """(asyncio.StreamReader, asyncio.StreamWriter) over a byte channel, as asyncio.open_connection.

    limit is the reader's, in bytes.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await connect_byte_channel(lambda: protocol, channel, loop=loop)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
