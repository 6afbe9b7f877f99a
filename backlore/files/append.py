"""Adding to files: logs, JSON lines, whatever grows.

Laws: lines that come together are written together and fsynced once; who adds to a file is alone with it on this
machine, and what is not in the catalog was never added, so that the next one writes over it. The catalog is changed
only from what it was when we looked.
"""

import asyncio
from typing import NamedTuple

from backlore.clients.disk import Disk, Gone
from backlore.clients.s3 import S3Error
from backlore.files.catalog import Catalog, Changed, File, new_id, now
from backlore.files.kinds import HEAD, sniff
from backlore.files.store import Lost, Store

BLOB = 8 << 20  # bytes to which a blob grows; then another one begins
TRIES = 50  # when other machines add to the same file


class Added(NamedTuple):
    """What one caller wants to add."""

    data: bytes
    done: "asyncio.Future[File]"


class Appender:
    """Adds to the files of users."""

    def __init__(self, catalog: Catalog, store: Store, disk: Disk, quota: int):
        self._catalog = catalog
        self._store = store
        self._disk = disk
        self._quota = quota
        self._waiting: dict[tuple[str, str], list[Added]] = {}

    async def append(self, user: str, name: str, data: bytes) -> File:
        """Add bytes to a file, or begin it; what it is now. Raises Quota, Changed."""
        added = Added(data, asyncio.get_running_loop().create_future())
        others = self._waiting.get((user, name))
        if others is not None:
            others.append(added)
            return await added.done
        self._waiting[user, name] = [added]
        await asyncio.shield(asyncio.ensure_future(self._serve(user, name)))
        return await added.done

    async def _serve(self, user: str, name: str) -> None:
        """Write for all who wait, until nobody does."""
        while batch := self._waiting[user, name]:
            self._waiting[user, name] = []
            try:
                async with self._disk.alone(f"{user}/{name}"):
                    file = await self._add(user, name, b"".join(each.data for each in batch))
            except BaseException as error:
                for each in batch:
                    if not each.done.done():
                        each.done.set_exception(error)
            else:
                for each in batch:
                    if not each.done.done():
                        each.done.set_result(file)
        del self._waiting[user, name]

    async def _add(self, user: str, name: str, data: bytes) -> File:
        for _ in range(TRIES):
            old = await self._catalog.find(user, name)
            blob, at = await self._place(user, old)
            await self._disk.append(blob, at, data)
            file = grown(name, old, blob, at, data)
            try:
                await self._catalog.append(user, old, file, self._quota)
            except Changed:
                continue  # by somebody on another machine, or replaced or deleted on this one
            return file
        raise Changed(name)

    async def _place(self, user: str, old: File | None) -> tuple[str, int]:
        """The blob to write to, and behind how many of its bytes."""
        if old is None or old.hash:
            return new_id(), 0
        blob, size = old.blobs[-1]
        if size >= BLOB:
            return new_id(), 0
        try:
            await self._store.path(user, blob, size)
        except (Lost, S3Error, Gone):
            return new_id(), 0  # what is to be added doesn't wait for what was before
        return blob, size


def grown(name: str, old: File | None, blob: str, at: int, data: bytes) -> File:
    """The file with more bytes in its last blob."""
    moment, piece = now(), (blob, at + len(data))
    if old is None:
        return File(new_id(), name, sniff(data[:HEAD], name), len(data), "", moment, moment, [piece])
    before = old.blobs[:-1] if at else old.blobs
    return File(old.id, name, old.type, old.size + len(data), "", old.created, moment, [*before, piece])
