"""The consistency check: the catalog is the authority. The store and S3 should have what it says, and nothing else.

Laws: nothing in flight is taken for wrong: a difference is examined again, and the catalog is read before and after.
Orphans are reported after an hour and deleted after a day. If they are most of what there is, the catalog is probably
the wrong one: they stay, unless the check insists. They also stay while a record can't be read. What the check has seen
is kept on the disk, not in memory.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from backlore.clients.disk import NAME, ContentGone
from backlore.clients.redis.aside import set_aside
from backlore.clients.redis.script import read_clock
from backlore.clients.s3 import S3, S3Error, S3Missing
from backlore.core.keys import key
from backlore.services.check.books import PAGE, Books, Progress
from backlore.services.check.findings import Findings, Problem, are_most
from backlore.services.check.judge import Copy, Verdict, judge
from backlore.services.check.repairs import PLACED
from backlore.services.check.shelves import sha256, shelf_of
from backlore.services.check.spool import Spool
from backlore.services.files.catalog import Blob, Catalog
from backlore.services.files.files import Files
from backlore.services.storage.store import FOLDERS, Lost, object_name

AT_ONCE = 16  # contents examined concurrently
ROUNDS = 5  # times that a content is examined again if it changes meanwhile
TOLD_AFTER, DELETED_AFTER = 3600.0, 86400.0  # age of an orphan in seconds


class Unfinished(Protocol):
    """The unfinished uploads."""

    def blobs(self) -> AsyncIterator[str]:
        """The blobs that they lie in."""

    async def wipe(self, user: str) -> None:
        """Delete all uploads of a user."""


class Check:
    """One check. `mend`: repair what can be repaired. `deep`: read all bytes.

    `age`: seconds that replace the hour and the day. `insists`: delete orphans even if they are most. `is_gone` says
    whether an owner is a user that was erased.
    """

    def __init__(
        self,
        redis: Any,
        files: Files,
        uploads: Unfinished,
        bucket: S3 | None,
        is_gone: Callable[[str], Awaitable[bool]],
        *,
        mend: bool = False,
        deep: bool = False,
        age: float | None = None,
        insists: bool = False,
        tell: Callable[[Problem], None] | None = None,
        progress: Progress = lambda what, done, of: None,
    ):
        self._redis = redis
        self._files = files
        self._uploads = uploads
        self._catalog: Catalog = files.catalog
        self._shelf = shelf_of(files)
        self._bucket = bucket
        self._is_gone = is_gone
        self._mend = mend
        self._deep = deep
        self._told_after = TOLD_AFTER if age is None else age
        self._deleted_after = DELETED_AFTER if age is None else age
        self._insists = insists
        self._progress = progress
        self.findings = Findings(tell)
        self._spool = Spool()

    async def run(self) -> Findings:
        """Run the check. Raises RedisError, S3Error, Away, OSError."""
        try:
            await self._see()
            books = Books(
                self._redis,
                self._catalog,
                self._spool,
                self.findings,
                mend=self._mend,
                insists=self._insists,
                has_bucket=self._bucket is not None,
            )
            await books.audit(self._progress)
            await self._look_for_ownerless()
            await self._contents()
            await self._orphans()
            for kind, name in await set_aside(self._redis):
                self.findings.add("unread", "", f"{kind} {name}")
        finally:
            self._spool.close()
        return self.findings

    # The order counts: a blob that an upload has when we look first may be in the catalog when we look there next.
    # Anything newer is too young to be an orphan.

    async def _see(self) -> None:
        try:
            self._spool.add_held([blob async for blob in self._uploads.blobs()])
        except ValueError:
            self.findings.add("unread", "", "an unfinished upload")
        async for page in self._shelf.pages():
            self._spool.add_disk(page)
            self._progress("disk", self._spool.count("disk"), 0)
        if self._bucket:
            for folder in FOLDERS:
                await self._see_folder(self._bucket, folder)

    async def _see_folder(self, bucket: S3, folder: str) -> None:
        page: list[tuple[str, str, str, int, float]] = []
        now = await read_clock(self._redis) / 1e6
        async for each in bucket.list(folder):
            user, _, blob = each.name.removeprefix(f"{folder}/").rpartition("/")
            page.append((blob, user, folder, each.size, now - each.modified))
            if len(page) == PAGE:
                self._spool.add_objects(page)
                page = []
                self._progress("S3", self._spool.count("objects"), 0)
        self._spool.add_objects(page)

    async def _look_for_ownerless(self) -> None:
        found, after = list[str](), ""
        while page := self._spool.owners(after, PAGE):
            gone = await asyncio.gather(*map(self._is_gone, page))
            found += [user for user, is_gone in zip(page, gone, strict=True) if is_gone and await self._has_files(user)]
            after = page[-1]
        may = self._may_go("owners", len(found), self._spool.count("owners"))
        for user in found:
            if mended := may and await self._is_gone(user):
                await self._uploads.wipe(user)
                await self._files.wipe(user)
            self.findings.add("ownerless", user, user, mended=mended)

    async def _has_files(self, user: str) -> bool:
        return bool(await self._redis.exists(key("files", user), key("trash", user)))

    # Contents

    async def _contents(self) -> None:
        of, batch = self._spool.count("blobs"), list[tuple[str, str]]()
        for done, (user, blob, here, there) in enumerate(self._spool.contents(), 1):
            local = None if here is None else Copy(here)
            remote = {folder: Copy(size) for folder, size in there.items()}
            if self._deep or judge(blob, local, remote, False, self._bucket is not None):
                batch.append((user, blob.id))
            if len(batch) == AT_ONCE:
                await asyncio.gather(*(self._examine(*each) for each in batch))
                batch = []
            if done % PAGE == 0 or done == of:
                self._progress("contents", done, of)
                await asyncio.sleep(0)  # lets other tasks of this loop run
        await asyncio.gather(*(self._examine(*each) for each in batch))

    async def _examine(self, user: str, id: str) -> None:
        """Examine a content once more, with its record in the catalog before and after, and judge it."""
        for _ in range(ROUNDS):
            before = await self._state(user, id)
            blob, due = before
            if blob is None or not blob.belongs:
                return
            here, there = await self._copies(user, blob)
            if await self._state(user, id) == before:
                break
        else:
            self.findings.busy += 1
            return
        verdicts = judge(blob, here, there, due, self._bucket is not None)
        for verdict in verdicts:
            mended = self._mend and await self._remedy(user, blob, verdict)
            names = sorted({name for _, _, name in self._spool.refs_of(user, id)}) or [id]
            for name in names:
                self.findings.add(verdict.kind, user, name, verdict.why, mended)
        if self._deep and not verdicts and not due and not blob.hash and here and there:
            await self._compare(user, blob)

    async def _state(self, user: str, id: str) -> tuple[Blob | None, bool]:
        blob, due = await asyncio.gather(self._catalog.blob(user, id), self._redis.zscore(key("moves", user), id))
        return blob, due is not None

    async def _copies(self, user: str, blob: Blob) -> tuple[Copy | None, dict[str, Copy]]:
        here, there = await self._shelf.look(blob), dict[str, Copy]()
        if self._deep and blob.hash and here and here.size == blob.size:
            try:
                here = Copy(here.size, await self._shelf.hash(user, blob) == blob.hash)
            except ContentGone:
                here = None
        for folder in FOLDERS if self._bucket else ():
            assert self._bucket is not None
            name = object_name(folder, user, blob.id)
            try:
                copy = Copy((await self._bucket.head(name)).size)
                if self._deep and blob.hash and copy.size == blob.size:
                    copy = Copy(copy.size, await sha256(self._bucket.get(name)) == blob.hash)
                there[folder] = copy
            except S3Missing:
                pass
        return here, there

    async def _compare(self, user: str, blob: Blob) -> None:
        """Compare a content without a hash, one that grows: the disk and S3 should have the same bytes."""
        assert self._bucket is not None
        try:
            there = await sha256(self._bucket.get(object_name(blob.belongs, user, blob.id), length=blob.size))
            here = await self._shelf.hash(user, blob)
        except (S3Missing, ContentGone):
            return  # deleted meanwhile
        if here != there and (await self._state(user, blob.id)) == (blob, False):
            for _, _, name in self._spool.refs_of(user, blob.id):
                self.findings.add("different", user, name, "the disk and S3 differ, and it is unknown which is right")

    async def _remedy(self, user: str, blob: Blob, verdict: Verdict) -> bool:
        try:
            if verdict.remedy == "fetch":
                await self._shelf.fetch(user, blob)
            elif verdict.remedy == "place":
                given = blob.id, blob.version, verdict.where, verdict.pushed
                await self._catalog.change(PLACED, user, "1", *given)
        except (Lost, S3Error) as error:
            self.findings.notes.append(f"{user} {blob.id} could not be mended: {type(error).__name__}: {error}")
            return False
        return bool(verdict.remedy)

    # Orphans

    async def _orphans(self) -> None:
        await self._orphans_of_disk()
        if self._bucket:
            await self._orphans_of_s3(self._bucket)

    async def _orphans_of_disk(self) -> None:
        many = sum(bool(NAME.fullmatch(name)) for name, *_ in self._spool.orphans_of_disk(self._deleted_after))
        may = self._may_go("contents on the disk", many, self._spool.count("disk"))
        for name, size, age in self._spool.orphans_of_disk(self._told_after):
            if not NAME.fullmatch(name):
                self.findings.add("orphaned", "", name, "on the disk, with a name that is not ours: left alone")
            elif await self._shelf.is_there(name):  # otherwise it was deleted meanwhile, as it should be
                if mended := may and age >= self._deleted_after:
                    await self._shelf.delete(name)
                self.findings.add("orphaned", "", name, f"on the disk, {size} bytes, {_old(age)}", mended)

    async def _orphans_of_s3(self, bucket: S3) -> None:
        many = sum(1 for _ in self._spool.orphans_of_s3(self._deleted_after))
        may = self._may_go("objects in S3", many, self._spool.count("objects"))
        for blob, user, folder, age in self._spool.orphans_of_s3(self._told_after):
            name = object_name(folder, user, blob) if user else f"{folder}/{blob}"
            if not user or not NAME.fullmatch(blob):
                self.findings.add("orphaned", "", name, "in S3, with a name that is not ours: left alone")
            elif await self._is_nobodys(bucket, user, blob, name):
                if mended := may and age >= self._deleted_after:
                    await bucket.delete([name])
                self.findings.add("orphaned", user, name, f"in S3, {_old(age)}", mended)

    async def _is_nobodys(self, bucket: S3, user: str, blob: str, name: str) -> bool:
        """Whether an object is still there, and the catalog still has no record of it."""
        try:
            await bucket.head(name)
        except S3Missing:
            return False
        return not await self._redis.exists(key("blob", user, blob))

    def _may_go(self, what: str, many: int, of: int) -> bool:
        if self.findings.found["unread"]:
            return False  # the unreadable record may refer to it
        if self._mend and are_most(many, of) and not self._insists:
            self.findings.refuse(what, many, of)
            return False
        return self._mend


def _old(seconds: float) -> str:
    return f"{seconds / 3600:.0f} hours old"
