"""Where the bytes are: on the local disk, and what is missing there comes back from S3 as soon as somebody asks.

What files ask of whoever keeps their bytes is `Storage`: this machine's `Store`, or file servers (`remote.py`).
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from backlore.clients.disk import Disk, Draft
from backlore.clients.s3 import S3Missing
from backlore.core.crypto import random_text
from backlore.core.notify import Notify
from backlore.web.delivery import FilePart, Part

FOLDERS = ("files", "trash")  # in the bucket


class Lost(Exception):
    """The bytes are neither here nor in S3, or are not those that they should be."""


class Away(Exception):
    """Those who keep the bytes can't be reached; later they may."""


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


class Storage(Protocol):
    """Who keeps the blobs. Beside what is said methods raise OSError, Away, and S3Error where S3 is behind it."""

    bucket: Bucket | None

    def name(self) -> str:
        """For a new blob. It is never used again. Raises Away."""

    async def keep(self, draft: Draft, blob: str) -> None:
        """Make what was written the content of a blob, whole and for good."""

    async def append(self, blob: str, at: int, data: bytes, exactly: bool = False) -> None:
        """Add behind the first `at` bytes, all that were acknowledged, for good; at 0 a blob begins.

        Raises Misplaced: not to this one. Bytes that no catalog has learnt of are nobody's, and go or stay; `exactly`:
        they stay, and nothing is added to them.
        """

    async def has(self, blob: str, size: int) -> bool:
        """Whether it is there, without S3."""

    async def part(self, user: str, blob: str, size: int, hash: str, start: int, length: int) -> Part:
        """A part of the first `size` bytes of a blob, fetched from S3 if need be. Raises Lost."""

    async def push(self, user: str, blob: str, size: int, hash: str, folder: str) -> None:
        """Bring the first `size` bytes to a folder in S3. Raises Lost."""

    async def delete(self, blob: str) -> None:
        """Delete it everywhere but in S3."""


class Store:
    """Blobs on the local disk. `bucket` None: there is only the disk."""

    def __init__(self, disk: Disk, bucket: Bucket | None, notify: Notify):
        self.disk = disk
        self.bucket = bucket
        self._notify = notify
        self._fetching: dict[str, asyncio.Task[None]] = {}

    async def path(self, user: str, blob: str, size: int, hash: str = "") -> Path:
        """Where `place` is."""
        return Path(await self.place(user, blob, size, hash))

    async def place(self, user: str, blob: str, size: int, hash: str = "") -> str:
        """The file with the first `size` bytes of a blob, fetched from S3 if need be: once for all who wait.

        Raises Lost, S3Error, OSError.
        """
        if place := self.disk.find(blob, size):
            return place
        await self.fetch(user, blob, size, hash)
        return str(self.disk.path(blob))

    async def fetch(self, user: str, blob: str, size: int, hash: str = "") -> None:
        """Bring a blob from S3, whole, in place of one that is too short or damaged, if there is one.

        Raises Lost, S3Error, OSError.
        """
        task = self._fetching.get(blob)
        if task is None:
            task = self._fetching[blob] = asyncio.create_task(self._fetch(user, blob, size, hash))
            task.add_done_callback(lambda _: self._fetching.pop(blob, None))
        await asyncio.shield(task)  # whoever goes away while it waits doesn't stop it for the others

    def name(self) -> str:
        """For a new blob."""
        return random_text(128)

    async def keep(self, draft: Draft, blob: str) -> None:
        """Make a draft the content of a blob. Raises OSError."""
        await draft.keep(blob)

    async def append(self, blob: str, at: int, data: bytes, exactly: bool = False) -> None:
        """Add behind the first `at` bytes; not `exactly`: whoever adds is alone with it on this machine.

        Raises Misplaced, OSError.
        """
        await self.disk.append(blob, at, data, exactly)

    async def has(self, blob: str, size: int) -> bool:
        """Whether the local disk has it."""
        return bool(self.disk.find(blob, size))

    async def part(self, user: str, blob: str, size: int, hash: str, start: int, length: int) -> FilePart:
        """Where a part lies. Raises what `path` raises."""
        is_whole = bool(hash) and length == size  # what has a hash never changes
        return FilePart(await self.place(user, blob, size, hash), start, length, is_whole)

    async def push(self, user: str, blob: str, size: int, hash: str, folder: str) -> None:
        """Bring the first `size` bytes to a folder in S3. Raises what `path` raises."""
        assert self.bucket is not None
        path = await self.path(user, blob, size, hash)
        # one that grows may have more bytes than were acknowledged: of it, those that were, and it is small
        content = path if hash else (await self.disk.run(path.read_bytes))[:size]
        await self.bucket.put(object_name(folder, user, blob), content)

    async def delete(self, blob: str) -> None:
        """Delete it from the disk. Raises OSError."""
        await self.disk.delete(blob)

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
            except S3Missing:
                continue
            finally:
                await draft.discard()
        raise Lost(blob)


def object_name(folder: str, user: str, blob: str) -> str:
    """The name of a blob in the bucket."""
    return f"{folder}/{user}/{blob}"
