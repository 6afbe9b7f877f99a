"""The courier: makes S3 and the store match the catalog, however often it must try.

Laws: a move counts as done only after it was seen to be done, so repeating one that was cut off does no harm. An
orphaned blob is deleted in S3 before its record goes. While S3 is unreachable nothing is lost or refused: moves wait.
The moves of a killed process are taken over by another within half a minute. A failure for one user delays no other.
"""

import asyncio
import random
from collections.abc import Awaitable

from backlore.clients.redis.aside import Aside
from backlore.clients.redis.errors import NOT_NOW
from backlore.clients.redis.lease import LeaseLost
from backlore.clients.s3 import S3Error, S3Missing
from backlore.core.notify import Notify
from backlore.services.files.catalog import Blob, Catalog
from backlore.services.storage.store import FOLDERS, Away, Bucket, Lost, Storage, object_name

AT_ONCE = 16  # concurrent moves of one process
CLAIMED = 128  # moves of one user in one turn
USERS = 50  # in one turn
IDLE = 0.3  # seconds between two looks when nothing is due
FAILED = 600.0  # seconds until we look again at a user whose moves could not even be listed
BACKOFF, LONGEST = 0.5, 10.0  # seconds until a move that failed is tried again
LOST = 3600.0  # seconds until we look again for a blob that is nowhere


class Courier:
    """Moves blobs between disk, bucket and trash. Without a bucket it only deletes orphaned blobs from the disk."""

    def __init__(self, notify: Notify, catalog: Catalog, store: Storage, aside: Aside):
        self._notify = notify
        self._aside = aside
        self._catalog = catalog
        self._store = store
        self._failures = 0  # in a row
        self._room = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Move for ever. Any number of processes may run it. Raises RedisError."""
        while True:
            if not await self.turn():
                await asyncio.sleep(IDLE)

    async def turn(self) -> int:
        """Look for users with moves, and make the moves. Returns how many were done. Raises RedisError."""
        users = await self._catalog.users_to_serve(USERS)
        return sum(await all_of(*(self._serve(user, seen) for user, seen in users)))

    async def _serve(self, user: str, seen: str) -> int:
        try:
            claim = await self._catalog.claim(user, CLAIMED)
            if not claim.blobs:
                await self._catalog.look_later(user, seen)
            for name in claim.unread:
                await self._aside.add("move", f"{user} {name}")
            under_way = {blob.id for blob in claim.blobs}
            async with self._catalog.holding(user, under_way, claim.until):
                return sum(await all_of(*(self._try(user, blob, under_way) for blob in claim.blobs)))
        except NOT_NOW:
            raise  # redis is away, or takes nothing
        except LeaseLost:
            self._notify("warning", "files.move.lost", user=user)
        except Exception as error:
            self._notify("error", "files.move.failed", user=user, error=error)
            await self._catalog.leave(user, FAILED)
        return 0

    async def _try(self, user: str, blob: Blob, under_way: set[str]) -> bool:
        async with self._room:
            delay = min(BACKOFF * 2 ** min(self._failures, 10), LONGEST) * random.uniform(0.75, 1.25)
            try:
                where, pushed = await self.bring(user, blob)
            except S3Error as error:
                self._failed(error)
            except Away:
                pass  # the client that could not reach the servers has notified
            except Lost:
                self._notify("error", "files.lost", user=user, blob=blob.id, size=blob.size)
                delay = LOST
            except OSError as error:
                self._notify("error", "files.move.failed", user=user, blob=blob.id, error=error)
            else:
                self._worked()
                delay = 0
            under_way.discard(blob.id)  # before its place on the agenda changes: then the claim is no longer ours
            if delay:
                await self._catalog.postpone(user, blob.id, delay)
            else:
                await self._catalog.moved(user, blob, where, pushed)
            return not delay

    async def bring(self, user: str, blob: Blob) -> tuple[str, int]:
        """Move a blob to where it belongs. Returns the folder of S3 that has it then, and how many bytes of it.

        Raises S3Error, Away, Lost, OSError.
        """
        bucket, target = self._store.bucket, blob.belongs
        if not target:
            if bucket:
                await bucket.delete([object_name(folder, user, blob.id) for folder in FOLDERS])
            await self._store.delete(blob.id)
        if not bucket or not target:
            return blob.where, blob.pushed
        if blob.where and blob.where != target and blob.pushed == blob.size:
            await self._carry(bucket, user, blob)
        elif blob.pushed < blob.size or not blob.where:
            await self._push(bucket, user, blob)
        return target, blob.size

    async def _push(self, bucket: Bucket, user: str, blob: Blob) -> None:
        await self._store.push(user, blob.id, blob.size, blob.hash, blob.belongs)
        if blob.where and blob.where != blob.belongs:
            await bucket.delete([object_name(blob.where, user, blob.id)])

    async def _carry(self, bucket: Bucket, user: str, blob: Blob) -> None:
        """Move a blob between files and trash, within the bucket."""
        old, new = (object_name(folder, user, blob.id) for folder in (blob.where, blob.belongs))
        try:
            await bucket.copy(old, new)
        except S3Missing:
            # moved before but cut off before that was recorded, or gone: the local copy will do
            await self._push(bucket, user, blob)
        await bucket.delete([old])

    def _failed(self, error: S3Error) -> None:
        self._failures += 1
        if self._failures == 1:  # once, not for each of a thousand
            self._notify("warning", "s3.failed", why=str(error))

    def _worked(self) -> None:
        if self._failures:
            self._notify("info", "s3.works")
        self._failures = 0


async def all_of(*works: Awaitable[int]) -> list[int]:
    """The results of all. A failure doesn't cancel the others; the first is raised after all have ended."""
    outcomes = await asyncio.gather(*works, return_exceptions=True)
    for each in outcomes:
        if isinstance(each, BaseException):
            raise each
    return [each for each in outcomes if not isinstance(each, BaseException)]
