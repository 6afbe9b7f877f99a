"""Resumable uploads: the protocol tus 1.0.0 (https://tus.io/protocols/resumable-upload), for unmodified tus clients.

Extensions: creation, creation-with-upload, creation-defer-length, checksum, termination, expiration.

Laws: bytes that are acknowledged to the client are durable. An upload that is reported as whole is a file. A request in
a version of the protocol that we don't speak is refused before anything is done.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import wraps
from typing import Any, TypeVar

from backlore.core.payload import Invalid
from backlore.services.files.catalog import Refusal
from backlore.services.files.folder import Id
from backlore.services.uploads.receiver import Mismatch
from backlore.services.uploads.transfers import Crowd, Locked, NoUpload, Transfer
from backlore.services.uploads.uploads import Uploads
from backlore.web.body import Stream
from backlore.web.limits import TooLarge
from backlore.web.reply import NO_STORE, SECURITY, Header, Reply, encode, reply
from backlore.web.request import Request
from backlore.web.routes import Route
from backlore.web.stages import private, public

VERSION = "1.0.0"
OCTETS = "application/offset+octet-stream"
MOST = 4096  # characters of metadata

# Algorithms for checksums, by the protocol's names: those of a fixed length (shake has none).
ALGORITHMS = sorted(name for name in hashlib.algorithms_guaranteed if not name.startswith("shake"))
SPOKEN = [("tus-resumable", VERSION)]
OFFER = [
    ("tus-version", VERSION),
    ("tus-extension", "creation,creation-with-upload,creation-defer-length,checksum,termination,expiration"),
    ("tus-checksum-algorithm", ",".join(ALGORITHMS)),
]


class Elsewhere(Refusal):
    """The bytes don't begin where the upload ends."""


# The status and word for each refusal of an upload.
REFUSALS: dict[type[Exception], tuple[int, str]] = {
    Crowd: (409, "uploads"),
    Elsewhere: (409, "offset"),
    NoUpload: (404, "upload"),
    Locked: (423, "locked"),
    Mismatch: (460, "checksum"),
}

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Reply]])


def in_protocol(handler: Handler) -> Handler:
    """Wraps a handler in the protocol: answers OPTIONS, and except for GET refuses other versions than ours."""

    @wraps(handler)
    async def speak(self: "Tus", request: Request, **given: Any) -> Reply:
        if override(request) == "OPTIONS":
            return await self._offer(request)
        if request.method != "GET" and request.header("tus-resumable") != VERSION:
            return reply(412, error="version", headers=[("tus-version", VERSION)])
        return await handler(self, request, **given)

    return speak  # type: ignore[return-value]


