"""The courier: brings S3 and those who keep the bytes to what the catalog says, however often it must try.

Laws: a move is done when it was seen to be done, so that one that is cut begins anew and does no harm; what nobody
has is deleted in S3 before it is forgotten. While S3 is away nothing is lost and nothing refused: moves wait.
"""

import asyncio
import random

from redis.exceptions import RedisError

from backlore.clients.s3 import Missing, S3Error
from backlore.core.notify import Notify
from backlore.files.catalog import Blob, Catalog
from backlore.files.store import FOLDERS, Away, Bucket, Lost, Storage, object_name

AT_ONCE = 16  # moves of one process
CLAIMED = 128  # moves of a user in one turn
USERS = 50  # in one turn
LEASE = 600.0  # seconds that a move belongs to whoever claimed it
IDLE = 0.3  # seconds between two looks when nothing is due
AWAY = 1.0  # seconds between two looks when redis is away
BACKOFF, LONGEST = 0.5, 10.0  # seconds until a move that failed is tried again
LOST = 3600.0  # seconds until we look again for what is nowhere


class Courier:
    """Moves blobs between disk, bucket and trash. Without a bucket it deletes from the disk what nobody has."""

    def __init__(self, notify: Notify, catalog: Catalog, store: Storage):
        self._notify = notify
        self._catalog = catalog
        self._store = store
        self._failures = 0  # in a row
        self._room = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Move for ever. Any number of processes may."""
        while True:
            try:
                pause = 0.0 if await self.turn() else IDLE
            except RedisError:  # told by the client
                pause = AWAY
            await asyncio.sleep(pause)

    async def turn(self) -> int:
        """Look at who has something to move, and move it; how many moves were done. Raises RedisError."""
        users = await self._catalog.users_to_serve(USERS)
        return sum(await asyncio.gather(*(self._serve(user, seen) for user, seen in users)))

    async def _serve(self, user: str, seen: float) -> int:
        blobs = await self._catalog.claim(user, LEASE, CLAIMED)
        if not blobs:
            await self._catalog.look_later(user, seen)
        done = await asyncio.gather(*(self._try(user, blob) for blob in blobs))
        return done.count(True)

    async def _try(self, user: str, blob: Blob) -> bool:
        async with self._room:
            delay = min(BACKOFF * 2 ** min(self._failures, 10), LONGEST) * random.uniform(0.75, 1.25)
            try:
                await self.move(user, blob)
            except S3Error as error:
                self._failed(error)
            except Away:
                pass  # told by who could not reach them
            except Lost:
                self._notify("error", "files.lost", user=user, blob=blob.id, size=blob.size)
                delay = LOST
            except OSError as error:
                self._notify("error", "files.move.failed", user=user, blob=blob.id, error=error)
            else:
                self._worked()
                return True
            await self._catalog.postpone(user, blob.id, delay)
            return False

    async def move(self, user: str, blob: Blob) -> None:
        """Bring a blob to where it belongs. Raises S3Error, Away, Lost, OSError, RedisError."""
        where, pushed = blob.where, blob.pushed
        bucket, target = self._store.bucket, blob.belongs
        if bucket and target:
            if where and where != target and pushed == blob.size:
                await self._carry(bucket, user, blob)
            elif pushed < blob.size or not where:
                await self._push(bucket, user, blob)
            where, pushed = target, blob.size
        elif bucket:
            await bucket.delete([object_name(folder, user, blob.id) for folder in FOLDERS])
        if not target:
            await self._store.delete(blob.id)
        await self._catalog.moved(user, blob, where, pushed)

    async def _push(self, bucket: Bucket, user: str, blob: Blob) -> None:
        await self._store.push(user, blob.id, blob.size, blob.hash, blob.belongs)
        if blob.where and blob.where != blob.belongs:
            await bucket.delete([object_name(blob.where, user, blob.id)])

    async def _carry(self, bucket: Bucket, user: str, blob: Blob) -> None:
        """Between files and trash, within the bucket."""
        old, new = (object_name(folder, user, blob.id) for folder in (blob.where, blob.belongs))
        try:
            await bucket.copy(old, new)
        except Missing:
            # carried already and cut before that was written down, or gone: what we have here is as good
            await self._push(bucket, user, blob)
        await bucket.delete([old])

    def _failed(self, error: S3Error) -> None:
        self._failures += 1
        if self._failures == 1:  # not for each of a thousand
            self._notify("warning", "s3.failed", why=str(error))

    def _worked(self) -> None:
        if self._failures:
            self._notify("info", "s3.works")
        self._failures = 0
