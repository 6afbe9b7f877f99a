"""Adding to files: logs, JSON lines, whatever grows.

Laws: lines that come together are written together and fsynced once; who adds to a file is alone with it on this
machine, and what is not in the catalog was never added. A blob that does not take it, for others add to it or it is not
at hand, is left as it is and another one begins. The catalog is changed only from what it was when we looked.
"""

import asyncio
import contextlib
import random
from typing import NamedTuple

from backlore.clients.disk import Disk, Misplaced
from backlore.services.files.catalog import Catalog, Changed, File, Refusal, new_id
from backlore.services.files.kinds import HEAD, sniff
from backlore.services.storage.store import Away, Storage

Place = tuple[str, int]  # a blob, and behind how many of its bytes

BLOB = 8 << 20  # bytes to which a blob grows; then another one begins
TRIES = 50  # when other machines add to the same file
DRAWS = 5  # of new blobs, if none is taken
PAUSE = 0.005, 0.03  # seconds until who was before us has told the catalog


class Added(NamedTuple):
    """What one caller wants to add."""

    data: bytes
    done: "asyncio.Future[File]"


class Appender:
    """Adds to the files of users."""

    def __init__(self, catalog: Catalog, store: Storage, disk: Disk):
        self._catalog = catalog
        self._store = store
        self._disk = disk
        self._waiting: dict[tuple[str, str], list[Added]] = {}

    async def append(self, user: str, name: str, data: bytes) -> File:
        """Add bytes to a file, or begin it; what it is now. Raises Quota, Changed, Gone."""
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
        refused: set[Place] = set()
        for _ in range(TRIES):
            old = await self._catalog.find(user, name)
            blob, at = self._place(old, refused)
            try:
                await self._store.append(blob, at, data)
            except Misplaced as error:
                await self._withdraw(blob, at)
                refused.add((blob, at))
                if sum(not place[1] for place in refused) == DRAWS:
                    raise Away(name) from error  # who takes no new one is in trouble
                await asyncio.sleep(random.uniform(*PAUSE))
                continue
            file = grown(name, old, blob, at, data)
            try:
                return await self._catalog.append(user, old, file)
            except Refusal as refusal:
                await self._withdraw(blob, at)
                if not isinstance(refusal, Changed):
                    raise
                continue  # by somebody on another machine, or replaced or deleted on this one
        raise Changed(name)

    def _place(self, old: File | None, refused: set[Place]) -> Place:
        """Where to write: to the last blob, unless it is none that grows, has grown enough, or took nothing."""
        if old is None or old.hash:
            return self._store.name(), 0
        blob, size = old.blobs[-1]
        if size >= BLOB or (blob, size) in refused:
            return self._store.name(), 0
        return blob, size

    async def _withdraw(self, blob: str, at: int) -> None:
        """Take back a blob that was begun for nothing; of one that was there, what was added is nobody's."""
        if not at:
            with contextlib.suppress(Away):  # the check finds it
                await self._store.delete(blob)


def grown(name: str, old: File | None, blob: str, at: int, data: bytes) -> File:
    """The file with more bytes in its last blob."""
    piece = blob, at + len(data)
    if old is None:
        return File(new_id(), name, sniff(data[:HEAD], name), len(data), "", 0, 0, [piece])
    before = old.blobs[:-1] if at else old.blobs
    return File(old.id, name, old.type, old.size + len(data), "", old.created, 0, [*before, piece])
