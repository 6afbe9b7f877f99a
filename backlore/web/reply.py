"""What a handler returns, once: `return reply(200, {"id": 3})`, or NEXT to pass the request on."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

Header = tuple[bytes, bytes]
Send = Callable[[dict[str, Any]], Awaitable[None]]

# On every reply. Ours says what it is: a browser guesses nothing, frames nothing, tells others nothing.
SECURITY: list[Header] = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
]
JSON: list[Header] = [(b"content-type", b"application/json"), *SECURITY]
NO_STORE: Header = (b"cache-control", b"no-store")
REVALIDATE: Header = (b"cache-control", b"no-cache")

encode = msgspec.json.Encoder().encode


class Next:
    """The type of NEXT: the handler passes; the next route that matches takes the request."""

    def __repr__(self) -> str:
        return "NEXT"


NEXT: Final = Next()


class Reply:
    """Status, headers and body of an answer. Make it with `reply`."""

    __slots__ = ("body", "cacheable", "error", "headers", "status")

    is_long = False  # whether sending it may take so long that the client may have gone meanwhile

    def __init__(self, status: int, body: bytes, headers: list[Header], error: str = "", cacheable: bool = False):
        self.status = status
        self.body = body
        self.headers = headers
        self.error = error  # the word of the contract, for notify
        self.cacheable = cacheable  # whether its ETag is that of its body

    async def send(self, send: Send, headers: list[Header], bodiless: bool) -> None:
        """Send by ASGI, with these headers; `bodiless` for HEAD: the length is told, the body is not sent."""
        if bodiless and self.status != 304:
            headers = [*headers, (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if bodiless else self.body})


def reply(
    status: int,
    body: Any = None,
    *,
    error: str = "",
    where: str | None = None,
    why: str | None = None,
    headers: list[tuple[str, str]] | None = None,
) -> Reply:
    """A reply of JSON: `body`, by default `{}`, is anything that msgspec encodes.

    `error` is the stable word of the contract, with `where` and `why` for a payload; bytes as `body` go as they
    are, and then `headers` name their content-type, and may say how long they can be kept. Headers with line breaks
    raise ValueError.
    """
    extra = _encode_headers(headers) if headers else []
    if isinstance(body, bytes):
        cache = [] if any(name == b"cache-control" for name, _ in extra) else [NO_STORE]
        return Reply(status, body, [*SECURITY, *cache, *extra], error)
    if error:
        said = {"error": error} if where is None else {"error": error, "where": where, "why": why}
        body = said if body is None else {**said, **body}
    raw = b"{}" if body is None else encode(body)
    return Reply(status, raw, JSON + extra, error, cacheable=status == 200)


def _encode_headers(headers: list[tuple[str, str]]) -> list[Header]:
    for name, value in headers:
        if any(ord(character) < 32 or ord(character) == 127 for character in name + value):
            raise ValueError(f"a control character in the header {name!r}")
    return [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in headers]


def etag_of(body: bytes) -> bytes:
    """The strong entity tag of a body (RFC 9110, §8.8.3): 96 bits of BLAKE2b."""
    return b'"%s"' % hashlib.blake2b(body, digest_size=12).hexdigest().encode()


def etag_matches(header: bytes | None, etag: bytes, strong: bool = False) -> bool:
    """Whether `If-None-Match` names this tag (weak comparison, RFC 9110, §13.1.2), or `If-Match` does (`strong`)."""
    if header is None:
        return False
    if header == etag:
        return True
    names = [name.strip() if strong else name.strip().removeprefix(b"W/") for name in header.split(b",")]
    return b"*" in names or etag in names
