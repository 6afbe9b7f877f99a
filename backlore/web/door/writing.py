"""Makes the bytes of a reply (RFC 9112, §4, §6, §7). No sockets here."""

import re
import time
from collections.abc import Iterable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

Header = tuple[bytes, bytes]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE = b"connection: close\r\n"
KEEP_ALIVE = b"connection: keep-alive\r\n"  # for HTTP/1.0, where it is not the default
CHUNKED = b"transfer-encoding: chunked\r\n"
LAST_CHUNK = b"0\r\n\r\n"
LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t -~\x80-\xff]*\r\n")
FRAMING = frozenset({b"content-length", b"transfer-encoding"})  # headers that only we set
BODILESS = frozenset({204, 304})  # replies without a body, whatever their headers say (RFC 9110, §6.4.1)


@lru_cache(1000)
def status_line(status: int) -> bytes:
    """The first line. A status that is not registered has no reason phrase."""
    reason = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
    return b"HTTP/1.1 %d %b\r\n" % (status, reason.encode())


@lru_cache(1000)
def field(header: Header) -> bytes:
    """The line of a header, cached: most headers are the same in all replies.

    Of `Connection` only `close` is taken: the rest is ours to decide. Raises ValueError for a header that would read as
    a different one or as two, and for one that frames the body.
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
    """The header for a body of `length` bytes."""
    return b"content-length: %d\r\n" % length


def begin(status: int, headers: Iterable[Header]) -> bytes:
    """The first line and the headers, without those that frame the body. Raises ValueError."""
    return status_line(status) + b"".join(map(field, headers))


def date_line() -> bytes:
    """The current Date header (RFC 9110, §6.6.1) and the empty line: the end of a head."""
    return b"date: %b\r\n\r\n" % formatdate(time.time(), usegmt=True).encode()


def chunk(data: bytes) -> bytes:
    """A chunk of a body. Empty data would end the body (§7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)