class Tus:
    """The routes. `limit` is the largest number of bytes of an upload."""

    def __init__(self, uploads: Uploads, limit: int):
        self._uploads = uploads
        self._limit = limit
        self._path = ""

    def routes(self, prefix: str) -> list[Route]:
        """For the route table."""
        self._path = f"{prefix}/tus"
        one = f"{self._path}/{{id}}"
        routes = [
            public.route("OPTIONS", self._path, self._offer),
            public.route("OPTIONS", one, self._offer),
            private.post(self._path, self._create),
            private.get(one, self._tell),
            private.route("PATCH", one, self._add),
            private.route("DELETE", one, self._end),
            private.post(one, self._instead),
        ]
        for route in routes:
            route.said = [(name.encode(), value.encode()) for name, value in SPOKEN]
        return routes

    async def _offer(self, request: Request) -> Reply:
        """Which parts of the protocol the server speaks, in the headers Tus-Version, Tus-Extension, Tus-Max-Size and
        Tus-Checksum-Algorithm. 204."""
        return _bare(204, [*OFFER, ("tus-max-size", str(self._limit))])

    @in_protocol
    async def _create(self, request: Request, body: Stream) -> Reply:
        """Begin a resumable upload; the reply has its path in Location.

        Upload-Length gives its bytes (`Upload-Defer-Length: 1` puts that off), Upload-Metadata its `filename`, and
        `expected` as in an upload by form. The body may carry its first bytes. 201; 400 `payload`; 409 `exists`
        `changed` `quota` `uploads`; 412 `version`; 413 `size`; 415 `type`; 460 `checksum`; 507 `disk`.
        """
        length = self._length(request)
        if length is None and request.header("upload-defer-length") != "1":
            raise Invalid("upload-length", "Say it, or send Upload-Defer-Length: 1.")
        carries = carries_octets(request)
        if body.declared > 0 and not carries:
            return reply(415, error="type")
        said = request.header("upload-metadata") or ""
        metadata = read_metadata(said)
        name, user = metadata.get("filename") or metadata.get("name") or "", request.user.id
        expected = metadata.get("expected", "")
        made = await self._uploads.create(user, name, -1 if length is None else length, expected, said)
        if carries or made.is_whole:
            try:
                made = await self._take(request, made.id, 0, body)
            except Exception:
                await self._uploads.end(user, made.id)  # the client has not learnt its path
                raise
        return _bare(201, [("location", f"{self._path}/{made.id}"), *_progress(made)])

    @in_protocol
    async def _tell(self, request: Request, id: Id) -> Reply:
        """The progress of an upload; HEAD gives it in Upload-Offset and Upload-Length, with Tus-Resumable.

        `file` is the id of the file that it has become.
        200 {"offset": int, "length": int | None, "file": str | None}; 404 `upload`; 409 `exists` `changed` `quota`;
        412 `version`; 423 `locked`.
        """
        found = await self._uploads.find(request.user.id, id)
        known = {"offset": found.offset, "length": found.length, "file": found.file or None}
        headers = [*_progress(found), ("content-type", "application/json"), ("upload-metadata", found.metadata)]
        if found.length < 0:
            known["length"] = None
            headers.append(("upload-defer-length", "1"))
        else:
            headers.append(("upload-length", str(found.length)))
        return reply(200, encode(known), headers=[each for each in headers if each[1]])

    @in_protocol
    async def _add(self, request: Request, id: Id, body: Stream) -> Reply:
        """Add bytes at Upload-Offset. The last bytes make the file, and the reply has its id in Upload-File.

        Upload-Checksum, if given, must match them; otherwise none of them count. 204; 400 `payload`; 404 `upload`;
        409 `offset` `exists` `changed` `quota`; 412 `version`; 413 `size`; 415 `type`; 423 `locked`; 460 `checksum`;
        507 `disk`.
        """
        if not carries_octets(request):
            return reply(415, error="type")
        offset = read_number(request, "upload-offset")
        if offset is None:
            raise Invalid("upload-offset", "Say at which byte of the upload these bytes begin.")
        return _bare(204, _progress(await self._take(request, id, offset, body)))

    @in_protocol
    async def _end(self, request: Request, id: Id) -> Reply:
        """Give up an upload and delete its bytes. 204; 404 `upload`; 412 `version`; 423 `locked`."""
        await self._uploads.end(request.user.id, id)
        return _bare(204, SPOKEN)

    async def _instead(self, request: Request, id: Id, body: Stream) -> Reply:
        """PATCH, DELETE, HEAD or OPTIONS for a client that can only POST: the method is in X-HTTP-Method-Override. 200,
        without a body, for HEAD; 204; 400 `payload`; 404 `upload`;
        405 `method`; 409 `offset` `exists` `changed` `quota`; 412 `version`; 413 `size`; 415 `type`; 423 `locked`;
        460 `checksum`; 507 `disk`."""
        match override(request):
            case "PATCH":
                return await self._add(request, id=id, body=body)
            case "DELETE":
                return await self._end(request, id=id)
            case "OPTIONS":
                return await self._offer(request)
            case "HEAD":
                found = await self._tell(request, id=id)
                return Reply(found.status, b"", found.headers, found.error)
        return reply(405, error="method", headers=[("allow", "DELETE, GET, HEAD, OPTIONS, PATCH, POST")])

    async def _take(self, request: Request, id: str, offset: int, body: Stream) -> Transfer:
        """Add a body to an upload, and make the file when all bytes have arrived."""
        checksum = read_checksum(request)
        async with self._uploads.receive(request.user.id, id) as receiver:
            transfer = receiver.transfer
            if transfer.offset != offset:
                raise Elsewhere(id)
            self._declare(request, transfer)
            most = self._limit if transfer.length < 0 else transfer.length
            if offset + body.declared > most:
                raise TooLarge
            await receiver.take(body, most, checksum)
            await self._uploads.finish(receiver)
            return transfer

    def _declare(self, request: Request, transfer: Transfer) -> None:
        """Take over a length that the client announces only now."""
        length = self._length(request)
        if length is None or length == transfer.length:
            return
        if transfer.length >= 0 or length < transfer.offset:
            raise Invalid("upload-length", "Differs from the length announced before, or is below the offset.")
        transfer.length = length

    def _length(self, request: Request) -> int | None:
        length = read_number(request, "upload-length")
        if length is not None and length > self._limit:
            raise TooLarge
        return length


