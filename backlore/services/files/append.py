"""Appending to files that grow: logs, JSON lines and the like.

Laws: appends that arrive together are written together and fsynced once. An append holds this machine's lock on the
file, and bytes that are not in the catalog were never added. If a blob refuses the bytes, because another machine adds
to it or it is not at hand, it is left as it is and a new blob begins. The catalog changes only if it is still as it was
when we looked.
"""

import asyncio
import contextlib
import random
from typing import NamedTuple

from backlore.clients.disk import Disk, Misplaced
from backlore.services.files.catalog import Catalog, Changed, File, Refusal, new_id
from backlore.services.files.kinds import HEAD, sniff
from backlore.services.storage.store import Away, Storage

Place = tuple[str, int]  # a blob, and the offset in it

BLOB = 8 << 20  # bytes to which a blob grows; then another one begins
TRIES = 50  # while other machines add to the same file
DRAWS = 5  # new blobs that are tried when the store refuses them
PAUSE = 0.005, 0.03  # seconds in which the writer before us records its append in the catalog


class Added(NamedTuple):
    """The bytes of one caller, and the future that it awaits."""

    data: bytes
    done: "asyncio.Future[File]"


class Appender:
    """Appends to the files of users."""

    def __init__(self, catalog: Catalog, store: Storage, disk: Disk):
        self._catalog = catalog
        self._store = store
        self._disk = disk
        self._waiting: dict[tuple[str, str], list[Added]] = {}

    async def append(self, user: str, name: str, data: bytes) -> File:
        """Add bytes to a file, or begin it. Returns the file as it is then. Raises Quota, Changed, Gone."""
        added = Added(data, asyncio.get_running_loop().create_future())
        others = self._waiting.get((user, name))
        if others is not None:
            others.append(added)
            return await added.done
        self._waiting[user, name] = [added]
        await asyncio.shield(asyncio.ensure_future(self._serve(user, name)))
        return await added.done

    async def _serve(self, user: str, name: str) -> None:
        """Write for all callers that wait, batch by batch, until none is left."""
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
                    raise Away(name) from error  # a store that takes no new blob is in trouble
                await asyncio.sleep(random.uniform(*PAUSE))
                continue
            file = grown(name, old, blob, at, data)
            try:
                return await self._catalog.append(user, old, file)
            except Refusal as refusal:
                await self._withdraw(blob, at)
                if not isinstance(refusal, Changed):
                    raise
                continue  # changed by another machine, or replaced or deleted on this one
        raise Changed(name)

    def _place(self, old: File | None, refused: set[Place]) -> Place:
        """Where to write: at the end of the last blob, unless it doesn't grow, has grown enough, or has refused."""
        if old is None or old.hash:
            return self._store.name(), 0
        blob, size = old.blobs[-1]
        if size >= BLOB or (blob, size) in refused:
            return self._store.name(), 0
        return blob, size

    async def _withdraw(self, blob: str, at: int) -> None:
        """Delete a blob that was begun in vain. Bytes added to an existing blob are left, orphaned."""
        if not at:
            with contextlib.suppress(Away):  # the consistency check finds it
                await self._store.delete(blob)


def grown(name: str, old: File | None, blob: str, at: int, data: bytes) -> File:
    """The file with more bytes in its last blob."""
    piece = blob, at + len(data)
    if old is None:
        return File(new_id(), name, sniff(data[:HEAD], name), len(data), "", 0, 0, [piece])
    before = old.blobs[:-1] if at else old.blobs
    return File(old.id, name, old.type, old.size + len(data), "", old.created, 0, [*before, piece])
