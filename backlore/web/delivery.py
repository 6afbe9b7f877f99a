"""Sends contents from files or streams: whole, or the ranges that the client asked for (RFC 9110, §13, §14).

Laws: a content is never loaded into memory as a whole. A declared length is kept, or the connection breaks, so that
the client can't take a part for the whole. An invalid header that the RFC allows us to ignore is ignored.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from backlore.core.crypto import random_text
from backlore.web.reply import Header, Reply, Send, etag_matches, read_list, reply
from backlore.web.request import AGAIN, Request, forget

T = TypeVar("T")

# Bytes read and sent at once. The kernel sends larger parts of files, where the server supports it.
PIECE = 256 << 10
RANGES = 20  # in one request; a header with more is ignored
NOWAIT = getattr(os, "RWF_NOWAIT", None)  # Linux: read only what is in memory already

_RANGE = re.compile(rb"[ \t]*+(?:(?:[0-9]++-[0-9]*+|-[0-9]++)[ \t]*+)?")
_UNSAFE = re.compile(r'[^ -~]|["\\%]')  # characters that can't stand unescaped in a quoted file name

Span = tuple[int, int]  # start, length: bytes of a content


class FilePart(NamedTuple):
    """A part of a file on the local disk. `whole`: it is the entire file, which will not grow."""

    path: Path | str
    start: int
    length: int
    whole: bool = False

    def cut(self, start: int, length: int) -> "FilePart":
        """`length` bytes of it from `start`."""
        return FilePart(self.path, self.start + start, length)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes, piece by piece. Raises OSError, also when the file has become shorter."""
        loop = asyncio.get_running_loop()
        at, end = self.start, self.start + self.length
        handle = os.open(self.path, os.O_RDONLY)
        try:
            while at < end:
                size = min(PIECE, end - at)
                piece = read_at_once(handle, size, at) or await loop.run_in_executor(None, os.pread, handle, size, at)
                if not piece:
                    raise OSError(f"{self.path} has become shorter while it was sent")
                at += len(piece)
                yield bytes(piece)
        finally:
            os.close(handle)


class StreamPart(NamedTuple):
    """A part of a content that comes from elsewhere: `read(start, length)` streams its bytes."""

    read: Callable[[int, int], AsyncIterator[bytes]]
    start: int
    length: int

    def cut(self, start: int, length: int) -> "StreamPart":
        """`length` bytes of it from `start`."""
        return StreamPart(self.read, self.start + start, length)

    def pieces(self) -> AsyncIterator[bytes]:
        """The bytes, piece by piece."""
        return self.read(self.start, self.length)


Part = FilePart | StreamPart


def read_at_once(handle: int, size: int, at: int) -> bytes | bytearray:
    """As many of these bytes as can be read without waiting for the disk; empty if that would wait."""
    if NOWAIT is None:
        return b""
    buffer = bytearray(size)
    try:
        count = os.preadv(handle, [buffer], at, NOWAIT)
    except OSError:  # they are not in memory, or the file system can't tell
        return b""
    return buffer if count == size else buffer[:count]


def read_small(file: FilePart) -> bytes | bytearray:
    """All bytes of a part; empty if that would wait for the disk. A short way for what `FilePart.pieces` does."""
    handle = os.open(file.path, os.O_RDONLY)
    try:
        content = read_at_once(handle, file.length, file.start)
    finally:
        os.close(handle)
    return content if len(content) == file.length else b""


def cut(parts: Iterable[Part], start: int, length: int) -> list[Part]:
    """Take `length` bytes from `start` out of the parts' concatenation; returns the parts that make them."""
    found: list[Part] = []
    at, end = 0, start + length
    for part in parts:
        first, last = max(start - at, 0), min(end - at, part.length)
        if first < last:
            found.append(part.cut(first, last - first))
        at += part.length
    return found


