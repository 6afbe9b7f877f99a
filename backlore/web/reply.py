"""What a handler returns, once: `return reply(200, {"id": 3})`, or NEXT to pass the request on."""

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

Header = tuple[bytes, bytes]
Send = Callable[[dict[str, Any]], Awaitable[None]]

# On every reply: the browser guesses no type, shows nothing in frames, and tells other sites no URL of ours.
SECURITY: list[Header] = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
]
JSON: list[Header] = [(b"content-type", b"application/json"), *SECURITY]
NO_STORE: Header = (b"cache-control", b"no-store")
REVALIDATE: Header = (b"cache-control", b"no-cache")

encode = msgspec.json.Encoder().encode

_QUALITY = re.compile(rb"[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*", re.IGNORECASE)
_TAG = re.compile(rb'[ \t]*+(?:(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"[ \t]*+)?')  # RFC 9110, §8.8.3


class Next:
    """The type of NEXT: the handler passes, and the next matching route takes the request."""

    def __repr__(self) -> str:
        return "NEXT"


NEXT: Final = Next()


class Reply:
    """A reply's status, headers and body. Make it with `reply`."""

    __slots__ = ("body", "cacheable", "error", "headers", "status")

    is_long = False  # whether sending may take so long that the client goes away meanwhile

    def __init__(self, status: int, body: bytes, headers: list[Header], error: str = "", cacheable: bool = False):
        self.status = status
        self.body = body
        self.headers = headers
        self.error = error  # the error word, for notify
        self.cacheable = cacheable  # whether it gets an ETag made from its body

    async def send(self, send: Send, headers: list[Header], bodiless: bool) -> None:
        """Send by ASGI, with these headers. `bodiless`, for HEAD: the length is sent, the body is not."""
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
    """A JSON reply: `body`, by default `{}`, is anything that msgspec can encode.

    `error` is the stable word that programs read; `where` and `why` say what is wrong with a payload. A `body` of bytes
    is sent as it is: then `headers` must name its content-type, and may set cache-control (by default no-store).
    Raises ValueError for control characters in headers.
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
    if header == etag or header.strip(b" \t") == b"*":
        return True
    tags = read_list(header, _TAG)
    return etag in (tags if strong else [tag.removeprefix(b"W/") for tag in tags])


def quality_of(accept: bytes, kind: bytes) -> float:
    """The quality, 0 to 1, that an `Accept` header gives to a media type (RFC 9110, §12.5.1); 0 if it is not named."""
    for each in accept.lower().split(b","):
        name, *parameters = each.split(b";")
        if name.strip(b" \t") == kind:
            found = [match[1] for match in map(_QUALITY.fullmatch, parameters) if match]
            return float(found[0]) if found else 1.0
    return 0.0


def read_list(header: bytes, element: re.Pattern[bytes]) -> list[bytes]:
    """The elements of a header's list, without empty ones (RFC 9110, §5.6.1); none if one doesn't match `element`.

    The pattern must match the white space around an element too.
    """
    found, at = [], 0
    while at <= len(header):
        match = element.match(header, at)
        if match is None or header[match.end() : match.end() + 1] not in (b"", b","):
            return []
        if text := match[0].strip(b" \t"):
            found.append(text)
        at = match.end() + 1
    return found
