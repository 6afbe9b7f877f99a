"""One connection to a redis server while it lives: commands out, replies in, in the order of the commands.

An entry leaves the queue only with its reply or with its connection, even if nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hiredis import PushNotification, Reader, pack_command
from redis.exceptions import DataError, InvalidResponse

from backlore.clients.redis.errors import parse_error

Arguments = tuple[Any, ...]
Callback = Callable[..., Any]
Future = asyncio.Future[Any]
# future, callback, options, decode, time of issue in seconds by the loop's clock
Entry = tuple[Future, Callback | None, Mapping[str, Any] | None, bool, float]
# arguments, callback, options, decode
Command = tuple[Arguments, Callback | None, Mapping[str, Any] | None, bool]

INCOMPLETE = object()  # returned by hiredis while it has no whole reply


def pack(args: Arguments) -> bytes:
    """The command as RESP. Arguments are str, bytes, int, float or a buffer; raises DataError for others."""
    packed: bytes
    try:
        packed = pack_command(args)
    except (TypeError, UnicodeEncodeError):
        packed = pack_command(tuple(map(encode, args)))
    return packed


def encode(argument: Any) -> Any:
    """An argument as hiredis takes it. Bytes that aren't UTF-8, decoded to surrogates, become the same bytes again."""
    if isinstance(argument, str):
        return argument.encode("utf-8", "surrogateescape")
    if isinstance(argument, bytearray | memoryview):
        return bytes(argument)
    if isinstance(argument, bytes | int | float) and not isinstance(argument, bool):
        return argument
    raise DataError(f"redis takes str, bytes, int and float, not {type(argument).__name__}: convert it first")


class Link(asyncio.Protocol):
    """One connection while it lives: bytes in, replies out, in the order of `pending`."""

    def __init__(self, free: Callable[[], None], lost: Callable[[Link, Exception | None], None]) -> None:
        self._on_free = free  # called when the socket accepts data again
        self._on_lost = lost  # called when the connection is gone
        self.pending: deque[Entry] = deque()
        self.since = 0.0  # when it was opened, by the loop's clock
        self.ready = False  # HELLO is done
        self.paused = False  # the socket accepts no more data
        self.stalled = False  # the server doesn't answer
        self.transport: asyncio.Transport
        self.reader = Reader(
            protocolError=InvalidResponse,
            replyError=parse_error,
            encoding="utf-8",
            errors="surrogateescape",
            notEnoughData=INCOMPLETE,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # asyncio types it as the base of all transports

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._on_free()

    def connection_lost(self, error: Exception | None) -> None:
        self._on_lost(self, error)

    def free(self) -> bool:
        """Whether commands may be written now."""
        return self.ready and not (self.paused or self.stalled or self.transport.is_closing())

    def write(self, data: bytes, entries: Sequence[Entry]) -> None:
        self.pending.extend(entries)
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Give each whole reply to the oldest entry."""
        pending = self.pending
        gets = self.reader.gets
        try:
            self.reader.feed(data)
            while pending:
                reply = gets(pending[0][3])
                if reply is INCOMPLETE:
                    return
                if type(reply) is not PushNotification:
                    settle(pending.popleft(), reply)
            reply = gets()
            while type(reply) is PushNotification:
                reply = gets()
            if reply is not INCOMPLETE:
                raise InvalidResponse(f"a reply that nobody asked for: {str(reply)[:100]}")
        except InvalidResponse as error:
            self.transport.abort()
            self._on_lost(self, error)

    def age(self, now: float) -> float:
        """Seconds since the oldest command in flight was issued."""
        return now - self.pending[0][4] if self.pending else 0.0


def settle(entry: Entry, reply: Any) -> None:
    """Give the entry's future its result, made from the reply by the callback, unless nobody waits for it any more."""
    future, callback, options, _, _ = entry
    if future.done():
        return
    if isinstance(reply, Exception):
        future.set_exception(reply)
    elif callback is None:
        future.set_result(reply)
    else:
        try:
            result = callback(reply, **options) if options else callback(reply)
        except Exception as error:
            fail(entry, error)
        else:
            future.set_result(result)


def fail(entry: Entry, error: Exception) -> None:
    """End the entry's future with the error, unless it has ended."""
    if not entry[0].done():
        # a future accepts every exception except StopIteration
        entry[0].set_exception(RuntimeError(repr(error)) if isinstance(error, StopIteration) else error)


def keep_alive(transport: asyncio.Transport) -> None:
    """Turn on TCP keepalive: a peer or a firewall that vanishes silently is noticed within two minutes."""
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
