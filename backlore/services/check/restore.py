"""Fetching all contents from S3 to the disk, after a disk was lost.

Laws: contents that are here are not fetched again, so that an interrupted restoration continues. Each content is
checked by its SHA-256 before it counts.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from backlore.clients.s3 import S3Error
from backlore.core.keys import key
from backlore.services.check.books import PAGE, blobs_in_pages
from backlore.services.check.shelves import shelf_of
from backlore.services.files.catalog import Blob, decode
from backlore.services.files.files import Files
from backlore.services.storage.store import Lost

AT_ONCE = 16  # contents fetched concurrently


class Restore:
    """One restoration. `progress` is called with the number of contents seen, of those fetched, and their bytes."""

    def __init__(
        self, redis: Any, files: Files, at_once: int = AT_ONCE, progress: Callable[[int, int, int], None] | None = None
    ):
        self._redis = redis
        self._files = files
        self._shelf = shelf_of(files)
        self._room = asyncio.Semaphore(at_once)
        self._progress = progress
        self.seen = self.brought = self.bytes = 0
        self.failed: dict[str, dict[str, str]] = {}  # user → blob → why

    async def run(self) -> None:
        """Fetch what is missing. Raises RedisError; Away; OSError when the disk is full."""
        async for page in blobs_in_pages(self._redis, self._files.catalog):
            await asyncio.gather(*(self._bring(user, blob) for user, blob in page))

    async def lost(self) -> AsyncIterator[tuple[str, str, str]]:
        """The files that could not be restored: user, name, why."""
        for user, blobs in self.failed.items():
            for kind in ("files", "trash"):
                async for _, text in self._redis.hscan_iter(key(kind, user), count=PAGE):
                    file = decode(text)
                    for blob in (blob for blob, _ in file.blobs if blob in blobs):
                        yield user, file.name, blobs[blob]

    async def _bring(self, user: str, blob: Blob) -> None:
        async with self._room:
            here = await self._shelf.look(blob)
            if here is None or here.size < blob.size:
                try:
                    await self._shelf.fetch(user, blob)
                except (Lost, S3Error) as error:
                    why = "neither here nor in S3" if isinstance(error, Lost) else str(error)
                    self.failed.setdefault(user, {})[blob.id] = why
                else:
                    self.brought += 1
                    self.bytes += blob.size
        self.seen += 1
        if self._progress:
            self._progress(self.seen, self.brought, self.bytes)
