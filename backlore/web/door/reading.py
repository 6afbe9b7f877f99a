"""Parses a client's bytes into requests, one after another (RFC 9112). No sockets here.

Laws:

- One message at a time. The caller keeps the bytes behind a message's end until the message is answered.
- A message that could be read in two ways is refused, and nothing more is read: a proxy in front of us must not see
  other requests than we do. llhttp parses heads in its strictest mode; what it accepts and we don't is checked here.
- Everything has a bound: the request line, the head, the number of its fields, the framing of chunks, the trailers.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

Field = tuple[bytes, bytes]  # the name in lower case
Fields = tuple[Field, ...]

LINE_LIMIT = 64 << 10  # bytes of a request line; the application bounds the query more narrowly
HEAD_LIMIT = 96 << 10  # bytes of a whole head
FIELDS = 100
USUAL = 1500  # bytes: the fields of most heads are no longer, and are cached
USUAL_LINE = 200  # bytes: the same for request lines
FRAMING = 16 << 10  # bytes that may frame the chunks of a body, beyond eight for each byte of content
END = b"\r\n\r\n"
BLANK = (b"", b"\r", b"\r\n")  # ignored before a head (§2.2)

# method, target, version (§3). Stricter than llhttp, which accepts two spaces, and lines of other protocols
LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}) ([!-~]+) HTTP/(\d\.\d)\r\n")
# authority and the rest of an absolute target (§3.2.2)
ABSOLUTE = re.compile(rb"https?://([^/?#@]+)([/?].*)?", re.IGNORECASE)
HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::\d{0,5})?")
LENGTH = re.compile(rb"\d{1,20}[ \t]*")
# the size of a chunk, and an extension, which is ignored (§7.1)
SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t -~\x80-\xff]*)?\r\n")
BARE = re.compile(rb"(?<!\r)\n|\r(?=[^\n])")  # ends a line for some parsers, and not for others
TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n")


class BadMessage(Exception):
    """The message is refused. `status` and `word` are those of the reply, the last one on its connection."""

    def __init__(self, status: int, word: str):
        super().__init__(word)
        self.status = status
        self.word = word


class RequestLine(NamedTuple):
    """The first line of a head."""

    method: str
    authority: bytes  # of an absolute target, else empty
    path: str  # with percent escapes decoded
    raw_path: bytes  # as sent
    query: bytes
    version: str


class Said(NamedTuple):
    """What the fields of a head say about the message and its connection."""

    fields: Fields
    length: int  # of the body in bytes; -1 when it comes in chunks
    keep_alive: bool
    expects: bool  # the client expects 100 before it sends the body (RFC 9110, §10.1.1)


class Head(NamedTuple):
    """The head of a message: all that stands before the body."""

    line: RequestLine
    said: Said


class Fielder:
    """Parses fields with llhttp, one whole head after another. One instance serves all connections."""

    def __init__(self) -> None:
        self._found: list[Field] = []
        self._spent = True  # the parser can't take another head: it expects a body, or the end of the connection

    def parse(self, raw: bytes) -> list[Field]:
        """Parse the fields, from after the first line to the empty one. Raises BadMessage."""
        if self._spent:
            self._parser = HttpRequestParser(self)
        self._spent = True
        found = self._found = []
        try:
            self._parser.feed_data(b"GET / HTTP/1.1\r\n" + raw)  # any request line will do: read_line parses ours
        except HttpParserError as error:
            raise (BadMessage(431, "size") if len(found) > FIELDS else BadMessage(400, "http")) from error
        except HttpParserUpgrade:  # we ignore it and stay with HTTP/1.1 (RFC 9110, §7.8)
            self._spent = True
        return found

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by httptools."""
        self._found.append((name.lower(), value))
        if len(self._found) > FIELDS:
            raise ValueError("too many fields")

    def on_message_complete(self) -> None:
        """Called by httptools."""
        self._spent = not self._parser.should_keep_alive()


_fielder = Fielder()


