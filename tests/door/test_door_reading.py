"""What a client's bytes are: whole, byte by byte or cut anywhere, they are the same messages or the same refusal."""

import re
from collections.abc import Iterable

import pytest
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from hypothesis import given, settings
from hypothesis import strategies as st

from backlore.web.door.reading import FIELDS, HEAD_LIMIT, LINE_LIMIT, BadMessage, Reader

HOST = b"Host: a\r\n"
CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\n" + HOST + b"\r\n"

Message = tuple[str, bytes, bytes]  # method, path, body


def read(pieces: Iterable[bytes]) -> list[Message | int | str]:
    """The messages in some bytes; at the end the status of a refusal, or "more" for what is not whole."""
    reader, found, body = Reader(), [], b""
    try:
        for piece in pieces:
            while piece:
                piece = reader.feed(piece)
                body += reader.take()
                if not reader.complete:
                    break
                assert reader.head
                found.append((reader.head.line.method, reader.head.line.raw_path, body))
                body = b""
                reader.reset()
    except BadMessage as refused:
        return [*found, refused.status]
    return [*found, "more"] if reader.has_begun else found


def get(line: bytes = b"GET / HTTP/1.1", fields: bytes = HOST) -> bytes:
    return line + b"\r\n" + fields + b"\r\n"


def post(fields: bytes, body: bytes = b"") -> bytes:
    return get(b"POST / HTTP/1.1", HOST + fields) + body


