"""Where the bytes are: on the local disk, and what is missing there comes back from S3 as soon as somebody asks."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from backlore.clients.disk import Disk, Gone
from backlore.clients.s3 import Missing
from backlore.core.notify import Notify

FOLDERS = ("files", "trash")  # in the bucket


class Lost(Exception):
    """The bytes are neither here nor in S3, or are not those that they should be."""


class Bucket(Protocol):
    """What is asked of S3: `clients.s3.S3`."""

    async def put(self, name: str, content: bytes | Path) -> None:
        """Raises S3Error."""

    def get(self, name: str) -> AsyncIterator[bytes]:
        """Raises S3Error."""

    async def copy(self, source: str, target: str) -> None:
        """Raises S3Error."""

    async def delete(self, names: list[str]) -> None:
        """Raises S3Error."""


class Store:
    """Blobs by name. `bucket` None: there is only the disk."""

    def __init__(self, disk: Disk, bucket: Bucket | None, notify: Notify):
        self.disk = disk
        self.bucket = bucket
        self._notify = notify
        self._fetching: dict[str, asyncio.Task[None]] = {}

    async def path(self, user: str, blob: str, size: int, hash: str = "") -> Path:
        """The file with the first `size` bytes of a blob, fetched from S3 if need be: once for all who wait.

        Raises Lost, S3Error, OSError.
        """
        if await self._size(blob) >= size:
            return self.disk.path(blob)
        task = self._fetching.get(blob)
        if task is None:
            task = self._fetching[blob] = asyncio.create_task(self._fetch(user, blob, size, hash))
            task.add_done_callback(lambda _: self._fetching.pop(blob, None))
        await asyncio.shield(task)  # whoever goes away while it waits doesn't stop it for the others
        return self.disk.path(blob)

    async def is_here(self, blob: str, size: int) -> bool:
        """Whether the local disk has it."""
        return await self._size(blob) >= size

    async def _size(self, blob: str) -> int:
        try:
            return await self.disk.size(blob)
        except Gone:
            return -1

    async def _fetch(self, user: str, blob: str, size: int, hash: str) -> None:
        if self.bucket is None:
            raise Lost(blob)
        for folder in FOLDERS:
            draft = await self.disk.draft()
            try:
                async for piece in self.bucket.get(object_name(folder, user, blob)):
                    await draft.write(piece)
                if draft.size < size or (hash and draft.hash != hash):
                    self._notify("error", "files.damaged", blob=blob, folder=folder, size=draft.size, expected=size)
                    continue
                await self.disk.delete(blob)  # one too short: what it has is the beginning of what we bring
                await draft.keep(blob)
                self._notify("info", "files.fetched", blob=blob, size=size)
                return
            except Missing:
                continue
            finally:
                await draft.discard()
        raise Lost(blob)


def object_name(folder: str, user: str, blob: str) -> str:
    """The name of a blob in the bucket."""
    return f"{folder}/{user}/{blob}"
