"""Files: the service as an application calls it.

    file = await app.files.put(user.id, "notes/today.txt", b"…")
    async for piece in app.files.read(user.id, file): …

Laws: a file is acknowledged when it is whole on the local disk, or on the file servers, and its move to S3 is recorded
together with its name; with `durable`, when S3 has it. A file that was deleted or overwritten can be restored while the
trash keeps it. A content that a user has already is stored once; other users' contents are never looked at.
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
    """Open a file for reading, unbuffered. Blocks: for threads."""
    return path.open("rb", buffering=0)


class Files:
    """The files of users; each user is given by id. Without a bucket they are on the disk alone.

    `store` keeps the bytes, by default the disk, which holds the drafts in any case. `owners` knows which users exist.
    Besides the exceptions named, methods raise RedisError and OSError (ENOSPC when the disk is full); S3Error when they
    wait for S3; Away when they wait for file servers.
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
        """Prepare the disk. To be called in each process before anything else."""
        self.disk.prepare()

    async def run(self) -> None:
        """Run the courier for ever; in one process of this machine."""
        await self.courier.run()

    async def sweep(self) -> None:
        """Delete drafts that interrupted uploads have left. To be called periodically."""
        await self.disk.sweep()

    async def put(self, user: str, name: str, content: Content, expected: str = "", id: str = "") -> File:
        """Keep a file; a file that had its name goes to the trash. Its type follows from its first bytes and its name.

        `expected`: "*" if there must be no file of this name yet, or the id of the one to replace. `id`: the id of the
        new file, never used before; by default a random one. Raises BadName, Exists, Changed, Quota, Gone.
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
        """The same as `put`, for a draft, which the caller still has to discard. `upload`: the id of its upload."""
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
        # after any other failure the blob stays: the catalog may have recorded it, with only its answer lost
        if kept.blobs != file.blobs:
            if not await self.store.has(*kept.blobs[0]):
                await self.store.keep(draft, kept.blobs[0][0])  # the user had this content, but it is not at hand
            await self._withdraw(user, blob)
        return kept

    async def append(self, user: str, name: str, data: bytes) -> File:
        """Add bytes to the end of a file, or begin one.

        Raises BadName, Quota, Changed, Gone; Exists if this version can't read what is there.
        """
        return await self._appender.append(user, clean(name), data)

    async def find(self, user: str, name: str) -> File:
        """The file of a name. Raises BadName, NoFile."""
        file = await self.catalog.find(user, clean(name))
        if file is None:
            raise NoFile(name)
        return file

    async def list(self, user: str, before: int = 0, limit: int = 100) -> Excerpt[File]:
        """A page of the newest files, or of those that changed before a time (µs): `before` of the previous page."""
        return await self.catalog.page(user, before, limit)

    async def all(self, user: str) -> Sequence[File]:
        """All files of a user, the least recently changed first."""
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
        """A page of the files that were deleted or overwritten last, each with when (µs). `before` as for `list`."""
        return await self.catalog.page_of_trash(user, before, limit)

    async def delete(self, user: str, name: str, expected: str = "") -> File:
        """Move a file to the trash. Raises BadName, NoFile, Changed."""
        return await self.catalog.delete(user, clean(name), expected)

    async def undelete(self, user: str, id: str, name: str = "") -> File:
        """Restore a file from the trash by its id, under its own name or `name`.

        Raises BadName, NoFile, Exists, Gone.
        """
        return await self.catalog.restore(user, id, clean(name) if name else "")

    async def erase(self, user: str, ids: Sequence[str]) -> int:
        """Erase files from the trash for good. Returns how many there were."""
        return await self.catalog.erase(user, ids)

    async def wipe(self, user: str) -> None:
        """Delete all files of a user for good. If it is interrupted, it can be called again."""
        while names := await self.catalog.names(user):
            for name in names:
                with contextlib.suppress(NoFile):  # deleted concurrently, or this version can't read it
                    await self.catalog.delete(user, name)
            await self.catalog.drop_unread(user, "files")
        while ids := await self.catalog.names(user, "trashed"):
            await self.catalog.erase(user, ids)
            await self.catalog.drop_unread(user, "trash")
        await self.catalog.forget(user)

    async def revoke_links(self, user: str) -> None:
        """End all signed links to this user's files. Raises Gone."""
        await self.catalog.revoke(user)

    async def standing(self, user: str) -> str:
        """What a user's links are signed with: a text that changes when all must end; "" if the user may not log in."""
        return await self.catalog.standing(user)

    async def clock(self) -> int:
        """Seconds since the epoch by redis' clock, so that all nodes agree when links expire."""
        return await read_clock(self._redis) // 1_000_000

    async def spans(self, user: str, file: File, start: int = 0, length: int | None = None) -> Sequence[Part]:
        """Where the bytes of a file or of a part lie, fetched from S3 if necessary. Raises Lost, S3Error."""
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
        """Push a file's blob to S3 if it must be there now. Returns its folder, or "". Raises S3Error."""
        if not self._durable:
            return ""
        await self.store.push(user, file.blobs[0][0], file.size, file.hash, "files")
        return "files"

    async def _withdraw(self, user: str, blob: str) -> None:
        """Delete a blob that no file refers to."""
        with contextlib.suppress(Away):  # the consistency check finds orphans there, and in S3
            await self.store.delete(blob)
        if self._bucket and self._durable:
            with contextlib.suppress(S3Error):
                await self._bucket.delete([object_name("files", user, blob)])
