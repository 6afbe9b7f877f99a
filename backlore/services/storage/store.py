"""Where the bytes are: on the local disk. A blob that is missing there is fetched from S3 when it is asked for.

`Storage` is what the file service needs of a store: `Store` on this machine, or file servers (`remote.py`).
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
    """The bytes are neither here nor in S3, or they are damaged."""


class Away(Exception):
    """The servers that keep the bytes can't be reached just now."""


class Bucket(Protocol):
    """What a store needs of S3; `clients.s3.S3` has it."""

    async def put(self, name: str, content: bytes | Path) -> None:
        """Raises S3Error."""

    def get(self, name: str) -> AsyncIterator[bytes]:
        """Raises S3Error."""

    async def copy(self, source: str, target: str) -> None:
        """Raises S3Error."""

    async def delete(self, names: list[str]) -> None:
        """Raises S3Error."""


class Storage(Protocol):
    """Keeps the blobs. Besides the exceptions named, methods raise OSError, Away, and with S3 behind it S3Error."""

    bucket: Bucket | None

    def name(self) -> str:
        """A name for a new blob, which is never used again. Raises Away."""

    async def keep(self, draft: Draft, blob: str) -> None:
        """Make a draft the content of a blob: whole, and durable."""

    async def append(self, blob: str, at: int, data: bytes, exactly: bool = False) -> None:
        """Add durably behind the first `at` bytes, which are all that were acknowledged; 0 begins a blob.

        Bytes behind `at` that no catalog has recorded are orphaned: they may be overwritten or kept. With `exactly`
        they are kept, and nothing is added behind them. Raises Misplaced if the bytes can't go to this blob.
        """

    async def has(self, blob: str, size: int) -> bool:
        """Whether the blob is there, without asking S3."""

    async def part(self, user: str, blob: str, size: int, hash: str, start: int, length: int) -> Part:
        """A part of the first `size` bytes of a blob, fetched from S3 if necessary. Raises Lost."""

    async def push(self, user: str, blob: str, size: int, hash: str, folder: str) -> None:
        """Copy the first `size` bytes to a folder in S3. Raises Lost."""

    async def delete(self, blob: str) -> None:
        """Delete the blob everywhere except in S3."""


class Store:
    """Blobs on the local disk. Without a `bucket` there is only the disk."""

    def __init__(self, disk: Disk, bucket: Bucket | None, notify: Notify):
        self.disk = disk
        self.bucket = bucket
        self._notify = notify
        self._fetching: dict[str, asyncio.Task[None]] = {}

    async def path(self, user: str, blob: str, size: int, hash: str = "") -> Path:
        """The same as `place`, as a Path."""
        return Path(await self.place(user, blob, size, hash))

    async def place(self, user: str, blob: str, size: int, hash: str = "") -> str:
        """The file with the first `size` bytes of a blob, fetched from S3 if necessary: once for all callers that wait.

        Raises Lost, S3Error, OSError.
        """
        if place := self.disk.find(blob, size):
            return place
        await self.fetch(user, blob, size, hash)
        return str(self.disk.path(blob))

    async def fetch(self, user: str, blob: str, size: int, hash: str = "") -> None:
        """Fetch a whole blob from S3. It replaces a local one that is too short or damaged.

        Raises Lost, S3Error, OSError.
        """
        task = self._fetching.get(blob)
        if task is None:
            task = self._fetching[blob] = asyncio.create_task(self._fetch(user, blob, size, hash))
            task.add_done_callback(lambda _: self._fetching.pop(blob, None))
        await asyncio.shield(task)  # a caller that is cancelled doesn't stop it for the others

    def name(self) -> str:
        """A name for a new blob."""
        return random_text(128)

    async def keep(self, draft: Draft, blob: str) -> None:
        """Make a draft the content of a blob. Raises OSError."""
        await draft.keep(blob)

    async def append(self, blob: str, at: int, data: bytes, exactly: bool = False) -> None:
        """Add behind the first `at` bytes. Without `exactly` the caller must hold this machine's lock on the file.

        Raises Misplaced, OSError.
        """
        await self.disk.append(blob, at, data, exactly)

    async def has(self, blob: str, size: int) -> bool:
        """Whether the local disk has it."""
        return bool(self.disk.find(blob, size))

    async def part(self, user: str, blob: str, size: int, hash: str, start: int, length: int) -> FilePart:
        """Where a part lies. Raises as `place`."""
        is_whole = bool(hash) and length == size  # a content with a hash never changes
        return FilePart(await self.place(user, blob, size, hash), start, length, is_whole)

    async def push(self, user: str, blob: str, size: int, hash: str, folder: str) -> None:
        """Copy the first `size` bytes to a folder in S3. Raises as `place`."""
        assert self.bucket is not None
        path = await self.path(user, blob, size, hash)
        # a blob that grows may have more bytes than were acknowledged; it is small, so those that were are read
        content = path if hash else (await self.disk.run(path.read_bytes))[:size]
        await self.bucket.put(object_name(folder, user, blob), content)

    async def delete(self, blob: str) -> None:
        """Delete the blob from the disk. Raises OSError."""
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
                await self.disk.delete(blob)  # one that is too short: its bytes are a prefix of the new ones
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
