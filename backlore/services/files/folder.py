"""A user's files as a folder: list, upload, delete, restore.

The application's table of refusals replies for what can't be done: 409 `exists` `changed` `quota`, 404 `file`.
"""

from typing import Annotated, Any

from backlore.core.payload import Payload, Upload, between, length
from backlore.services.files.catalog import File
from backlore.services.files.files import Files
from backlore.web.reply import Reply, reply
from backlore.web.request import Request
from backlore.web.routes import Route
from backlore.web.stages import private

Name = Annotated[str, length(1, 255)]
Id = Annotated[str, length(1, 64)]
Moment = Annotated[int, between(0, 2**53)]  # µs since the epoch


class FilesAsked(Payload):
    """Files that changed before a time: the `before` of the previous page, or 0 for the newest."""

    before: Moment = 0
    limit: Annotated[int, between(1, 500)] = 100


class NewFile(Payload):
    """`expected`: "*" if there must be no file of this name yet, or the id of the one to replace."""

    file: Upload
    name: Annotated[str, length(0, 255)] = ""  # by default the name that the upload brings
    expected: Annotated[str, length(0, 64)] = ""


class OldFile(Payload):
    name: Name
    expected: Annotated[str, length(0, 64)] = ""


class DeadFile(Payload):
    id: Id
    name: Annotated[str, length(0, 255)] = ""  # a new name instead of its own


class DeadFiles(Payload):
    ids: Annotated[list[Id], length(1, 500)]


class Folder:
    """The routes."""

    def __init__(self, files: Files):
        self._files = files

    def routes(self, prefix: str) -> list[Route]:
        """For the route table."""
        return [
            private.get(prefix, self._list),
            private.post(prefix, self._upload),
            private.get(f"{prefix}/usage", self._usage),
            private.get(f"{prefix}/trash", self._trash),
            private.post(f"{prefix}/delete", self._delete),
            private.post(f"{prefix}/undelete", self._undelete),
            private.post(f"{prefix}/erase", self._erase),
        ]

    async def _list(self, request: Request, query: FilesAsked) -> Reply:
        """The newest files; `before` leads to the next page, 0 is the end.

        200 {"files": [{name, id, type, size, hash, created, changed}], "before": int}.
        """
        return await page_of_files(self._files, request.user.id, query)

    async def _upload(self, request: Request, body: NewFile) -> Reply:
        """Keep a file, by default under the name that it brings.

        `expected` is `*` if there must be no file of this name yet, or the id of the file to replace.
        200 {name, id, type, size, hash, created, changed}; 400; 409 `exists` `changed` `quota`; 507 `disk`.
        """
        kept = await self._files.put(request.user.id, body.name or body.file.name, body.file, body.expected)
        return reply(200, show(kept))

    async def _usage(self, request: Request) -> Reply:
        """The user's bytes, trash included, and number of files. 200 {"bytes": int, "files": int, "quota": int}."""
        size, count = await self._files.catalog.usage(request.user.id)
        return reply(200, {"bytes": size, "files": count, "quota": self._files.quota})

    async def _trash(self, request: Request, query: FilesAsked) -> Reply:
        """The files that were deleted or overwritten last, and when.

        200 {"files": [{name, id, type, size, hash, created, changed, deleted}], "before": int}.
        """
        return await page_of_trash(self._files, request.user.id, query)

    async def _delete(self, request: Request, body: OldFile) -> Reply:
        """Move a file to the trash. 200 {"id": str}; 400; 404 `file`; 409 `changed`."""
        return reply(200, {"id": (await self._files.delete(request.user.id, body.name, body.expected)).id})

    async def _undelete(self, request: Request, body: DeadFile) -> Reply:
        """Restore a file from the trash, by default under its own name.

        200 {name, id, type, size, hash, created, changed}; 400; 404 `file`; 409 `exists`.
        """
        return reply(200, show(await self._files.undelete(request.user.id, body.id, body.name)))

    async def _erase(self, request: Request, body: DeadFiles) -> Reply:
        """Erase files from the trash for good. 200 {"erased": int}."""
        return reply(200, {"erased": await self._files.erase(request.user.id, body.ids)})


async def page_of_files(files: Files, user: str, query: FilesAsked) -> Reply:
    """The reply with a page of a user's files."""
    found = await files.list(user, query.before, query.limit)
    return reply(200, {"files": [show(file) for file in found], "before": found.before})


async def page_of_trash(files: Files, user: str, query: FilesAsked) -> Reply:
    """The reply with a page of a user's trash."""
    found = await files.trash(user, query.before, query.limit)
    return reply(200, {"files": [show(file) | {"deleted": when} for file, when in found], "before": found.before})


def show(file: File) -> dict[str, Any]:
    """A file as clients see it."""
    return {name: getattr(file, name) for name in ("name", "id", "type", "size", "hash", "created", "changed")}