class AnnouncedChecksum:
    """A checksum that the client announced: takes the bytes, and tells whether they match it."""

    def __init__(self, algorithm: str, expected: bytes):
        self._hash = hashlib.new(algorithm, usedforsecurity=False)
        self._expected = expected

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        self._hash.update(data)

    def fits(self) -> bool:
        """Whether the bytes so far match."""
        return self._hash.digest() == self._expected


def override(request: Request) -> str:
    """The method that a POST asks for by X-HTTP-Method-Override; "" if it doesn't."""
    return (request.header("x-http-method-override") or "").upper() if request.method == "POST" else ""


def carries_octets(request: Request) -> bool:
    """Whether the content type says that the body is bytes of an upload."""
    return (request.header("content-type") or "").partition(";")[0].strip().lower() == OCTETS


def read_number(request: Request, name: str) -> int | None:
    """The value of a header that is a number of bytes; None without the header. Raises Invalid."""
    text = request.header(name)
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,15}", text):
        raise Invalid(name, "Should be a number of bytes.")
    return int(text)


def read_checksum(request: Request) -> AnnouncedChecksum | None:
    """The checksum that Upload-Checksum announces: an algorithm, and the digest in base64. Raises Invalid."""
    text = request.header("upload-checksum")
    if text is None:
        return None
    algorithm, _, expected = text.partition(" ")
    if algorithm not in ALGORITHMS:
        raise Invalid("upload-checksum", f"Should begin with one of {', '.join(ALGORITHMS)}.")
    return AnnouncedChecksum(algorithm, _unpack("upload-checksum", expected))


def read_metadata(text: str) -> dict[str, str]:
    """Upload-Metadata as a dict: keys between commas, each alone or with a text in base64. Raises Invalid."""
    if len(text) > MOST:
        raise Invalid("upload-metadata", f"Should have at most {MOST} characters.")
    found: dict[str, str] = {}
    for pair in text.split(",") if text else []:
        name, _, packed = pair.strip().partition(" ")
        if not name or name in found:
            raise Invalid("upload-metadata", "Should have no empty key, and each key once.")
        try:
            found[name] = _unpack("upload-metadata", packed).decode("utf-8")
        except UnicodeDecodeError:
            raise Invalid("upload-metadata", f"{name} should be text in UTF-8.") from None
    return found


def _unpack(where: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid(where, "Should be in base64.") from None


def _progress(transfer: Transfer) -> list[tuple[str, str]]:
    """The headers that describe an upload."""
    headers = [*SPOKEN, ("upload-offset", str(transfer.offset))]
    if transfer.file:
        return [*headers, ("upload-file", transfer.file)]
    return [*headers, ("upload-expires", formatdate(transfer.expires / 1e6, usegmt=True))]


def _bare(status: int, headers: list[tuple[str, str]]) -> Reply:
    """A reply without a body."""
    said: list[Header] = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return Reply(status, b"", [*SECURITY, NO_STORE, *said])
