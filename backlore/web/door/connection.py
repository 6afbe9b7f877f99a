"""One connection of a client: bytes in, one request at a time to the application, bytes out.

Laws:

- Requests are answered one after another, in order. Bytes sent behind a request wait, at most one read of the socket;
  then reading pauses, so that a client that sends without end costs nothing.
- A client that reads slowly delays its own reply, and nobody else's.
- All data for a connection from one turn of the event loop leaves in one write.
- Every silence has a deadline: in a head, between requests, while the client doesn't read, during a close.
- A connection that is being closed goes on reading for a while, and discards what it reads: otherwise a client that
  is still sending would lose our reply to a TCP reset (RFC 9112, §9.6).
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

HIGH = 256 << 10  # bytes of a body that may wait for the application before reading pauses
SOON = 64 << 10  # bytes to send that are not held until the end of the turn
TURNS = 32  # messages that are read from one connection in a turn of the loop
LINGER = 256 << 20  # bytes of a refused client that are discarded, at most
STRETCH = 4 << 20  # discarded bytes after which the deadline is renewed: browsers send all before they read a reply
NEVER = float("inf")
REFUSAL = [
    (b"content-type", b"application/json"), (b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"),
]  # fmt: skip


class Connection(asyncio.Protocol):
    """`client` is the client's address and port. `ended`: we take nothing more from it. `gone`: the connection is lost.

    `full`: a future while the client doesn't take what we send, else None.
    """

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
        self.deadline = NEVER  # seconds by the loop's clock
        self._transport: Any = None
        self._exchange: Exchange | None = None  # the one in flight
        self._unread = b""  # bytes behind the request in flight
        self._paused = False  # reading is paused
        self._is_reading = False  # writes wait until the received bytes are read
        self._out: list[bytes] = []  # to be written at the end of this turn
        self._size = 0  # bytes of these
        self._blocked = 0  # bytes that the client had not taken at the last check
        self._eof = False  # the client has sent EOF
        self._closing = False  # nothing more is sent
        self._lingers = LINGER  # bytes that may still be discarded

    # Called by the transport

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.client = peer[:2] if peer else None
        if self.door.admit(self):
            self.deadline = self.door.now + self.door.bounds.head
        else:
            self.refuse(BadMessage(503, "unavailable"))

    def connection_lost(self, error: Exception | None) -> None:
        self.gone = self.ended = self._closing = True
        self.door.leave(self)
        self._out.clear()
        self._set_free()
        if self._exchange:
            self._exchange.wake()

    def data_received(self, data: bytes) -> None:
        if self._closing or self.ended:
            before, self._lingers = self._lingers, self._lingers - len(data)
            if self._lingers < 0:
                self._transport.abort()
            elif self._closing and before // STRETCH > self._lingers // STRETCH:  # still sending, towards the limit
                self.deadline = self.door.now + self.door.bounds.linger
        elif self.reader.complete if self._exchange else self.full:
            self._keep(self._unread + data)
        else:
            self._read(data)

    def eof_received(self) -> bool:
        """The client sends nothing more. It still gets replies to what it has sent, unless that takes long."""
        self._eof = self.ended = True
        self.flush()
        if self._exchange:
            self._exchange.wake()
        return not self._closing and (self._exchange is not None or bool(self._unread))

    def pause_writing(self) -> None:
        """The client doesn't take what we send: it gets a deadline."""
        self.full = self.door.loop.create_future()
        self._blocked = self._unsent()
        self.deadline = self.door.now + self.door.bounds.stall

    def resume_writing(self) -> None:
        """The client takes again what we send."""
        self._set_free()
        if self._exchange:
            self.deadline = NEVER
        elif not self._closing:
            self.deadline = self.door.now + self.door.bounds.idle
            self._go_on()

    # Reading

    def _read(self, data: bytes) -> None:
        """Read messages from the bytes, one after another, have them answered, and send the replies."""
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
                self.deadline = NEVER  # for the body the application has deadlines of its own
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
        """Read the bytes that were sent behind a request, once that is answered."""
        if self._exchange is None and not self._closing and not self.full:
            data, self._unread = self._unread, b""
            self.read_on()
            if data:
                self._read(data)

    def _refuse_message(self, refusal: BadMessage) -> None:
        if self._exchange is None:
            self.refuse(refusal)
        else:  # the application has the request already: it is told that no more comes
            self.ended = True
            self._exchange.wake()

    def _keep(self, data: bytes) -> None:
        """Keep bytes until the request before them is answered; reading pauses until then."""
        self._unread = data
        if data:
            self._pause()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def read_on(self) -> None:
        """Resume reading: there is room again for what the client sends."""
        if self._paused and not self._unread and not self._eof and not self.gone:
            self._paused = False
            self._transport.resume_reading()

    # Writing

    def write(self, data: bytes) -> None:
        """Send at the end of this turn, together with its other data; at once when there is much."""
        if self._closing:
            return
        if not self._out and not self._is_reading:
            self.door.flush_soon(self)
        self._out.append(data)
        self._size += len(data)
        if self._size > SOON:
            self.flush()

    def flush(self) -> None:
        """Send now what this turn has so far."""
        out = self._out
        if out:
            if len(out) == 1:
                self._transport.write(out[0])
            else:
                self._transport.writelines(out)
            self._out = []
            self._size = 0

    async def drain(self) -> None:
        """Wait until the client takes more. Raises nothing when it has gone: sending the next piece will."""
        if self.full:
            await asyncio.shield(self.full)

    async def empty(self) -> None:
        """Send what is written, and wait until the transport's buffer is empty."""
        self.flush()
        self._transport.set_write_buffer_limits(0)
        try:
            await self.drain()
        finally:
            if not self.gone:
                self._transport.set_write_buffer_limits()

    async def wait_until_writable(self, socket: int) -> None:
        """Wait until the client takes more. `socket` is a duplicate of the connection's."""
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
        """Bytes that the client's system has not acknowledged: those in our buffer, and those in our kernel's.

        The kernel may hold megabytes, and signals nothing for a long time while they drain.
        """
        try:
            waiting = fcntl.ioctl(self.fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):  # another kind of socket, or one that is closed
            waiting = bytes(4)
        size: int = self._transport.get_write_buffer_size()
        return size + int.from_bytes(waiting, sys.byteorder)

    def fileno(self) -> int:
        """The file descriptor of the socket."""
        number: int = self._transport.get_extra_info("socket").fileno()
        return number

    # Ending

    def finished(self, exchange: Exchange) -> None:
        """Go on after a request has been answered: with the next one, or with a close."""
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
        """Answer a message that we don't take, and close. `bodiless`: it is the failed reply to HEAD."""
        body = b'{"error":"%b"}' % refusal.word.encode()
        headers = [*REFUSAL, (b"retry-after", b"1")] if refusal.status == 503 else REFUSAL
        head = begin(refusal.status, headers) + length_line(len(body)) + CLOSE + self.door.date
        self.write(head if bodiless else head + body)
        self.close()
        self.door.tell_refused(refusal, self.address)

    def close(self) -> None:
        """Send what is written, and end: when the client closes its side too, or at the deadline for that."""
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
        """The application has failed: break a reply that has begun, else send 500, `bodiless` to HEAD."""
        if began or self._closing:
            self.abort()
        else:
            self._exchange = None
            self.refuse(BadMessage(500, "server"), bodiless)

    def abort(self) -> None:
        """End the connection at once, even in the middle of a reply."""
        self._exchange = None
        self._closing = True
        self._transport.abort()

    def expire(self) -> None:
        """The deadline has passed: extend it if the client still reads, else end the connection."""
        if (self.full or self._closing) and (left := self._unsent()) < self._blocked:
            self._blocked = left  # the client reads, slowly
            self.deadline = self.door.now + self.door.bounds.stall
        elif self._closing or self.full:
            self._transport.abort()
        elif self.reader.has_begun:
            self.refuse(BadMessage(408, "timeout"))
        else:
            self.close()

    @property
    def address(self) -> str:
        """The client's IP address, without the port; "" if it has none."""
        return self.client[0] if self.client else ""

    @property
    def is_idle(self) -> bool:
        """Whether no request is in flight, nor the head of one begun."""
        return self._exchange is None and (self._closing or not self.reader.has_begun)

    @property
    def is_sending(self) -> bool:
        """Whether written data has not all been handed to the system yet."""
        return not self.gone and self._transport.get_write_buffer_size() > 0
