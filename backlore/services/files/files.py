"""Files: what an application calls.

    file = await app.files.put(user.id, "notes/today.txt", b"…")
    async for piece in app.files.read(user.id, file): …

Laws: a file is acknowledged when it is whole on the local disk, or on the file servers, and its way to S3 is written
down with its name; or, with `durable`, when S3 has it. What was deleted or overwritten can be restored while the trash
keeps it. The content of one user that is there already is kept once; another user's is never looked at.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from backlore.clients.disk import Disk, Draft
from backlore.clients.redis.aside import Aside
from backlore.clients.redis.script import read_clock
from backlore.clients.s3 import S3Error
from backlore.core.notify import Notify
from backlore.core.payload import Upload
from backlore.core.schema import FilesConfig
from backlore.services.files.allowance import Allowance, Owners
from backlore.services.files.append import Appender
from backlore.services.files.catalog import UNMADE, Catalog, Excerpt, File, NoFile, new_id
from backlore.services.files.courier import Courier
from backlore.services.files.kinds import HEAD, clean, sniff
from backlore.services.storage.store import Away, Bucket, Storage, Store, object_name
from backlore.web.delivery import Part

Content = bytes | Path | Upload | AsyncIterator[bytes]


def open_raw(path: Path) -> FileIO:
    """A file to read from, without a buffer; for threads."""
    return path.open("rb", buffering=0)


class Files:
    """The files of users, each user by the id. Without a bucket they are on the disk alone.

    `store` keeps the bytes, by default the disk, which has the drafts in any case; `owners` says which users there are.
    Beside what is said, methods raise RedisError and OSError (ENOSPC when the disk is full); S3Error when they wait for
    S3; Away when they wait for file servers.
    """

    def __init__(
        self,
        redis: Any,
        notify: Notify,
        disk: Disk,
        bucket: Bucket | None,
        config: FilesConfig,
        store: Storage | None = None,
        owners: Owners | None = None,
    ):
        self.quota = config.quota
        self.disk = disk
        self.allowance = Allowance(redis, config.quota, config.entries, config.total, owners)
        self.catalog = Catalog(redis, config.trash, self.allowance)
        self.store: Storage = store or Store(disk, bucket, notify)
        self.courier = Courier(notify, self.catalog, self.store, Aside(redis, notify))
        self._redis = redis
        self._appender = Appender(self.catalog, self.store, disk)
        self._bucket = bucket
        self._durable = config.durable == "s3" and bucket is not None

    async def start(self) -> None:
        """Before all else, in each process."""
        self.disk.prepare()

    async def run(self) -> None:
        """Bring to S3 what is written here, for ever; in one process of this machine."""
        await self.courier.run()

    async def sweep(self) -> None:
        """Delete what uploads that were cut have left; periodically."""
        await self.disk.sweep()

    async def put(self, user: str, name: str, content: Content, expected: str = "", id: str = "") -> File:
        """Keep a file; what had its name goes to the trash. Its type is what its first bytes and its name say.

        `expected`: "*" if there should be none of this name yet, or the id of the one to replace. `id`: what the new
        one's is to be, never used before; by default we choose. Raises BadName, Exists, Changed, Quota, Gone.
        """
        name = clean(name)
        if isinstance(content, Upload):
            draft = await self.disk.adopt(content.path, content.size, content.hash)
        else:
            draft = await self.disk.draft(content if isinstance(content, bytes) else b"")
        try:
            if isinstance(content, Path):
                with await self.disk.run(open_raw, content) as source:
                    while await draft.copy(source):
                        pass
            elif not isinstance(content, bytes | Upload):
                async for each in content:
                    await draft.write(each)
            return await self.keep(user, name, draft, expected, id)
        finally:
            await draft.discard()

    async def keep(
        self, user: str, name: str, draft: Draft, expected: str = "", id: str = "", upload: str = ""
    ) -> File:
        """The same for what was written to a draft, which stays the caller's to discard; `upload`: which it was."""
        blob = self.store.name()
        kind = sniff(await draft.head(HEAD), name)
        await self.store.keep(draft, blob)
        file = File(id or new_id(), name, kind, draft.size, draft.hash, 0, 0, [(blob, draft.size)])
        try:
            where = await self._secure(user, file)
            kept = await self.catalog.put(user, file, expected, where, draft.size if where else 0, upload)
        except (*UNMADE, S3Error, Away):
            await self._withdraw(user, blob)
            raise
        # whatever else breaks it leaves the blob: the catalog may have taken it, and only its answer is lost
        if kept.blobs != file.blobs:
            if not await self.store.has(*kept.blobs[0]):
                await self.store.keep(draft, kept.blobs[0][0])  # its content was there, but not at hand
            await self._withdraw(user, blob)
        return kept

    async def append(self, user: str, name: str, data: bytes) -> File:
        """Add bytes to the end of a file, or begin one. Raises BadName, Quota, Changed, Gone; Exists for what we can't
        read."""
        return await self._appender.append(user, clean(name), data)

    async def find(self, user: str, name: str) -> File:
        """What is known of a file. Raises BadName, NoFile."""
        file = await self.catalog.find(user, clean(name))
        if file is None:
            raise NoFile(name)
        return file

    async def list(self, user: str, before: int = 0, limit: int = 100) -> Excerpt[File]:
        """The newest files, or those that changed before a time (µs): the `before` of a page, for the next one."""
        return await self.catalog.page(user, before, limit)

    async def all(self, user: str) -> Sequence[File]:
        """All files of a user, the one first that was not changed for longest."""
        return await self.catalog.find_all(user, await self.catalog.names(user))

    async def choose(self, user: str, names: Sequence[str]) -> Sequence[File]:
        """The files of these names, each once. Raises BadName, NoFile when one is missing."""
        wanted = list(dict.fromkeys(map(clean, names)))
        found = await self.catalog.find_all(user, wanted)
        if len(found) < len(wanted):
            missing = set(wanted) - {file.name for file in found}
            raise NoFile(min(missing))
        return found

    async def trash(self, user: str, before: int = 0, limit: int = 100) -> Excerpt[tuple[File, int]]:
        """What was last deleted or overwritten, or before a time (µs), and when; in pages likewise."""
        return await self.catalog.page_of_trash(user, before, limit)

    async def delete(self, user: str, name: str, expected: str = "") -> File:
        """Put a file into the trash. Raises BadName, NoFile, Changed."""
        return await self.catalog.delete(user, clean(name), expected)

    async def undelete(self, user: str, id: str, name: str = "") -> File:
        """Take a file out of the trash, by its id; under another name if its own is taken. Raises NoFile, Exists,
        Gone."""
        return await self.catalog.restore(user, id, clean(name) if name else "")

    async def erase(self, user: str, ids: Sequence[str]) -> int:
        """Delete files of the trash for good; how many they were."""
        return await self.catalog.erase(user, ids)

    async def wipe(self, user: str) -> None:
        """Delete all files of a user for good. Cut anywhere, it can be called again."""
        while names := await self.catalog.names(user):
            for name in names:
                with contextlib.suppress(NoFile):  # somebody deletes beside us, or we can't read it
                    await self.catalog.delete(user, name)
            await self.catalog.drop_unread(user, "files")
        while ids := await self.catalog.names(user, "trashed"):
            await self.catalog.erase(user, ids)
            await self.catalog.drop_unread(user, "trash")
        await self.catalog.forget(user)

    async def revoke_links(self, user: str) -> None:
        """All signed links to files of this user end. Raises Gone."""
        await self.catalog.revoke(user)

    async def standing(self, user: str) -> str:
        """What links are signed for: another text whenever all that were signed are to end; "" for nobody."""
        return await self.catalog.standing(user)

    async def clock(self) -> int:
        """Seconds since the epoch by redis' clock, by which all nodes agree how long links are good."""
        return await read_clock(self._redis) // 1_000_000

    async def spans(self, user: str, file: File, start: int = 0, length: int | None = None) -> Sequence[Part]:
        """Where the bytes lie, fetched from S3 if need be. Raises Lost, S3Error."""
        if length is None and not start and len(file.blobs) == 1:  # nearly always
            blob, size = file.blobs[0]
            return [await self.store.part(user, blob, size, file.hash, 0, size)] if size else []
        end = file.size if length is None else min(file.size, start + length)
        found, at = [], 0
        for blob, size in file.blobs:
            first, last = max(start - at, 0), min(end - at, size)
            if first < last:
                known = file.hash if len(file.blobs) == 1 else ""
                found.append(await self.store.part(user, blob, size, known, first, last - first))
            at += size
        return found

    async def read(self, user: str, file: File, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The bytes of a file, or of a part of it, piece by piece. Raises Lost, S3Error."""
        for part in await self.spans(user, file, start, length):
            async for piece in part.pieces():
                yield piece

    async def _secure(self, user: str, file: File) -> str:
        """The folder in S3 where a file's blob is now, "" if it need not be there yet. Raises S3Error."""
        if not self._durable:
            return ""
        await self.store.push(user, file.blobs[0][0], file.size, file.hash, "files")
        return "files"

    async def _withdraw(self, user: str, blob: str) -> None:
        """Take back a blob that no file has."""
        with contextlib.suppress(Away):  # what is nobody's with them, the check finds; in S3 too
            await self.store.delete(blob)
        if self._bucket and self._durable:
            with contextlib.suppress(S3Error):
                await self._bucket.delete([object_name("files", user, blob)])
