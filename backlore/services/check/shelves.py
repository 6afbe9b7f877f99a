"""What a check asks of whoever keeps the bytes: this machine's disk, or file servers."""

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
    """Methods raise OSError, Away, and S3Error when they fetch."""

    def pages(self) -> AsyncIterator[list[KeptContent]]:
        """All contents, some more than once."""

    async def look(self, blob: Blob) -> Copy | None:
        """What is there of a content now, without S3."""

    async def is_there(self, name: str) -> bool:
        """Whether there is anything of this name."""

    async def hash(self, user: str, blob: Blob) -> str:
        """The SHA-256 of the bytes that were acknowledged, by reading them. Raises ContentGone."""

    async def fetch(self, user: str, blob: Blob) -> None:
        """Bring a content from S3, whole, in place of what is there. Raises Lost."""

    async def delete(self, name: str) -> None:
        """Delete a content."""


class DiskShelf:
    """The disk of this machine."""

    def __init__(self, store: Store):
        self._store = store
        self._disk: Disk = store.disk

    async def pages(self) -> AsyncIterator[list[KeptContent]]:
        """See `Shelf`, here and below."""
        after = ""
        while page := await self._disk.page(after, PAGE):
            yield page
            after = page[-1].name

    async def look(self, blob: Blob) -> Copy | None:
        """With its bytes."""
        try:
            return Copy(await self._disk.size(blob.id))
        except ContentGone:
            return None

    async def is_there(self, name: str) -> bool:
        """By its name."""
        return await self._store.has(name, 0)

    async def hash(self, user: str, blob: Blob) -> str:
        """In a thread."""
        return await self._disk.hash(blob.id, blob.size)

    async def fetch(self, user: str, blob: Blob) -> None:
        """Whole or not at all."""
        await self._store.fetch(user, blob.id, blob.size, blob.hash)

    async def delete(self, name: str) -> None:
        """Whether it is there or not."""
        await self._store.delete(name)


class ServerShelf:
    """All file servers as one: a content is there if one of them has it. Whether it has all its copies is for
    `backlore files spread`."""

    def __init__(self, store: "RemoteStore"):
        self._store = store

    async def pages(self) -> AsyncIterator[list[KeptContent]]:
        """Server by server."""
        for server in self._store.servers:
            page = []
            async for each in self._names(server.names()):
                page.append(each)
                if len(page) == PAGE:
                    yield page
                    page = []
            yield page

    async def look(self, blob: Blob) -> Copy | None:
        """All of it, or nothing."""
        return Copy(blob.size) if await self._has(blob.id, blob.size) else None

    async def is_there(self, name: str) -> bool:
        """On one of them."""
        return await self._has(name, 0)

    async def hash(self, user: str, blob: Blob) -> str:
        """Of the copy that users get."""
        if not await self._has(blob.id, blob.size):
            raise ContentGone(blob.id)
        part = await self._store.part(user, blob.id, blob.size, blob.hash, 0, blob.size)
        return await sha256(part.pieces())

    async def fetch(self, user: str, blob: Blob) -> None:
        """To the first that takes it; the others get theirs by spreading. What is damaged goes before."""
        if await self._has(blob.id, blob.size):
            await self._store.delete(blob.id)
        await self._store.fetch(user, blob.id, blob.size, blob.hash)

    async def delete(self, name: str) -> None:
        """From all of them."""
        await self._store.delete(name)

    async def _has(self, name: str, size: int) -> bool:
        """Raises Away: a server that doesn't answer may have it."""
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
    """Whoever keeps the bytes of these files."""
    if isinstance(files.store, Store):
        return DiskShelf(files.store)
    from backlore.services.storage.remote import RemoteStore  # with an HTTP client, which a disk doesn't need

    assert isinstance(files.store, RemoteStore)
    return ServerShelf(files.store)


async def sha256(pieces: AsyncIterator[bytes]) -> str:
    """Of all pieces, as hex."""
    digest = hashlib.sha256()
    async for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