async def watched(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client goes away or its session ends.

    Without it, sending to a client that has gone may never return, and work would go on for nobody.
    Raises what the work raises, Disconnected, and Refused when the session ends.
    """
    return await held(request, work, asyncio.ensure_future(request.wait_until_gone()))


async def held(request: Request, work: Coroutine[Any, Any, T], end: asyncio.Future[Exception]) -> T:
    """The result of `work`, which is cancelled when the session ends or `end` is done.

    Raises what the work raises, the exception that is the result of `end`, and Refused when the session ends.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(forget)
    try:
        while not task.done():
            if end.done():
                raise end.result()
            if not (await asyncio.wait((task, end), timeout=AGAIN, return_when=asyncio.FIRST_COMPLETED))[0]:
                await request.glance()
        return task.result()
    finally:
        task.cancel()
        end.cancel()


class PartsReply(Reply):
    """A reply of known length, made of parts and bytes. `by_kernel`: the server can let the kernel send files."""

    __slots__ = ("by_kernel", "is_long", "length", "parts")

    def __init__(self, status: int, headers: list[Header], parts: Sequence[Part | bytes], by_kernel: bool = False):
        super().__init__(status, b"", headers)
        self.parts = parts
        self.length = sum(len(part) if isinstance(part, bytes) else part.length for part in parts)
        self.is_long = self.length > PIECE
        self.by_kernel = by_kernel

    async def send(self, send: Send, headers: list[Header], bodiless: bool) -> None:
        """Send by ASGI, piece by piece. The first piece is read before the status is sent. Raises OSError."""
        headers = [*headers, (b"content-length", b"%d" % self.length)]
        start = {"type": "http.response.start", "status": self.status, "headers": headers}
        if bodiless or not self.length:
            await send(start)
            await send({"type": "http.response.body", "body": b""})
            return
        first, *others = self.parts
        piece = read_small(first) if isinstance(first, FilePart) and not others and first.length <= PIECE else b""
        if piece:
            await send(start)
            await send({"type": "http.response.body", "body": piece})
            return
        left = self.length
        for part in self.parts:
            if isinstance(part, FilePart) and self.by_kernel and part.length > PIECE:
                handle = os.open(part.path, os.O_RDONLY)
                try:
                    if left == self.length:
                        await send(start)
                    left -= part.length
                    where = {"file": handle, "offset": part.start, "count": part.length}
                    await send({"type": "http.response.zerocopysend", **where, "more_body": left > 0})
                finally:
                    os.close(handle)
                continue
            async for piece in _pieces(part):
                if not piece:
                    continue
                if left == self.length:
                    await send(start)
                left -= len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
        if left:
            raise OSError(f"{left} bytes less than were promised")


async def _pieces(part: Part | bytes) -> AsyncIterator[bytes]:
    if isinstance(part, bytes):
        yield part
    else:
        async for piece in part.pieces():
            yield piece


class StreamReply(Reply):
    """A reply of unknown length, sent as it comes. `may_end`: it may end anywhere and still be complete."""

    __slots__ = ("may_end", "stream")

    is_long = True

    def __init__(self, status: int, headers: list[Header], stream: AsyncIterator[bytes], may_end: bool = False):
        super().__init__(status, b"", headers)
        self.stream = stream
        self.may_end = may_end

    async def send(self, send: Send, headers: list[Header], bodiless: bool) -> None:
        """Send by ASGI, chunk by chunk. Raises what the stream raises: the connection then breaks."""
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        if not bodiless:
            async for piece in self.stream:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def deliver(request: Request, parts: Sequence[Part], headers: list[Header], etag: bytes) -> Reply:
    """The reply to a GET of the content that the parts make: 200, 206 for ranges, 304, 412 `changed`, 416 `range`.

    `headers` name its content-type; `etag` is strong.
    """
    headers = [*headers, (b"etag", etag), (b"accept-ranges", b"bytes")]
    if refusal := judge_conditions(request, headers, etag):
        return refusal
    size = sum(part.length for part in parts)
    by_kernel = "http.response.zerocopysend" in (request.scope.get("extensions") or ())
    asked = request.headers.get(b"range")
    # ranges are defined for GET only, not even for HEAD (§14.2)
    if asked and request.method == "GET" and request.headers.get(b"if-range", etag) == etag:
        spans = parse_ranges(asked, size)
        if spans is not None:
            return _partial(parts, headers, spans, size, by_kernel)
    return PartsReply(200, headers, parts, by_kernel)


def judge_conditions(request: Request, headers: list[Header], etag: bytes) -> Reply | None:
    """The reply that If-Match or If-None-Match demands instead of the content: 412 `changed`, 304; None to send it.

    See RFC 9110, §13.2.2.
    """
    wanted = request.headers.get(b"if-match")
    if wanted is not None and not etag_matches(wanted, etag, strong=True):
        return reply(412, error="changed")
    if etag_matches(request.headers.get(b"if-none-match"), etag):
        return Reply(304, b"", headers)
    return None


def _partial(parts: Sequence[Part], headers: list[Header], spans: list[Span], size: int, by_kernel: bool) -> Reply:
    if not spans:
        return reply(416, error="range", headers=[("content-range", f"bytes */{size}")])
    if len(spans) == 1:
        span = spans[0]
        return PartsReply(206, [*headers, (b"content-range", _said(span, size))], cut(parts, *span), by_kernel)
    boundary = random_text(128).encode()
    kind = next((value for name, value in headers if name == b"content-type"), b"application/octet-stream")
    sent: list[Part | bytes] = []
    for span in spans:
        lines = (b"\r\n--" + boundary, b"content-type: " + kind, b"content-range: " + _said(span, size), b"", b"")
        sent += [b"\r\n".join(lines), *cut(parts, *span)]
    sent.append(b"\r\n--" + boundary + b"--\r\n")
    others = [each for each in headers if each[0] != b"content-type"]
    return PartsReply(206, [(b"content-type", b"multipart/byteranges; boundary=" + boundary), *others], sent, by_kernel)


def _said(span: Span, size: int) -> bytes:
    return b"bytes %d-%d/%d" % (span[0], span[0] + span[1] - 1, size)


def parse_ranges(header: bytes, size: int) -> list[Span] | None:
    """The ranges of a Range header, cut to a content of `size` bytes (RFC 9110, §14.1.2); empty if none lies within it.

    None when the header is to be ignored: another unit, bad syntax, too many ranges, or ranges longer in all than the
    whole; also when it asks for the last bytes of an empty content: the empty whole is the answer.
    """
    listed = read_list(header[6:], _RANGE) if header[:6].lower() == b"bytes=" else []
    if not 1 <= len(listed) <= RANGES:
        return None
    found = []
    for each in listed:
        first, _, last = each.partition(b"-")
        if first:
            start, end = _number(first), min(_number(last) if last else size, size - 1) + 1
            if last and _number(last) < start:
                return None
        else:
            start, end = max(size - _number(last), 0), size
            if not size and _number(last):
                return None
        if start < end:
            found.append((start, end - start))
    return found if len(found) < 2 or sum(length for _, length in found) <= size else None


def _number(digits: bytes) -> int:
    """The number, however many digits it has: one with more than 18 lies beyond every content."""
    return int(digits.lstrip(b"0")[:19] or b"0")


def disposition(name: str, inline: bool) -> Header:
    """`Content-Disposition` for a file of any name (RFC 6266, RFC 8187), with an ASCII name for older clients."""
    base = name.rpartition("/")[2]
    plain = _UNSAFE.sub("_", base)
    text = f'{"inline" if inline else "attachment"}; filename="{plain}"'
    if plain != base:
        text += f"; filename*=UTF-8''{quote(base, safe='')}"
    return b"content-disposition", text.encode("ascii")