PLAIN = [("GET", b"/", b"")]
# name: (bytes, what they are). Ambiguities as research on request smuggling has listed them, written anew.
CASES: dict[str, tuple[bytes, list[Message | int | str]]] = {
    "plain": (get(), PLAIN),
    "two in one": (get() + NEXT, [*PLAIN, ("GET", b"/next", b"")]),
    "an empty line before it": (b"\r\n" + get(), PLAIN),
    "two empty lines before it": (b"\r\n\r\n" + get(), [400]),
    "HTTP/1.0 without Host": (get(b"GET / HTTP/1.0", b""), PLAIN),
    "HTTP/1.1 without Host": (get(fields=b""), [400]),
    "two Hosts": (get(fields=HOST + HOST), [400]),
    "two Hosts, one empty": (get(fields=HOST + b"Host:\r\n"), [400]),
    "Host with a space": (get(fields=b"Host: a b\r\n"), [400]),
    "Host with a path": (get(fields=b"Host: a/b\r\n"), [400]),
    "Host with a user": (get(fields=b"Host: u@a\r\n"), [400]),
    "Host of IPv6": (get(fields=b"Host: [::1]:80\r\n"), PLAIN),
    "absolute": (get(b"GET http://b/x HTTP/1.1"), [("GET", b"/x", b"")]),
    "absolute without a path": (get(b"GET http://b HTTP/1.1"), PLAIN),
    "absolute with a user": (get(b"GET http://u@b/ HTTP/1.1"), [400]),
    "another scheme": (get(b"GET ftp://b/ HTTP/1.1"), [400]),
    "asterisk": (get(b"OPTIONS * HTTP/1.1"), [("OPTIONS", b"*", b"")]),
    "asterisk of a GET": (get(b"GET * HTTP/1.1"), [400]),
    "a fragment": (get(b"GET /#a HTTP/1.1"), [400]),
    "no slash": (get(b"GET a HTTP/1.1"), [400]),
    "any method": (get(b"BREW / HTTP/1.1"), [("BREW", b"/", b"")]),
    "a method that is no token": (get(b"GE(T / HTTP/1.1"), [400]),
    "two spaces": (get(b"GET  / HTTP/1.1"), [400]),
    "a tab": (get(b"GET\t/ HTTP/1.1"), [400]),
    "a space at the end of the line": (get(b"GET / HTTP/1.1 "), [400]),
    "a space in the path": (get(b"GET /a b HTTP/1.1"), [400]),
    "no version": (get(b"GET /"), [400]),
    "HTTP/0.9": (get(b"GET / HTTP/0.9"), [505]),
    "HTTP/2.0": (get(b"GET / HTTP/2.0"), [505]),
    "HTTP/1.10": (get(b"GET / HTTP/1.10"), [400]),
    "http/1.1": (get(b"GET / http/1.1"), [400]),
    "another protocol": (get(b"GET / RTSP/1.0"), [400]),
    "a bare LF ends the line": (b"GET / HTTP/1.1\nHost: a\r\n\r\n", [400]),
    "a bare LF ends a field": (get(fields=b"Host: a\nX: b\r\n"), [400]),
    "a bare LF ends the head": (b"GET / HTTP/1.1\r\nHost: a\r\n\n", [400]),
    "a bare CR in a field": (get(fields=b"Host: a\rX: b\r\n"), [400]),
    "a field goes on in the next line": (get(fields=b"Host: a\r\n b\r\n"), [400]),
    "the first field goes on": (get(fields=b" Host: a\r\n"), [400]),
    "a space before the colon": (get(fields=b"Host : a\r\n"), [400]),
    "no name": (get(fields=HOST + b": a\r\n"), [400]),
    "no colon": (get(fields=HOST + b"X\r\n"), [400]),
    "a name with bytes": (get(fields=HOST + b"X\xff: a\r\n"), [400]),
    "NUL in a value": (get(fields=HOST + b"X: a\0\r\n"), [400]),
    "a control character in a value": (get(fields=HOST + b"X: a\x01\r\n"), [400]),
    "bytes in a value": (get(fields=HOST + b"X: \xff\r\n"), PLAIN),
    "content": (post(b"Content-Length: 3\r\n", b"abc") + NEXT, [("POST", b"/", b"abc"), ("GET", b"/next", b"")]),
    "no content": (post(b"Content-Length: 0\r\n") + NEXT, [("POST", b"/", b""), ("GET", b"/next", b"")]),
    "content that is not whole": (post(b"Content-Length: 3\r\n", b"ab"), ["more"]),
    "content of a GET": (get(fields=HOST + b"Content-Length: 3\r\n") + b"abc" + NEXT,
                         [("GET", b"/", b"abc"), ("GET", b"/next", b"")]),
    "two lengths": (post(b"Content-Length: 1\r\nContent-Length: 1\r\n", b"a"), [400]),
    "two lengths that differ": (post(b"Content-Length: 1\r\nContent-Length: 2\r\n", b"a"), [400]),
    "a list of lengths": (post(b"Content-Length: 1, 1\r\n", b"a"), [400]),
    "a length with a sign": (post(b"Content-Length: +1\r\n", b"a"), [400]),
    "a negative length": (post(b"Content-Length: -1\r\n", b"a"), [400]),
    "an empty length": (post(b"Content-Length:\r\n", b"a"), [400]),
    "a length in hex": (post(b"Content-Length: 0x1\r\n", b"a"), [400]),
    "a length of two words": (post(b"Content-Length: 1 1\r\n", b"a"), [400]),
    "a length with a fraction": (post(b"Content-Length: 1.0\r\n", b"a"), [400]),
    "a length beyond 64 bits": (post(b"Content-Length: 18446744073709551617\r\n", b"a"), [400]),
    "length and chunks": (post(b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), [400]),
    "chunks and length": (post(b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", b"0\r\n\r\n"), [400]),
    "chunks twice": (post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"), [400]),
    "chunks in two fields": (post(2 * b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"), [400]),
    "gzip and chunks": (post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), [501]),
    "gzip": (post(b"Transfer-Encoding: gzip\r\n", b"0\r\n\r\n"), [400]),
    "identity": (post(b"Transfer-Encoding: identity\r\n"), [400]),
    "nearly chunked": (post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), [400]),
    "chunked behind a control": (post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"), [400]),
    "an underscore is another name": (get(fields=HOST + b"Transfer_Encoding: chunked\r\n"), PLAIN),
    "chunks of HTTP/1.0": (get(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n", [400]),
    "Chunked": (post(b"Transfer-Encoding: Chunked\r\n", b"1\r\na\r\n0\r\n\r\n"), [("POST", b"/", b"a")]),
    "chunks": (CHUNKED + b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n" + NEXT, [("POST", b"/", b"abcd"), ("GET", b"/next", b"")]),
    "a chunk of CRLFs": (CHUNKED + b"4\r\n\r\n\r\n\r\n0\r\n\r\n", [("POST", b"/", b"\r\n\r\n")]),
    "an extension": (CHUNKED + b'1;a="b"\r\na\r\n0;c\r\n\r\n', [("POST", b"/", b"a")]),
    "an extension with a bare LF": (CHUNKED + b"1;a\nb\r\na\r\n0\r\n\r\n", [400]),
    "an extension with a bare CR": (CHUNKED + b"1;a\rb\r\na\r\n0\r\n\r\n", [400]),
    "trailers": (CHUNKED + b"0\r\nHost: b\r\nX: y\r\n\r\n" + NEXT, [("POST", b"/", b""), ("GET", b"/next", b"")]),
    "a trailer without a name": (CHUNKED + b"0\r\n: y\r\n\r\n", [400]),
    "a trailer that goes on": (CHUNKED + b"0\r\nX: y\r\n z\r\n\r\n", [400]),
    "a size in 0x": (CHUNKED + b"0x1\r\na\r\n0\r\n\r\n", [400]),
    "a size with a sign": (CHUNKED + b"+1\r\na\r\n0\r\n\r\n", [400]),
    "a size with a space": (CHUNKED + b"1 \r\na\r\n0\r\n\r\n", [400]),
    "a size with a space before it": (CHUNKED + b" 1\r\na\r\n0\r\n\r\n", [400]),
    "a size with an underscore": (CHUNKED + b"1_0\r\n" + b"a" * 16 + b"\r\n0\r\n\r\n", [400]),
    "no size": (CHUNKED + b"\r\na\r\n0\r\n\r\n", [400]),
    "a size beyond all": (CHUNKED + b"1" * 17 + b"\r\na\r\n0\r\n\r\n", [400]),
    "a size ends with LF": (CHUNKED + b"1\na\r\n0\r\n\r\n", [400]),
    "a chunk ends with LF": (CHUNKED + b"1\r\na\n0\r\n\r\n", [400]),
    "a chunk longer than said": (CHUNKED + b"1\r\nab\r\n0\r\n\r\n", [400]),
    "the last chunk ends with LF": (CHUNKED + b"0\r\n\n", [400]),
    "an upgrade is ignored": (get(fields=HOST + b"Connection: upgrade\r\nUpgrade: h2c\r\n") + NEXT,
                              [*PLAIN, ("GET", b"/next", b"")]),
    "an upgrade with content": (post(b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n", b"ab") + NEXT,
                                [("POST", b"/", b"ab"), ("GET", b"/next", b"")]),
    "a line too long": (get(b"GET /" + b"a" * LINE_LIMIT + b" HTTP/1.1"), [414]),
    "a line without an end": (b"GET /" + b"a" * (HEAD_LIMIT + 5), [414]),
    "a head too long": (get(fields=HOST + b"X: " + b"a" * HEAD_LIMIT + b"\r\n"), [431]),
    "too many fields": (get(fields=HOST + b"X: y\r\n" * FIELDS), [431]),
    "extensions without an end": (CHUNKED + b"1;" + b"a" * 200_000, [400]),
    "chunks that are all frame": (CHUNKED + (b"1;" + b"b" * 100 + b"\r\na\r\n") * 201, [400]),
    "trailers without an end": (CHUNKED + b"0\r\n" + b"X: y\r\n" * 5000, [400]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    raw, wanted = CASES[name]
    assert read([raw]) == wanted
    assert read(raw[at : at + 1] for at in range(len(raw))) == wanted


def test_keep_alive() -> None:
    for version, fields, wanted in (
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: keep-alive\r\nConnection: x, Close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
    ):
        reader = Reader()
        reader.feed(get(b"GET / HTTP/" + version, HOST + fields))
        assert reader.head and reader.head.said.keep_alive is wanted, (version, fields)


def by_llhttp(raw: bytes) -> list[tuple[bytes, bytes]] | None:
    """Target and content of each message, as llhttp alone reads them; None when it refuses."""

    class Listener:
        def __init__(self) -> None:
            self.found: list[tuple[bytes, bytes]] = []
            self.target = self.body = b""

        def on_message_begin(self) -> None:
            self.target = self.body = b""

        def on_url(self, url: bytes) -> None:
            self.target += url

        def on_body(self, body: bytes) -> None:
            self.body += body

        def on_message_complete(self) -> None:
            self.found.append((self.target, self.body))

    listener = Listener()
    try:
        HttpRequestParser(listener).feed_data(raw)
    except (HttpParserError, HttpParserUpgrade):
        return None
    return listener.found


WORDS = [
    b"GET", b"POST", b" ", b"/", b"/a", b" HTTP/1.1", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b":",
    b"Host: a", b"X: y", b"\t", b"\0",
    b"Content-Length: 3", b"Content-Length: 0", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip",
    b"abc", b"0\r\n\r\n",
    b"3\r\nabc\r\n", b";e=1", b"Connection: close", b"Content-Length : 1", b"\x80", b",", b"1",
    b"GET / HTTP/1.1\r\nHost: a\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
]  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=25).map(b"".join), st.data())
def test_we_take_nothing_that_llhttp_reads_otherwise(raw: bytes, data: st.DataObject) -> None:
    """Where both take all of some bytes they see the same messages; and cuts change nothing."""
    whole = read([raw])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert read(pieces) == whole
    theirs = by_llhttp(raw)
    ours = [each for each in whole if isinstance(each, tuple)]
    if theirs is not None and len(ours) == len(whole) and not re.search(rb"HTTP/1\.1\r\n\r\n", raw):
        assert [(path, body) for _, path, body in ours] == theirs
