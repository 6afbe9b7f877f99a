"""The catalog by itself: whether its counts, lists and sums agree.

Laws: data that is read in pages may change between the pages. So nothing counts as wrong unless a step of redis saw it:
either the step alone shows it, or what was counted has not changed since counting began. A user whose files keep
changing is counted again a few times, and then left for the next check.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from itertools import chain
from typing import Any

from redis.exceptions import ResponseError

from backlore.clients.redis.script import Script
from backlore.core.keys import key, owner_of
from backlore.services.check.findings import Findings, are_most
from backlore.services.check.repairs import COUNTED, HASHED, KNOWN, LISTED, NAMED, SUMMED, VAIN
from backlore.services.check.spool import Spool
from backlore.services.files.allowance import OF_ALL
from backlore.services.files.catalog import EVERYBODY, Blob, Catalog, decode

PAGE = 500
AT_ONCE = 16  # users
ROUNDS = 5  # times that data is counted again if it changes meanwhile
PAUSE = 0.1  # seconds in which both steps of a change are made
KINDS = frozenset(("files", "newest", "trash", "trashed", "hashes", "usage", "moves", "awaited"))

Progress = Callable[[str, int, int], None]  # kind of things examined, how many so far, of how many; 0 if unknown


class Books:
    """Reads the catalog into the spool, and finds inconsistencies. `mend`: repairs them, too."""

    def __init__(
        self,
        redis: Any,
        catalog: Catalog,
        spool: Spool,
        findings: Findings,
        *,
        mend: bool,
        insists: bool,
        has_bucket: bool,
    ):
        self._redis = redis
        self._catalog = catalog
        self._spool = spool
        self._findings = findings
        self._mend = mend
        self._insists = insists
        self._bucket = "1" if has_bucket else ""
        self._told: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)  # by users under examination

    async def audit(self, progress: Progress) -> None:
        """Examine all users, then the sum of all. Raises RedisError."""
        async for users, pairs in owners_and_blobs(self._redis):
            self._spool.add_owners([*users, *(user for user, _ in pairs)])
            await self._refresh(pairs)
            progress("catalog", self._spool.count("blobs"), 0)
        done, of, after = 0, self._spool.count("owners"), ""
        while page := self._spool.owners(after, PAGE):
            for start in range(0, len(page), AT_ONCE):
                await asyncio.gather(*(self._user(user) for user in page[start : start + AT_ONCE]))
                done += len(page[start : start + AT_ONCE])
                progress("users", done, of)
            after = page[-1]
        await self._total()

    async def _user(self, user: str) -> None:
        try:
            await self._judge(user)
        except (ValueError, TypeError, ResponseError):
            self._findings.add("unread", user, user)

    async def _judge(self, user: str) -> None:
        for _ in range(ROUNDS):
            if await self._count(user):
                break
        else:
            self._findings.busy += 1
        for kind, sorted_set in (("files", "newest"), ("trash", "trashed")):
            async for fields in self._hash(user, kind):
                await self._step("indexes", LISTED, user, kind, *fields)
            async for members in self._set(user, sorted_set):
                await self._step("indexes", LISTED, user, kind, *members)
        async for fields in self._hash(user, "hashes"):
            await self._step("indexes", HASHED, user, *(each for pair in fields.items() for each in pair))
        after = ""
        while pairs := self._spool.hashed(user, after, PAGE):
            await self._step("indexes", HASHED, user, *(each for pair in pairs for each in pair))
            after = pairs[-1][1]
        after = ""
        while blobs := self._spool.of_user(user, after, PAGE):
            await self._step("moves", NAMED, user, self._bucket, *blobs)
            after = blobs[-1]
        async for members in self._set(user, "moves"):
            await self._step("moves", VAIN, user, *members)
        await self._served(user)
        self._told.pop(user, None)

    async def _count(self, user: str) -> bool:
        """Count the references to each content, and the bytes. Returns whether nothing changed meanwhile."""
        changes = await self._redis.hget(key("usage", user), "changes") or "0"
        after = ""
        while page := self._spool.of_user(user, after, PAGE):
            await self._refresh([(user, id) for id in page])
            after = page[-1]
        self._spool.forget_refs(user)
        for kind in ("files", "trash"):
            async for fields in self._hash(user, kind):
                self._spool.add_refs(user, kind, {field: decode(text) for field, text in fields.items()})
        if unknown := [id for id in self._spool.unknown(user) if ("unknown", id) not in self._told[user]]:
            await self._refresh([(user, id) for id in unknown])
            for id in set(unknown).intersection(self._spool.unknown(user)):
                await self._know(user, id)
            return False
        wrong: list[str] = []
        miscounted = self._spool.miscounted(user)
        # a content counted down to 0 is deleted, although the catalog may only have lost the file that refers to it
        dropped = sum(not in_files and not in_trash for *_, in_files, in_trash in miscounted)
        of = self._spool.count_of(user)
        refused = are_most(dropped, of) and not self._insists
        for id, version, in_files, in_trash in miscounted:
            drops = not in_files and not in_trash
            found = await self._step(
                "counts", COUNTED, user, id, version, in_files, in_trash, mend=not (drops and refused)
            )
            if drops and refused and id in found:
                self._findings.refuse(f"contents of {user}", dropped, of)
            wrong += found
        wrong += await self._step("counts", SUMMED, user, self._spool.bytes_of(user), changes)
        return "changed" not in wrong

    async def _know(self, user: str, id: str) -> None:
        """Record a content that a file refers to, and that the catalog has no record of."""
        refs = self._spool.refs_of(user, id)
        kind, field, _ = refs[0]
        text = await self._redis.hget(key(kind, user), field)
        if text is None or id not in (blobs := dict((file := decode(text)).blobs)):
            return
        hash = file.hash if len(file.blobs) == 1 else ""
        counts = [sum(each == which for each, _, _ in refs) for which in ("files", "trash")]
        await self._step("unknown", KNOWN, user, kind, field, text, id, blobs[id], hash, *counts)

    async def _step(self, kind: str, script: Script, user: str, *given: Any, mend: bool = True) -> list[str]:
        """Run a step of repairs. Returns what is wrong; it is reported once, and mended if asked."""
        if not given:
            return []
        _, wrong, _ = await self._catalog.run(script, user, "", *given)
        real = [each for each in wrong if each != "changed"]
        if real and self._mend and mend:
            _, mended, _ = await self._catalog.change(script, user, "1", *given)
        else:
            mended = []
        for each in real:
            if (kind, each) not in self._told[user]:
                self._findings.add(kind, user, each, mended=each in mended)
            if each not in mended:
                self._told[user].add((kind, each))
        return list(wrong)

    async def _served(self, user: str) -> None:
        """See that a user with moves is in the list of all users with moves."""
        moves = key("moves", user)
        if await self._redis.zscore(EVERYBODY, user) is not None or not await self._redis.exists(moves):
            return
        first = await self._redis.zrange(moves, 0, 0, withscores=True)
        if first and await self._redis.zscore(EVERYBODY, user) is None:
            if self._mend:
                await self._redis.zadd(EVERYBODY, {user: first[0][1]}, nx=True)
            self._findings.add("moves", user, user, "not in the list of users with moves", mended=self._mend)

    async def _total(self) -> None:
        off = await recount(self._redis, self._spool, self._mend)
        if off is None:
            self._findings.busy += 1
        elif off:
            self._findings.add("counts", "", "total", f"bytes of all users are off by {off}", mended=self._mend)

    async def _refresh(self, pairs: list[tuple[str, str]]) -> None:
        try:
            found = await self._catalog.blobs(pairs)
        except (ValueError, TypeError):
            if len(pairs) == 1:
                ((user, id),) = pairs
                self._findings.add("unread", user, id)
                return
            for pair in pairs:
                await self._refresh([pair])
            return
        self._spool.add_blobs((user, blob) for (user, _), blob in zip(pairs, found, strict=True) if blob)
        for (user, id), blob in zip(pairs, found, strict=True):
            if blob is None:
                self._spool.forget_blob(user, id)

    async def _hash(self, user: str, kind: str) -> AsyncIterator[dict[str, str]]:
        cursor = -1
        while cursor:
            cursor, fields = await self._redis.hscan(key(kind, user), max(cursor, 0), count=PAGE)
            yield fields

    async def _set(self, user: str, kind: str) -> AsyncIterator[list[str]]:
        cursor = -1
        while cursor:
            cursor, pairs = await self._redis.zscan(key(kind, user), max(cursor, 0), count=PAGE)
            yield [member for member, _ in pairs]


async def owners_and_blobs(redis: Any) -> AsyncIterator[tuple[list[str], list[tuple[str, str]]]]:
    """The users with entries in the catalog, and all blobs by user and name, in pages; some more than once."""
    cursor = -1
    while cursor:
        cursor, keys = await redis.scan(max(cursor, 0), count=PAGE)
        owners, blobs = [], []
        for each in keys:
            kind = each.partition(":{")[0]
            if kind == "blob":
                blobs.append((owner_of(each), each.rpartition(":")[2]))
            elif kind in KINDS and each not in (EVERYBODY, OF_ALL):
                owners.append(owner_of(each))
        yield owners, blobs


async def blobs_in_pages(redis: Any, catalog: Catalog) -> AsyncIterator[list[tuple[str, Blob]]]:
    """All blobs that a file refers to, with their users, in pages; some more than once."""
    async for _, pairs in owners_and_blobs(redis):
        found = await catalog.blobs(pairs)
        yield [(user, blob) for (user, _), blob in zip(pairs, found, strict=True) if blob and blob.belongs]


async def recount(redis: Any, spool: Spool, mend: bool = True) -> int | None:
    """By how much the sum of all users' bytes differs from that of the spool's owners; None if it kept changing.

    A user's sum changes a moment before the sum of all does, so a difference counts only if it lasts for a while.
    """
    last: tuple[int, int] | None = None
    for _ in range(ROUNDS):
        before, bytes_, after = await _of_all(redis), 0, ""
        while page := spool.owners(after, PAGE):
            kept = await asyncio.gather(*(redis.hget(key("usage", user), "bytes") for user in page))
            awaited = await asyncio.gather(*(redis.hvals(key("awaited", user)) for user in page))
            bytes_ += sum(int(each or 0) for each in chain(kept, *awaited))
            after = page[-1]
        off = bytes_ - before
        if await _of_all(redis) == before and (not off or last == (before, off)):
            if off and mend:
                await redis.hincrby(OF_ALL, "bytes", off)
            return off
        last = before, off
        await asyncio.sleep(PAUSE)
    return None


async def recount_all(redis: Any) -> None:
    """Mend the sum of all users' bytes, which may differ from theirs after a crash. Raises RedisError."""
    spool = Spool()
    try:
        async for users, _ in owners_and_blobs(redis):
            spool.add_owners(users)
        await recount(redis, spool)
    finally:
        spool.close()


async def _of_all(redis: Any) -> int:
    return int(await redis.hget(OF_ALL, "bytes") or 0)
