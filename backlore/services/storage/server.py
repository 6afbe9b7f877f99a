"""The API of a file server: contents by name, for clients that have the token.

    GET    /contents?after=             a page of names
    PUT    /contents/{blob}             a whole content, with its SHA-256
    GET    /contents/{blob}             its bytes, or ranges of them
    POST   /contents/{blob}/append      more bytes of one that grows
    POST   /contents/{blob}/push        copy it to S3
    DELETE /contents/{blob}
    GET    /health

Laws: a file server knows contents only, no users and no file names. What it acknowledges is fsynced. A content that
came whole never changes; one that grows takes bytes only directly behind its last byte.
"""

import hmac
from typing import Annotated

from backlore.clients.disk import ContentGone, Disk, Misplaced
from backlore.clients.s3 import S3Error
from backlore.core.notify import Notify
from backlore.core.payload import Payload, between, length, matching
from backlore.services.storage.store import FOLDERS, Lost, Store
from backlore.web.application import Refusals
from backlore.web.body import Stream
from backlore.web.delivery import FilePart, deliver
from backlore.web.reply import NO_STORE, SECURITY, Header, Reply, reply
from backlore.web.request import Request
from backlore.web.routes import Route, Stage

PAGE = 1000  # names
MOST_ADDED = 8 << 20  # bytes in one go
PLAIN: list[Header] = [(b"content-type", b"application/octet-stream"), *SECURITY, NO_STORE]
# Status and word of each exception raised below. S3 is upstream: 502 says that the failure is not this server's.
REFUSALS: Refusals = {Lost: (404, "content"), ContentGone: (404, "content"), Misplaced: (409, "misplaced")}

Blob = Annotated[str, matching("[a-z0-9]{8,64}", "lower-case letters and digits")]
User = Annotated[str, matching("[a-z0-9_-]{0,64}", "a user's id")]
Hash = Annotated[str, matching("([0-9a-f]{64})?", "a SHA-256 in hexadecimal")]
Size = Annotated[int, between(0, 1 << 50)]  # bytes


class Whole(Payload):
    """Size and SHA-256 that the content must have once it has arrived."""

    size: Size
    hash: Hash


class ContentWanted(Payload):
    """The first `size` bytes, by default all that are here. `fetch`: get them from S3, where they are the `user`'s."""

    size: Size | None = None
    fetch: bool = False
    user: User = ""
    hash: Hash = ""


class Addition(Payload):
    """`at`: how many bytes the content has before the addition."""

    at: Size


class Push(Payload):
    """What to copy to S3, and to which folder."""

    user: Annotated[User, length(1, 64)]
    size: Size
    hash: Hash
    folder: Annotated[str, matching("|".join(FOLDERS), " or ".join(FOLDERS))]


class After(Payload):
    """The page begins behind this name."""

    after: Annotated[str, length(0, 64)] = ""


class FileServerRoutes:
    """The routes of a store. Raises the keys of `REFUSALS`, S3Error, OSError."""

    def __init__(self, store: Store, disk: Disk, notify: Notify, token: str):
        self._store = store
        self._disk = disk
        self._notify = notify
        self._token = token.encode()
        self._s3_works = True

    def routes(self) -> list[Route]:
        """All routes, behind one gate that checks the token."""
        locked = Stage("locked", 3, (self._gate,))
        return [
            locked.get("/health", self._health),
            locked.get("/contents", self._list),
            locked.route("PUT", "/contents/{blob}", self._put),
            locked.get("/contents/{blob}", self._get),
            locked.post("/contents/{blob}/append", self._append),
            locked.post("/contents/{blob}/push", self._push),
            locked.route("DELETE", "/contents/{blob}", self._delete),
        ]

    async def _gate(self, request: Request, route: Route, keeper: object) -> Reply | None:
        scheme, _, token = request.headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(token, self._token):
            return None
        self._notify("warning", "files.token", origin=request.origin, given=bool(token))
        return reply(403, error="token")

    async def _health(self, request: Request) -> Reply:
        """Whether the server works. 200 {"ok": bool}."""
        return reply(200, {"ok": True})

    async def _list(self, request: Request, query: After) -> Reply:
        """A page of names behind `after`, in order, each with its bytes and the seconds since its last change.
        200 {"contents": [[str, int, float]]}."""
        return reply(200, {"contents": await self._disk.page(query.after, PAGE)})

    async def _put(self, request: Request, blob: Blob, query: Whole, body: Stream) -> Reply:
        """Keep a content; idempotent. 200 {}; 400 `hash` when size or SHA-256 differ from those announced;
        507 `disk`."""
        draft = await self._disk.draft()
        try:
            async for piece in body:
                await draft.write(piece)
            if (draft.size, draft.hash) != (query.size, query.hash):
                self._notify("warning", "files.damaged", blob=blob, size=draft.size, expected=query.size)
                return reply(400, error="hash")
            await draft.keep(blob)
        finally:
            await draft.discard()
        return reply(200)

    async def _get(self, request: Request, blob: Blob, query: ContentWanted) -> Reply:
        """The first bytes of a content, or ranges of them. 200; 206; 304; 416 `range`; 404 `content` when they are not
        here, nor in S3; 502 `s3`."""
        size = await self._disk.size(blob) if query.size is None else query.size
        if not await self._store.has(blob, size):
            if not query.fetch:
                raise ContentGone(blob)
            try:
                await self._store.path(query.user, blob, size, query.hash)
            except S3Error as error:
                return self._behind(error)
        path = self._disk.path(blob)
        return deliver(request, [FilePart(path, 0, size)], PLAIN, f'"{blob}-{size}"'.encode())

    async def _append(self, request: Request, blob: Blob, query: Addition, body: Stream) -> Reply:
        """Add to a content that has exactly `at` bytes; 0 begins one. 200 {}; 409 `misplaced`; 413 `size` over
        8 MiB; 507 `disk`."""
        data = bytearray()
        async for piece in body:
            data += piece
            if len(data) > MOST_ADDED:
                return reply(413, error="size")
        await self._disk.append(blob, query.at, bytes(data), exactly=True)
        return reply(200)

    async def _push(self, request: Request, blob: Blob, query: Push) -> Reply:
        """Copy the first `size` bytes to S3. 200 {}; 404 `content` when they are not here; 502 `s3`."""
        if not await self._store.has(blob, query.size):
            raise ContentGone(blob)
        try:
            await self._store.push(query.user, blob, query.size, query.hash, query.folder)
        except S3Error as error:
            return self._behind(error)
        self._s3_works = True
        return reply(200)

    async def _delete(self, request: Request, blob: Blob) -> Reply:
        """Delete a content from this server, if it is here. 200 {}."""
        await self._disk.delete(blob)
        return reply(200)

    def _behind(self, error: S3Error) -> Reply:
        if self._s3_works:  # once, not for each of a thousand
            self._notify("warning", "s3.failed", why=str(error))
        self._s3_works = False
        return reply(502, error="s3")
