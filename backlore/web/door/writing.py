"""What a reply's bytes are (RFC 9112, §4, §6, §7). No sockets here."""

import re
import time
from collections.abc import Iterable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

Header = tuple[bytes, bytes]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE = b"connection: close\r\n"
KEEP_ALIVE = b"connection: keep-alive\r\n"  # for HTTP/1.0, which doesn't expect it
CHUNKED = b"transfer-encoding: chunked\r\n"
LAST_CHUNK = b"0\r\n\r\n"
LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t -~\x80-\xff]*\r\n")
FRAMING = frozenset({b"content-length", b"transfer-encoding"})  # the names of what we say ourselves
BODILESS = frozenset({204, 304})  # replies that have none, whatever is said (RFC 9110, §6.4.1)


@lru_cache(1000)
def status_line(status: int) -> bytes:
    """The first line; a status that the registry doesn't know has no reason."""
    reason = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
    return b"HTTP/1.1 %d %b\r\n" % (status, reason.encode())


@lru_cache(1000)
def field(header: Header) -> bytes:
    """The line of a header. Most are the same in all replies; what differs each time pushes out only its like.

    Of `Connection` only the end is taken: how it goes on is ours to say. Raises ValueError for a header that would be
    another, or two, and for one that frames the body.
    """
    name, value = header[0].lower(), header[1]
    if name == b"connection":
        return CLOSE if value.lower().find(b"close") >= 0 else b""
    line = b"%b: %b\r\n" % (name, value)
    if name in FRAMING or not LINE.fullmatch(line):
        raise ValueError(f"no header for a reply: {name!r}")
    return line


@lru_cache(1000)
def length_line(length: int) -> bytes:
    """How long a body is, in bytes."""
    return b"content-length: %d\r\n" % length


def begin(status: int, headers: Iterable[Header]) -> bytes:
    """The first line and the headers, without what frames the body. Raises ValueError."""
    return status_line(status) + b"".join(map(field, headers))


def date_line() -> bytes:
    """The header Date of now (RFC 9110, §6.6.1), which ends a head."""
    return b"date: %b\r\n\r\n" % formatdate(time.time(), usegmt=True).encode()


def chunk(data: bytes) -> bytes:
    """A chunk of a body; empty data would end it (§7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)
