"""The store as a check sees it: this machine's disk, or file servers."""

import hashlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Protocol

from backlore.clients.disk import ContentGone, Disk, KeptContent
from backlore.services.check.judge import Copy
from backlore.services.files.catalog import Blob
from backlore.services.files.files import Files
from backlore.services.storage.store import Away, Store

if TYPE_CHECKING:
    from backlore.services.storage.remote import RemoteStore

PAGE = 500


class Shelf(Protocol):
    """All contents of a store. Methods raise OSError, Away, and S3Error when they fetch."""

    def pages(self) -> AsyncIterator[list[KeptContent]]:
        """All contents, in pages; some more than once."""

    async def look(self, blob: Blob) -> Copy | None:
        """The copy of a content that is there now, without asking S3; None if there is none."""

    async def is_there(self, name: str) -> bool:
        """Whether a content of this name is there."""

    async def hash(self, user: str, blob: Blob) -> str:
        """The SHA-256 of the acknowledged bytes, which are read for it. Raises ContentGone."""

    async def fetch(self, user: str, blob: Blob) -> None:
        """Fetch a whole content from S3; it replaces what is there. Raises Lost."""

    async def delete(self, name: str) -> None:
        """Delete a content."""


class DiskShelf:
    """The disk of this machine."""

    def __init__(self, store: Store):
        self._store = store
        self._disk: Disk = store.disk

    async def pages(self) -> AsyncIterator[list[KeptContent]]:
        """All contents, in the order of names."""
        after = ""
        while page := await self._disk.page(after, PAGE):
            yield page
            after = page[-1].name

    async def look(self, blob: Blob) -> Copy | None:
        """The copy, with the size of its file; None if there is none."""
        try:
            return Copy(await self._disk.size(blob.id))
        except ContentGone:
            return None

    async def is_there(self, name: str) -> bool:
        """Whether a content of this name is on the disk, of any size."""
        return await self._store.has(name, 0)

    async def hash(self, user: str, blob: Blob) -> str:
        """The SHA-256 of the acknowledged bytes, read in a thread. Raises ContentGone."""
        return await self._disk.hash(blob.id, blob.size)

    async def fetch(self, user: str, blob: Blob) -> None:
        """Fetch a content from S3. The file is replaced whole, or not at all."""
        await self._store.fetch(user, blob.id, blob.size, blob.hash)

    async def delete(self, name: str) -> None:
        """Delete a content. Idempotent."""
        await self._store.delete(name)


class ServerShelf:
    """All file servers as one: a content is there if one of them has it. `backlore files spread` sees to the number of
    copies."""

    def __init__(self, store: "RemoteStore"):
        self._store = store

    async def pages(self) -> AsyncIterator[list[KeptContent]]:
        """All contents, server by server."""
        for server in self._store.servers:
            page = []
            async for each in self._names(server.names()):
                page.append(each)
                if len(page) == PAGE:
                    yield page
                    page = []
            yield page

    async def look(self, blob: Blob) -> Copy | None:
        """A whole copy, or None."""
        return Copy(blob.size) if await self._has(blob.id, blob.size) else None

    async def is_there(self, name: str) -> bool:
        """Whether a server has a content of this name."""
        return await self._has(name, 0)

    async def hash(self, user: str, blob: Blob) -> str:
        """The hash of the copy that users get."""
        if not await self._has(blob.id, blob.size):
            raise ContentGone(blob.id)
        part = await self._store.part(user, blob.id, blob.size, blob.hash, 0, blob.size)
        return await sha256(part.pieces())

    async def fetch(self, user: str, blob: Blob) -> None:
        """Fetch to the first server that takes it; spreading makes the other copies. Damaged ones are deleted first."""
        if await self._has(blob.id, blob.size):
            await self._store.delete(blob.id)
        await self._store.fetch(user, blob.id, blob.size, blob.hash)

    async def delete(self, name: str) -> None:
        """Delete a content from all servers."""
        await self._store.delete(name)

    async def _has(self, name: str, size: int) -> bool:
        """Whether a server has it. Raises Away unless all answer: one that doesn't may have it."""
        if any(server.away for server in self._store.servers):
            raise Away("not all file servers answer")
        return await self._store.has(name, size)

    async def _names(self, names: AsyncIterator[KeptContent]) -> AsyncIterator[KeptContent]:
        from backlore.clients.fileserver import FileServerError

        try:
            async for each in names:
                yield each
        except FileServerError as error:
            raise Away(str(error)) from error


def shelf_of(files: Files) -> Shelf:
    """The shelf for the store of these files."""
    if isinstance(files.store, Store):
        return DiskShelf(files.store)
    from backlore.services.storage.remote import RemoteStore  # imports an HTTP client, which a disk doesn't need

    assert isinstance(files.store, RemoteStore)
    return ServerShelf(files.store)


async def sha256(pieces: AsyncIterator[bytes]) -> str:
    """The SHA-256 of all pieces, as hex."""
    digest = hashlib.sha256()
    async for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
