"""The bytes of files: for their owner, and by signed links for clients without a session.

Laws: a browser never runs a file. Except for a few types that are known by their first bytes, every file is a download,
and a file that is opened is sandboxed. A link is for one version of one file and expires. It is its own proof and is
stored nowhere. It ends with the file, with any change of its user's account (password, address, disabling), and when
the user revokes links. Its signature appears in no log of ours.
"""

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated
from urllib.parse import quote

from backlore.core.crypto import Signer
from backlore.core.payload import Payload, between
from backlore.services.files.catalog import File, NoFile
from backlore.services.files.files import Files
from backlore.services.files.folder import Id, Name
from backlore.services.files.kinds import is_shown
from backlore.web.delivery import FilePart, Part, deliver, disposition, judge_conditions
from backlore.web.reply import SECURITY, Header, Reply, reply
from backlore.web.request import SIGNED, Request
from backlore.web.routes import Route
from backlore.web.stages import private, public

SANDBOX: Header = (
    b"content-security-policy",
    b"sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; media-src 'self'; frame-ancestors 'self'",
)
OWN: Header = (b"cache-control", b"private, no-cache")
LONGEST = 30 * 86400  # seconds that a link may last


class Show(Payload):
    """`download`: send the file as an attachment, even if a browser could show it."""

    download: bool = False


class NewLink(Payload):
    name: Name
    seconds: Annotated[int, between(1, LONGEST)] = 3600


class ContentRoutes:
    """The routes. `accel` is nginx's internal location of the contents on the disk, if nginx sends them."""

    def __init__(self, files: Files, secret: str, accel: str | None):
        self._files = files
        self._signer = Signer(secret, "file-link")
        self._accel = accel
        self._prefix = ""

    def routes(self, prefix: str) -> list[Route]:
        """For the route table."""
        self._prefix = prefix
        return [
            public.get(f"{prefix}/linked/{{user}}/{{id}}/{{until}}/{{signature}}/{{name...}}", self._linked),
            private.get(f"{prefix}/content/{{name...}}", self._read),
            private.post(f"{prefix}/link", self._link),
            private.post(f"{prefix}/link/revoke", self._revoke),
        ]

    async def _read(self, request: Request, name: str, query: Show) -> Reply:
        """The bytes of a file, with an ETag; `download` makes them an attachment.

        Takes HEAD, If-Match, If-None-Match, If-Range, and one range or several.
        200; 206; 304; 404 `file`; 412 `changed`; 416 `range`.
        """
        return await self.send(request, request.user.id, await self._files.find(request.user.id, name), query.download)

    async def _link(self, request: Request, body: NewLink) -> Reply:
        """A link to the file as it is now, usable by anybody until it expires. 200 {"url": str, "until": int}; 400;
        404 `file`."""
        file = await self._files.find(request.user.id, body.name)
        until = await self._files.clock() + body.seconds
        url = await self.link(request.user.id, file, until)
        await request.look_again()  # if the session ended meanwhile, the link may be signed with the new standing
        return reply(200, {"url": url, "until": until})

    async def _revoke(self, request: Request) -> Reply:
        """End all links that the user has made so far. 200 {}."""
        await self._files.revoke_links(request.user.id)
        return reply(200)

    async def _linked(
        self, request: Request, user: Id, id: Id, until: int, signature: str, name: str, query: Show
    ) -> Reply:
        """The file of a signed link.

        200; 206; 304; 403 `token` (the link has ended or was changed); 404 `file` (there is another version,
        or none); 412 `changed`; 416 `range`.
        """

        async def judge() -> Reply | None:
            standing, now = await asyncio.gather(self._files.standing(user), self._files.clock())
            signed, given = _signed(user, id, until, name, standing), signature.removeprefix(SIGNED)
            good = now <= until and standing and self._signer.verify(signed, given)
            return None if good else reply(403, error="token")

        if refusal := await judge():
            return refusal
        request.hold_to(judge)  # while it is sent, too
        file = await self._files.find(user, name)
        if file.id != id:
            raise NoFile(name)  # the link was made for another version
        return await self.send(request, user, file, query.download)

    async def link(self, user: str, file: File, until: int) -> str:
        """The path of a link to this version of a file, valid until a time (seconds since the epoch)."""
        standing = await self._files.standing(user)
        signature = self._signer.sign(_signed(user, file.id, until, file.name, standing))
        return f"{self._prefix}/linked/{user}/{file.id}/{until}/{SIGNED}{signature}/{quote(file.name)}"

    async def send(self, request: Request, user: str, file: File, download: bool = False) -> Reply:
        """The reply to a GET of a file. Raises Lost, S3Error."""
        headers = _headers(file.name, file.type, download)
        etag = f'"{file.etag}"'.encode()
        parts = await self._files.spans(user, file)
        path = _path_below(self._accel, parts) if self._accel and request.by_proxy else ""
        if path and b"if-match" not in request.headers:  # nginx would compare it with its own tag, and refuse
            headers = [*headers, (b"etag", etag)]
            sent_by_nginx = Reply(200, b"", [*headers, (b"x-accel-redirect", path.encode())])
            return judge_conditions(request, headers, etag) or sent_by_nginx
        return deliver(request, parts, headers, etag)


@lru_cache(1000)
def _headers(name: str, kind: str, download: bool) -> list[Header]:
    """The headers of a file of this name and type. The list is cached: never change it in place."""
    shown = is_shown(kind) and not download
    said = f"{kind}; charset=utf-8" if kind == "text/plain" else kind
    return [(b"content-type", said.encode()), *SECURITY, SANDBOX, OWN, disposition(name, shown)]


def _signed(user: str, id: str, until: int, name: str, standing: str) -> str:
    return "\n".join((user, id, str(until), standing, name))


def _path_below(location: str, parts: Sequence[Part]) -> str:
    """Where nginx finds the content; "" when it isn't one whole file on the disk."""
    if len(parts) != 1 or not isinstance(parts[0], FilePart) or not parts[0].whole:
        return ""  # a file that grows may have more bytes than were acknowledged
    *_, folder, name = str(parts[0].path).rsplit("/", 2)
    return f"{location}{folder}/{name}"