def read_head(raw: bytes) -> Head:
    """Parse a head, up to the empty line. Raises BadMessage."""
    end = raw.find(b"\r\n") + 2
    # cached: a client's next request mostly has the same fields, and all clients send the same request lines
    line = (read_line_again if end <= USUAL_LINE else read_line)(raw[:end])
    said = (judge_again if len(raw) - end <= USUAL else judge_fields)(raw[end:], line.version)
    if line.authority:  # it replaces Host (§3.2.2)
        others = (each for each in said.fields if each[0] != b"host")
        said = said._replace(fields=((b"host", line.authority), *others))
    return Head(line, said)


def read_line(raw: bytes) -> RequestLine:
    """Parse the first line (§3). Raises BadMessage."""
    found = LINE.fullmatch(raw)
    if found is None:
        raise BadMessage(400, "http")
    if len(raw) > LINE_LIMIT:
        raise BadMessage(414, "query")
    method, target, version = found.groups()
    authority = b""
    if target[:1] != b"/" and method != b"CONNECT" and not (target == b"*" and method == b"OPTIONS"):
        absolute = ABSOLUTE.fullmatch(target)
        if absolute is None or not HOST.fullmatch(absolute[1]):
            raise BadMessage(400, "http")
        authority, rest = absolute[1], absolute[2] or b"/"
        target = rest if rest[:1] == b"/" else b"/" + rest
    if method == b"CONNECT":  # refused always: a proxy could take our reply for an open tunnel (RFC 9110, §9.3.6)
        raise BadMessage(501, "http")
    if target.find(b"#") >= 0:
        raise BadMessage(400, "http")
    if version != b"1.1" and version != b"1.0":
        raise BadMessage(505, "http")
    raw_path, _, query = target.partition(b"?")
    return RequestLine(method.decode(), authority, unquote(raw_path.decode()), raw_path, query, version.decode())


read_line_again = lru_cache(1000)(read_line)


def judge_fields(raw: bytes, version: str) -> Said:
    """Parse the fields, from after the first line to the empty one, and interpret them. Raises BadMessage."""
    fields = _fielder.parse(raw)
    known = dict(fields)
    length = 0
    if b"content-length" in known or b"transfer-encoding" in known:
        length = judge_framing(fields, version)
    hosts = sum(name == b"host" for name, _ in fields)
    if (hosts != 1 and (hosts or version == "1.1")) or (hosts and not HOST.fullmatch(known[b"host"])):
        raise BadMessage(400, "http")
    keep_alive = version == "1.1"
    if b"connection" in known:
        # the header may come in several lines
        said = {word.strip().lower() for name, value in fields if name == b"connection" for word in value.split(b",")}
        keep_alive = b"close" not in said and (keep_alive or b"keep-alive" in said)
    expects = b"expect" in known and known[b"expect"].lower() == b"100-continue" and version == "1.1"
    return Said(tuple(fields), length, keep_alive, expects)


judge_again = lru_cache(1000)(judge_fields)


def judge_framing(fields: Sequence[Field], version: str) -> int:
    """The length of the body in bytes, -1 if it comes in chunks (§6.3). Raises BadMessage."""
    framing = [each for each in fields if each[0] in (b"content-length", b"transfer-encoding")]
    name, value = framing[0]
    if name == b"transfer-encoding":
        if any(value.strip().lower() != b"chunked" for name, value in framing if name == b"transfer-encoding"):
            raise BadMessage(501, "http")
        if len(framing) > 1 or version != "1.1":
            raise BadMessage(400, "http")
        return -1
    if len(framing) > 1 or not LENGTH.fullmatch(value):
        raise BadMessage(400, "http")
    return int(value)


