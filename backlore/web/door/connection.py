"""One connection of a client: bytes in, one request at a time to the application, bytes out.

Laws:

- Requests are answered in their order, one after another. What is sent behind one waits as bytes, one read of the
  socket at most; then nothing more is read, so that a client that only sends costs nothing.
- A client that only reads slowly holds up its own reply, and nobody else's.
- All that one turn of the loop has for a connection leaves in one write.
- Whatever may be silent has a deadline: a head, a pause between requests, a client that doesn't read, a close.
- A connection that ends goes on reading for a while, and throws it away: else a client that still sends would
  lose our reply by a reset (RFC 9112, §9.6).
"""

import asyncio
import fcntl
import sys
import termios
from typing import TYPE_CHECKING, Any

from backlore.web.door.exchange import Exchange
from backlore.web.door.reading import BadMessage, Reader
from backlore.web.door.writing import CLOSE, begin, length_line

if TYPE_CHECKING:
    from backlore.web.door.door import Door

HIGH = 256 << 10  # bytes of a body that wait for the application, before we read no more
SOON = 64 << 10  # bytes to send that don't wait for the turn's end
TURNS = 32  # requests that one connection has in a turn of the loop
LINGER = 256 << 20  # bytes thrown away of a client that we have refused
STRETCH = 4 << 20  # bytes of them for which it has its time anew: browsers read no reply before they have sent all
NEVER = float("inf")
REFUSAL = [
    (b"content-type", b"application/json"), (b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"),
]  # fmt: skip


class Connection(asyncio.Protocol):
    """`client` is its address and port; `ended`: it sends nothing more that we take; `gone`: it is lost; `full`: it
    doesn't take what we send."""

    __slots__ = (
        "_blocked", "_closing", "_eof", "_exchange", "_is_reading", "_lingers", "_out", "_paused", "_size",
        "_transport", "_unread",
        "client", "deadline", "door", "ended", "full", "gone", "reader",
    )  # fmt: skip

    def __init__(self, door: "Door"):
        self.door = door
        self.reader = Reader()
        self.client: tuple[str, int] | None = None
        self.ended = self.gone = False
        self.full: asyncio.Future[None] | None = None
        self.deadline = NEVER  # seconds of the loop
        self._transport: Any = None
        self._exchange: Exchange | None = None  # under way
        self._unread = b""  # what was sent behind its request
        self._paused = False  # we don't read
        self._is_reading = False  # what is written now leaves when what came is read
        self._out: list[bytes] = []  # for the end of this turn: so many bytes
        self._size = 0
        self._blocked = 0  # bytes that the client had not taken when last looked at
        self._eof = False  # it has said that it sends nothing more
        self._closing = False  # nothing more is sent
        self._lingers = LINGER  # bytes that we throw away

    # Of the transport

    def connection_made(self, transport: Any) -> None:
        """A client has come."""
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.client = peer[:2] if peer else None
        if self.door.admit(self):
            self.deadline = self.door.now + self.door.bounds.head
        else:
            self.refuse(BadMessage(503, "unavailable"))

    def connection_lost(self, error: Exception | None) -> None:
        """It is over."""
        self.gone = self.ended = self._closing = True
        self.door.leave(self)
        self._out.clear()
        self._set_free()
        if self._exchange:
            self._exchange.wake()

    def data_received(self, data: bytes) -> None:
        """Bytes of the client's."""
        if self._closing or self.ended:
            before, self._lingers = self._lingers, self._lingers - len(data)
            if self._lingers < 0:
                self._transport.abort()
            elif self._closing and before // STRETCH > self._lingers // STRETCH:  # it goes on, at a rate that will end
                self.deadline = self.door.now + self.door.bounds.linger
        elif self.reader.complete if self._exchange else self.full:
            self._keep(self._unread + data)
        else:
            self._read(data)

    def eof_received(self) -> bool:
        """The client sends nothing more: what it asked for before, it still gets, unless that takes long."""
        self._eof = self.ended = True
        self.flush()
        if self._exchange:
            self._exchange.wake()
        return not self._closing and (self._exchange is not None or bool(self._unread))

    def pause_writing(self) -> None:
        """The client doesn't take what we send."""
        self.full = self.door.loop.create_future()
        self._blocked = self._unsent()
        self.deadline = self.door.now + self.door.bounds.stall

    def resume_writing(self) -> None:
        """It does again."""
        self._set_free()
        if self._exchange:
            self.deadline = NEVER
        elif not self._closing:
            self.deadline = self.door.now + self.door.bounds.idle
            self._go_on()

    # Reading

    def _read(self, data: bytes) -> None:
        """Take a message after another out of the bytes, have it answered, and send what is answered."""
        self._is_reading = True
        try:
            self._read_messages(data)
        finally:
            self._is_reading = False
            self.flush()

    def _read_messages(self, data: bytes) -> None:
        reader = self.reader
        for _ in range(TURNS):
            try:
                data = reader.feed(data)
            except BadMessage as refusal:
                self._refuse_message(refusal)
                return
            exchange = self._exchange
            if exchange:
                exchange.wake()
            elif reader.head:
                self.deadline = NEVER  # the application has its own for a body
                self._exchange = Exchange(self, reader.head)
                self._exchange.run()
            elif reader.has_begun and self.deadline > self.door.now + self.door.bounds.head:
                self.deadline = self.door.now + self.door.bounds.head
            if self._exchange:
                if reader.complete:
                    self._keep(data)
                elif reader.size > HIGH:
                    self._pause()
                return
            if self._closing:
                return
            if not data:
                if self.ended:
                    self.close()
                return
            if self.full:
                break
        self._keep(data)
        if not self.full:
            self.door.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """With what was sent behind a request that is answered."""
        if self._exchange is None and not self._closing and not self.full:
            data, self._unread = self._unread, b""
            self.read_on()
            if data:
                self._read(data)

    def _refuse_message(self, refusal: BadMessage) -> None:
        if self._exchange is None:
            self.refuse(refusal)
        else:  # the application has it already, and hears that no more comes
            self.ended = True
            self._exchange.wake()

    def _keep(self, data: bytes) -> None:
        """For when what came before it is answered; more is not read until then."""
        self._unread = data
        if data:
            self._pause()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def read_on(self) -> None:
        """There is room again for what the client sends."""
        if self._paused and not self._unread and not self._eof and not self.gone:
            self._paused = False
            self._transport.resume_reading()

    # Writing

    def write(self, data: bytes) -> None:
        """Send with what else this turn has."""
        if self._closing:
            return
        if not self._out and not self._is_reading:
            self.door.flush_soon(self)
        self._out.append(data)
        self._size += len(data)
        if self._size > SOON:
            self.flush()

    def flush(self) -> None:
        """Send it now."""
        out = self._out
        if out:
            if len(out) == 1:
                self._transport.write(out[0])
            else:
                self._transport.writelines(out)
            self._out = []
            self._size = 0

    async def drain(self) -> None:
        """Until the client takes more. Raises nothing: the next piece sees whether it has gone."""
        if self.full:
            await asyncio.shield(self.full)

    async def empty(self) -> None:
        """Until the client, or its system, has taken all that was written."""
        self.flush()
        self._transport.set_write_buffer_limits(0)
        try:
            await self.drain()
        finally:
            if not self.gone:
                self._transport.set_write_buffer_limits()

    async def wait_until_writable(self, socket: int) -> None:
        """Until the client takes more, by a duplicate of its socket."""
        loop = self.door.loop
        self.pause_writing()
        loop.add_writer(socket, self._set_free)
        try:
            await self.drain()
        finally:
            loop.remove_writer(socket)
            self.full = None
            self.deadline = NEVER

    def _set_free(self) -> None:
        full, self.full = self.full, None
        if full and not full.done():
            full.set_result(None)

    def _unsent(self) -> int:
        """Bytes that the client's system has not taken: ours may have megabytes of them, and says nothing for long."""
        try:
            waiting = fcntl.ioctl(self.fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):  # another kind of socket, or one that is closed
            waiting = bytes(4)
        size: int = self._transport.get_write_buffer_size()
        return size + int.from_bytes(waiting, sys.byteorder)

    def fileno(self) -> int:
        """Of its socket."""
        number: int = self._transport.get_extra_info("socket").fileno()
        return number

    # Ending

    def finished(self, exchange: Exchange) -> None:
        """A request is answered."""
        self._exchange = None
        if not exchange.keep or (self.ended and not self._unread):
            self.close()
            return
        self.reader.reset()
        if not self.full:
            self.deadline = self.door.now + self.door.bounds.idle
            if self._unread or self._paused:
                self.door.loop.call_soon(self._go_on)

    def refuse(self, refusal: BadMessage, bodiless: bool = False) -> None:
        """Answer what is no request that we take, or `bodiless` a HEAD that came to nothing."""
        body = b'{"error":"%b"}' % refusal.word.encode()
        headers = [*REFUSAL, (b"retry-after", b"1")] if refusal.status == 503 else REFUSAL
        head = begin(refusal.status, headers) + length_line(len(body)) + CLOSE + self.door.date
        self.write(head if bodiless else head + body)
        self.close()
        self.door.tell_refused(refusal, self.address)

    def close(self) -> None:
        """Send what is written, and end: when the client ends too, or has had its time for it."""
        if self._closing:
            return
        self.flush()
        self._closing = True
        self._blocked = self._unsent()
        self.deadline = self.door.now + self.door.bounds.linger
        if self._eof:
            self._transport.close()
        else:
            self._transport.write_eof()
            self._unread = b""
            self.read_on()

    def fail(self, began: bool, bodiless: bool) -> None:
        """The application has failed: a reply that was begun breaks, another is ours, `bodiless` to HEAD."""
        if began or self._closing:
            self.abort()
        else:
            self._exchange = None
            self.refuse(BadMessage(500, "server"), bodiless)

    def abort(self) -> None:
        """End at once, in the middle of it."""
        self._exchange = None
        self._closing = True
        self._transport.abort()

    def expire(self) -> None:
        """The deadline is over."""
        if (self.full or self._closing) and (left := self._unsent()) < self._blocked:
            self._blocked = left  # slowly, but it reads
            self.deadline = self.door.now + self.door.bounds.stall
        elif self._closing or self.full:
            self._transport.abort()
        elif self.reader.has_begun:
            self.refuse(BadMessage(408, "timeout"))
        else:
            self.close()

    @property
    def address(self) -> str:
        """The client's, without its port; nothing where it has none."""
        return self.client[0] if self.client else ""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return self._exchange is None and (self._closing or not self.reader.has_begun)

    @property
    def is_sending(self) -> bool:
        """Whether the system has not yet all that was written."""
        return not self.gone and self._transport.get_write_buffer_size() > 0
