"""Reads a route's body and decodes it into the route's type: JSON, urlencoded or multipart."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import msgspec
from multipart import parse_options_header

from backlore.core.origins import origin_of
from backlore.core.payload import Codec, Invalid, Malformed, Payload, parse_urlencoded
from backlore.web.forms import FormReader
from backlore.web.incoming import Incoming
from backlore.web.limits import Limits, TooLarge
from backlore.web.request import Request

T = TypeVar("T")
LONG = 16 << 10  # bytes of a body that may take more than a few milliseconds to decode
Raw = bytes | list[tuple[str, Any]]  # JSON, or the fields of a form


class Nothing(Payload):
    """The body of a route that takes none: it may be empty, or an empty object."""


class OnlyCsrf(msgspec.Struct):
    """Finds the csrf token in a payload that is otherwise invalid."""

    csrf: str = ""


class UnknownType(Exception):
    """The content-type is not one that we read: 415."""


class Body:
    """The body of a route, of the type `payload`.

    Behind the csrf gate the token may stand in the body as `csrf`. It is not part of the type: a second type with
    that one additional field reads it, and the handler gets a value of the plain type.
    """

    def __init__(self, payload: type[Any], with_csrf: bool):
        self.payload = payload
        self.codec: Codec[Any] = Codec(payload)
        self._tokened: Codec[Any] | None = None
        if with_csrf and "csrf" not in payload.__struct_fields__:
            fields = [("csrf", str, "")]
            self._tokened = Codec(
                msgspec.defstruct(payload.__name__, fields, bases=(payload,), kw_only=True, forbid_unknown_fields=True)
            )

    async def read(self, request: Request, limits: Limits) -> Any:
        """The decoded body. Raises Malformed, Invalid, TooLarge, UnknownType, Disconnected, TooSlow."""
        if request.content is not None and request.content[0] is self:
            content = request.content[1]
            if isinstance(content, Invalid):
                raise content
            return content
        raw = await self._receive(request, limits)
        try:
            return await _decode(request, limits, raw, self.codec)
        except Invalid as error:
            # the token may stand in the header and, unnecessarily, in the body too
            if not self._tokened or error.where != "csrf":
                raise
            return self._split(await _decode(request, limits, raw, self._tokened))[0]

    async def csrf(self, request: Request, limits: Limits) -> str:
        """The token in the body, or "". The decoded body, or the error in it, is kept for `read`."""
        if not self._tokened:
            return ""
        raw = await self._receive(request, limits)
        try:
            content, token = self._split(await _decode(request, limits, raw, self._tokened))
        except Invalid as error:
            content, token = error, _find_csrf(raw)  # a client without a token learns nothing about the type
        request.content = self, content
        return token

    def _split(self, content: Any) -> tuple[Any, str]:
        plain = self.payload(**{name: getattr(content, name) for name in self.payload.__struct_fields__})
        return plain, content.csrf

    async def _receive(self, request: Request, limits: Limits) -> Raw:
        """The body as sent. It is received once and kept for a second route of the same path."""
        raw: Raw | None = request.raw
        if raw is None:
            raw = request.raw = await receive(request, limits, self.codec.uploads)
        return raw


class Stream:
    """The bytes of a body as they arrive, of any content-type: `async for chunk in body`.

    `declared` is the number of bytes that the client has declared, -1 if it hasn't. Iterating raises TooLarge (over
    `upload_limit`), TooSlow, Disconnected, Refused.
    """

    __slots__ = ("_limits", "_request")

    def __init__(self, request: Request, limits: Limits):
        self._request = request
        self._limits = limits

    @property
    def declared(self) -> int:
        return self._request.declared

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = Incoming(self._request, self._limits, self._limits.upload)
        while chunk := await body.chunk():
            yield chunk


class RawBody:
    """The body of a route whose handler takes it as a Stream. The csrf token must stand in the header."""

    async def read(self, request: Request, limits: Limits) -> Stream:
        """The body, of which nothing has been read yet."""
        return Stream(request, limits)

    async def csrf(self, request: Request, limits: Limits) -> str:
        """Always "": only the handler reads this body."""
        return ""


async def receive(request: Request, limits: Limits, uploads: frozenset[str]) -> Raw:
    """Receive a body: JSON as bytes, a form as its fields, by the content-type. Only the fields `uploads` take files.

    Raises Malformed, Invalid, UnknownType, and what `Incoming` raises.
    """
    kind = request.headers.get(b"content-type")
    if kind == b"application/json":
        return await gather(request, limits)
    if kind is None:
        if await gather(request, limits):
            raise UnknownType
        return b"{}"
    name, options = parse_options_header(kind.decode("latin-1"))
    if options.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise UnknownType
    if name == "application/json":
        return await gather(request, limits)
    if name == "application/x-www-form-urlencoded":
        return await _aside(request, limits, _parse_form, await gather(request, limits))
    if name == "multipart/form-data":
        if not options.get("boundary"):
            raise Malformed("multipart without a boundary")
        return await FormReader(request, limits, options["boundary"], uploads).read()
    raise UnknownType


async def gather(request: Request, limits: Limits) -> bytes:
    """The whole body in memory. Raises what `Incoming` raises."""
    whole = request.take_body()
    if whole is not None:
        if len(whole) > limits.body:
            raise TooLarge
        return whole
    body, parts = Incoming(request, limits, limits.body), []
    while chunk := await body.chunk():
        parts.append(chunk)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _decode(request: Request, limits: Limits, raw: Raw, codec: Codec[Any]) -> Any:
    if not isinstance(raw, bytes):
        return codec.from_fields(raw)
    return await _aside(request, limits, codec.from_json, raw)


async def _aside(request: Request, limits: Limits, decode: Callable[[bytes], T], raw: bytes) -> T:
    """Decode a body. A long one is decoded in a thread, and origins take turns, so that other requests don't wait."""
    if len(raw) <= LONG:
        return decode(raw)
    return await limits.decoding.run(origin_of(request.origin), lambda: asyncio.to_thread(decode, raw))


def _parse_form(raw: bytes) -> list[tuple[str, Any]]:
    try:
        return parse_urlencoded(raw.decode("ascii"))
    except UnicodeDecodeError as error:
        raise Malformed(str(error)) from None


def _find_csrf(raw: Raw) -> str:
    try:
        if isinstance(raw, bytes):
            return msgspec.json.decode(raw, type=OnlyCsrf).csrf
        return str(dict(raw).get("csrf", ""))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return ""