class Reader:
    """Reads one message after another: `feed` it bytes until it is `complete`, then `reset` it.

    `head` is set as soon as it is whole. The bytes of the body that have come wait for `take`; `size` is their number.
    """

    __slots__ = ("_framing", "_left", "_partial", "_pieces", "_step", "complete", "head", "size")

    def __init__(self) -> None:
        self._partial = b""  # the beginning of a head, or of a line that frames chunks
        self._pieces: list[bytes] = []
        self.size = 0
        self.reset()

    def reset(self) -> None:
        """Get ready for the next message."""
        self.head: Head | None = None
        self.complete = False
        if self.size:  # a body that nobody took: it must not become part of the next message
            self.take()
        self._left = 0  # bytes of the body, or of this chunk, that are still to come

    @property
    def has_begun(self) -> bool:
        """Whether at least the beginning of a head is here."""
        return self.head is not None or self._partial not in BLANK

    def feed(self, data: bytes) -> bytes:
        """Read bytes, up to the end of the message at most. Returns those that are left. Raises BadMessage."""
        at = 0
        if self.head is None:
            raw, at = self._gather(data, 0, END, HEAD_LIMIT)
            if not raw:
                return b""
            self.head = read_head(raw.removeprefix(b"\r\n"))
            self._left = self.head.said.length
            if self._left < 0:
                self._step = self._read_size  # reads the next part of a body in chunks
                self._framing = FRAMING
        if self.head.said.length >= 0:
            if self._left:
                at = self._read_content(data, at)
            self.complete = self._left == 0
        else:
            while at < len(data) and not self.complete:
                at = self._step(data, at)
        return data[at:]

    def take(self) -> bytes:
        """The bytes of the body that have come since the last call."""
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self.size = 0
        return body

    # Each takes bytes from `at` on, and returns the place behind them. If the rest were copied each time, a read full
    # of small chunks would block the event loop for seconds.

    def _gather(self, data: bytes, at: int, end: bytes, limit: int) -> tuple[bytes, int]:
        """All bytes up to and including `end`; nothing while that hasn't come. Raises BadMessage."""
        known, most = len(self._partial), limit + len(end)
        if not known:
            found = data.find(end, at, at + most)
            if found >= 0:
                found += len(end)
                return data[at:found], found
            whole = data[at : at + most]
        else:
            whole, self._partial = self._partial + data[at : at + most], b""
            found = whole.find(end, max(known - len(end) + 1, 0))
        if 0 <= found <= limit:
            return whole[: found + len(end)], at - known + found + len(end)
        if len(whole) >= most:
            raise judge_size(whole) if self.head is None else BadMessage(400, "http")
        if BARE.search(whole, max(known - 1, 0)):  # earlier bytes were checked when they came
            raise BadMessage(400, "http")
        self._partial = whole
        return b"", len(data)

    def _read_content(self, data: bytes, at: int) -> int:
        """Take the bytes of a body or a chunk."""
        piece = data[at : at + self._left]
        if piece:
            self._pieces.append(piece)
            self.size += len(piece)
            self._left -= len(piece)
        return at + len(piece)

    # The parts of a body in chunks (§7.1)

    def _read_line(self, data: bytes, at: int) -> tuple[bytes, int]:
        line, at = self._gather(data, at, b"\r\n", FRAMING)
        self._framing -= len(line)
        if self._framing < 0:
            raise BadMessage(400, "http")
        return line, at

    def _read_size(self, data: bytes, at: int) -> int:
        line, at = self._read_line(data, at)
        if line:
            size = SIZE.fullmatch(line)
            if size is None:
                raise BadMessage(400, "http")
            self._left = int(size[1], 16)
            self._framing += 8 * self._left
            self._step = self._read_chunk if self._left else self._read_trailer
        return at

    def _read_chunk(self, data: bytes, at: int) -> int:
        at = self._read_content(data, at)
        if not self._left:
            self._step = self._read_end
        return at

    def _read_end(self, data: bytes, at: int) -> int:
        known = len(self._partial)
        end = self._partial + data[at : at + 2 - known]
        if not b"\r\n".startswith(end):
            raise BadMessage(400, "http")
        if len(end) == 2:
            self._step, self._partial = self._read_size, b""
        else:
            self._partial = end
        return at + len(end) - known

    def _read_trailer(self, data: bytes, at: int) -> int:
        """Read a field behind the last chunk, which is dropped, or the empty line that ends the fields (§7.1.2)."""
        line, at = self._read_line(data, at)
        if line and line != b"\r\n" and not TRAILER.fullmatch(line):
            raise BadMessage(400, "http")
        self.complete = line == b"\r\n"
        return at


def judge_size(data: bytes) -> BadMessage:
    """The refusal of a head that is too large: 414 if its first line is, else 431 (RFC 6585, §5)."""
    return BadMessage(431, "size") if 0 <= data.find(b"\r\n") <= LINE_LIMIT else BadMessage(414, "query")
