"""The consistency check and what brings files back: on a real redis, a real disk and a real S3 server."""

import asyncio
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from backlore.core.keys import key
from backlore.services.check import books
from backlore.services.check.books import recount_all
from backlore.services.check.check import Check
from backlore.services.check.findings import Findings, Problem
from backlore.services.check.judge import Copy
from backlore.services.check.restore import Restore
from backlore.services.files.catalog import Blob, Exists, File, NoFile, Quota, new_id
from backlore.services.storage.store import Away
from tests.files.test_files import ANN, BOB, House, reach, read, runs
from tests.kit.buckets import S3Server
from tests.kit.engines import Engine
from tests.kit.fileservers import file_servers

GONE = "k3fgoneabcdefgh2"  # a user's id, and no user
CONTENTS = {"one": b"1" * 5000, "two": b"2" * 5000, "three": os.urandom(20_000), "empty": b""}


class Desk:
    """A house with files, and who checks it."""

    def __init__(self, house: House):
        self.house = house
        self.redis, self.files, self.disk = house.redis, house.files, house.disk
        self.put: dict[str, File] = {}

    async def fill(self) -> None:
        """Files of all sorts, all where they belong."""
        for name, content in CONTENTS.items():
            self.put[name] = await self.files.put(ANN, name, content)
        await self.files.put(ANN, "one again", CONTENTS["one"])
        await self.files.put(BOB, "one", CONTENTS["one"])
        self.put["dead"] = await self.files.put(ANN, "dead", b"dead" * 100)
        await self.files.delete(ANN, "dead")
        for number in range(3):
            self.put["log"] = await self.files.append(ANN, "log", b"%d\n" % number * 50)
        await self.house.settle()
        assert await self.check(deep=True) == []

    async def check(self, **options: Any) -> list[Problem]:
        """All that is found."""
        problems: list[Problem] = []
        await self.checked(tell=problems.append, **options)
        return problems

    async def checked(self, **options: Any) -> Findings:
        return await self.checking(**options).run()

    def checking(self, **options: Any) -> Check:
        async def is_gone(user: str) -> bool:
            return user == GONE

        keepers = self.files, self.house.uploads, self.house.s3
        return Check(self.redis, *keepers, **{"is_gone": is_gone, "age": 0.0, **options})

    async def is_whole(self) -> None:
        """All files have their contents, here and in S3, and nothing else is there."""
        await self.house.settle()
        assert await self.check(deep=True) == []
        for name, content in CONTENTS.items():
            assert await read(self.files, ANN, await self.files.find(ANN, name)) == content
        usages = [await self.files.catalog.usage(user) for user in (ANN, BOB, GONE)]
        assert await self.files.catalog.total() == sum(size for size, _ in usages)

    def blob(self, name: str) -> str:
        return self.put[name].blobs[0][0]

    def path(self, name: str) -> Path:
        return self.disk.path(self.blob(name))

    def object(self, name: str, folder: str = "files") -> str:
        return f"{folder}/{ANN}/{self.blob(name)}"

    def key(self, kind: str, *rest: str) -> str:
        return ":".join((f"{kind}:{{ann}}{ANN[3:]}", *rest))

    async def move(self, name: str, old: str, new: str, stays: bool = False) -> None:
        """Put an object into another folder of the bucket."""
        s3 = self.house.s3
        assert s3
        await s3.copy(self.object(name, old), self.object(name, new))
        if not stays:
            await s3.delete([self.object(name, old)])


Run = Callable[..., None]


@pytest.fixture
def run(engine: Engine, tmp_path: Path, bucket: S3Server) -> Run:
    """Runs a test's coroutine with a desk of its own."""
    run_with_house = runs(engine, tmp_path, reach(bucket, prefix=tmp_path.name))
    return lambda test, **limits: run_with_house(lambda house: test(Desk(house)), **limits)


# Damages: each does it, and the kinds that are found are beside it.

Damage = Callable[[Desk], Awaitable[Any]]


def cut(path: Path, size: int) -> None:
    path.chmod(0o644)
    os.truncate(path, size)


def flip(path: Path) -> None:
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


async def disk_deleted(desk: Desk) -> None:
    desk.path("one").unlink()  # two files have it


async def disk_cut(desk: Desk) -> None:
    cut(desk.path("three"), 100)


async def disk_longer(desk: Desk) -> None:
    cut(desk.path("three"), len(CONTENTS["three"]) + 4)


async def disk_flipped(desk: Desk) -> None:
    flip(desk.path("three"))


async def log_cut(desk: Desk) -> None:
    cut(desk.path("log"), 10)


async def log_deleted(desk: Desk) -> None:
    desk.path("log").unlink()


async def object_deleted(desk: Desk) -> None:
    assert desk.house.s3
    await desk.house.s3.delete([desk.object("three")])


async def empty_object_deleted(desk: Desk) -> None:
    assert desk.house.s3
    await desk.house.s3.delete([desk.object("empty")])


async def object_cut(desk: Desk) -> None:
    assert desk.house.s3
    await desk.house.s3.put(desk.object("three"), CONTENTS["three"][:-1])


async def object_flipped(desk: Desk) -> None:
    assert desk.house.s3
    await desk.house.s3.put(desk.object("three"), CONTENTS["three"][:-1] + b"!")


async def in_wrong_folder(desk: Desk) -> None:
    await desk.move("three", "files", "trash")


async def dead_in_wrong_folder(desk: Desk) -> None:
    await desk.move("dead", "trash", "files")


async def in_both_folders(desk: Desk) -> None:
    await desk.move("three", "files", "trash", stays=True)


async def in_wrong_folder_alone(desk: Desk) -> None:
    await desk.move("three", "files", "trash")
    desk.path("three").unlink()


async def cut_and_in_wrong_folder(desk: Desk) -> None:
    assert desk.house.s3
    await desk.move("three", "files", "trash", stays=True)
    await desk.house.s3.put(desk.object("three"), b"cut")


async def orphan_on_disk(desk: Desk) -> Path:
    path = desk.disk.path(new_id())
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"nobody's")
    return path


async def orphan_in_s3(desk: Desk) -> None:
    assert desk.house.s3
    await desk.house.s3.put(f"files/{ANN}/{new_id()}", b"nobody's")
    await desk.house.s3.put(f"trash/{BOB}/{desk.blob('one')}", b"Ann's, but not Bob's")


async def counts_high(desk: Desk) -> None:
    await desk.redis.hset(desk.key("blob", desk.blob("one")), "live", 7)


async def counts_low(desk: Desk) -> None:
    await desk.redis.hset(desk.key("blob", desk.blob("one")), "live", 1)


async def dead_counts(desk: Desk) -> None:
    await desk.redis.hset(desk.key("blob", desk.blob("dead")), "trash", 3)


async def usage_bytes(desk: Desk) -> None:
    await desk.redis.hincrby(desk.key("usage"), "bytes", -77)
    await desk.redis.hincrby("usage:{all}", "bytes", -77)


async def usage_files(desk: Desk) -> None:
    await desk.redis.hincrby(desk.key("usage"), "files", 5)


async def usage_gone(desk: Desk) -> None:
    await desk.redis.delete(desk.key("usage"))


async def total(desk: Desk) -> None:
    await desk.redis.hincrby("usage:{all}", "bytes", 1234)


async def newest_lacks(desk: Desk) -> None:
    await desk.redis.zrem(desk.key("newest"), "one")


async def newest_has_more(desk: Desk) -> None:
    await desk.redis.zadd(desk.key("newest"), {"nosuch": 1})


async def trashed_lacks(desk: Desk) -> None:
    await desk.redis.zrem(desk.key("trashed"), desk.put["dead"].id)


async def trashed_has_more(desk: Desk) -> None:
    await desk.redis.zadd(desk.key("trashed"), {"nosuch": 1})


async def never_emptied(desk: Desk) -> None:
    await desk.redis.zrem(desk.key("moves"), "~" + desk.put["dead"].id)


async def hash_lacks(desk: Desk) -> None:
    await desk.redis.hdel(desk.key("hashes"), desk.put["three"].hash)


async def hash_of_another(desk: Desk) -> None:
    await desk.redis.hset(desk.key("hashes"), desk.put["three"].hash, desk.blob("two"))


async def hash_has_more(desk: Desk) -> None:
    await desk.redis.hset(desk.key("hashes"), "0" * 64, desk.blob("two"))


async def move_lacks(desk: Desk) -> None:
    await desk.redis.hset(desk.key("blob", desk.blob("three")), mapping={"where": "", "pushed": 0})


async def move_in_vain(desk: Desk) -> None:
    await desk.redis.zadd(desk.key("moves"), {"nosuch": 9e15, "~nosuch": 9e15})


async def nobody_looks(desk: Desk) -> None:
    await desk.redis.zrem("moves:{all}", ANN)


async def unknown(desk: Desk) -> None:
    await desk.redis.delete(desk.key("blob", desk.blob("three")))


async def ownerless(desk: Desk) -> None:
    await desk.files.put(GONE, "left", b"behind")
    await desk.house.settle()


# The usage of all follows that of users, so one that is off is found in both.
DAMAGES: list[tuple[Damage, bool, dict[str, int]]] = [
    (disk_deleted, False, {"absent": 2}),
    (disk_cut, False, {"different": 1}),
    (disk_longer, False, {"different": 1}),
    (disk_flipped, True, {"different": 1}),
    (log_cut, False, {"different": 1}),
    (log_deleted, False, {"absent": 1}),
    (object_deleted, False, {"unsaved": 1}),
    (empty_object_deleted, False, {"unsaved": 1}),
    (object_cut, False, {"different": 1}),
    (object_flipped, True, {"different": 1}),
    (in_wrong_folder, False, {"misplaced": 1}),
    (dead_in_wrong_folder, False, {"misplaced": 1}),
    (in_both_folders, False, {"misplaced": 1}),
    (in_wrong_folder_alone, False, {"misplaced": 1, "absent": 1}),
    (cut_and_in_wrong_folder, False, {"misplaced": 1, "different": 1}),
    (orphan_on_disk, False, {"orphaned": 1}),
    (orphan_in_s3, False, {"orphaned": 2}),
    (counts_high, False, {"counts": 1}),
    (counts_low, False, {"counts": 1}),
    (dead_counts, False, {"counts": 1}),
    (usage_bytes, False, {"counts": 1}),
    (usage_files, False, {"counts": 1}),
    (usage_gone, False, {"counts": 3}),
    (total, False, {"counts": 1}),
    (newest_lacks, False, {"indexes": 1}),
    (newest_has_more, False, {"indexes": 1}),
    (trashed_lacks, False, {"indexes": 1}),
    (trashed_has_more, False, {"indexes": 1}),
    (never_emptied, False, {"indexes": 1}),
    (hash_lacks, False, {"indexes": 1}),
    (hash_of_another, False, {"indexes": 1}),
    (hash_has_more, False, {"indexes": 1}),
    (move_lacks, False, {"moves": 1}),
    (move_in_vain, False, {"moves": 2}),
    (nobody_looks, False, {"moves": 1}),
    (unknown, False, {"unknown": 1, "indexes": 1, "counts": 1}),
    (ownerless, False, {"ownerless": 1}),
]


def kinds(problems: list[Problem]) -> dict[str, int]:
    return dict(Counter(problem.kind for problem in problems))


@pytest.mark.parametrize(("damage", "deep", "expected"), DAMAGES, ids=[each.__name__ for each, *_ in DAMAGES])
def test_each_damage_is_found_and_mended(run: Run, damage: Damage, deep: bool, expected: dict[str, int]) -> None:
    async def test(desk: Desk) -> None:
        await desk.fill()
        await damage(desk)
        for _ in range(2):  # to look changes nothing
            found = await desk.check(deep=deep)
            assert kinds(found) == expected, found
            assert not any(problem.mended for problem in found)
        findings = await desk.checked(deep=deep, mend=True)
        assert findings.found and not findings.left and not findings.notes, findings.notes
        await desk.is_whole()

    run(test)


def test_what_only_reading_shows_is_seen_only_by_reading(run: Run) -> None:
    async def test(desk: Desk) -> None:
        await desk.fill()
        await disk_flipped(desk)
        await object_flipped(desk)
        assert await desk.check() == []
        assert kinds(await desk.check(deep=True)) == {"lost": 1}  # damaged in both

    run(test)


def test_lost_contents_are_told_by_user_and_name(run: Run) -> None:
    async def test(desk: Desk) -> None:
        await desk.fill()
        await disk_deleted(desk)
        assert desk.house.s3
        await desk.house.s3.delete([desk.object("one")])
        found = await desk.check(mend=True)
        assert {(each.kind, each.user, each.what, each.mended) for each in found} == {
            ("lost", ANN, "one", False),
            ("lost", ANN, "one again", False),
        }
        # who has it still brings it back: the same content once more
        await desk.files.put(ANN, "one once more", CONTENTS["one"])
        assert (await desk.checked(mend=True)).left == 0
        await desk.is_whole()

    run(test)


def test_what_grew_and_differs_is_left_to_people(run: Run) -> None:
    async def test(desk: Desk) -> None:
        await desk.fill()
        flip(desk.path("log"))
        (problem,) = await desk.check(deep=True, mend=True)
        assert (problem.kind, problem.what, problem.mended) == ("different", "log", False)

    run(test)


def test_orphans_have_time_and_uploads_keep_theirs(run: Run) -> None:
    async def test(desk: Desk) -> None:
        await desk.fill()
        young, older, old = [await orphan_on_disk(desk) for _ in range(3)]
        uploads = desk.house.uploads

        async def beginning() -> AsyncIterator[bytes]:
            yield b"the beginning of it"

        made = await uploads.create(ANN, "coming", 100)
        async with uploads.receive(ANN, made.id) as receiver:
            await receiver.take(beginning(), 100)
        uploaded = desk.disk.path(receiver.transfer.pieces[0][0])
        await orphan_in_s3(desk)
        assert await desk.check(age=None, mend=True) == []
        now = young.stat().st_mtime
        for path, hours in ((older, 2), (old, 25), (uploaded, 25)):
            os.utime(path, (now - hours * 3600,) * 2)

        found = await desk.check(age=None, mend=True)
        assert {(each.what, each.mended) for each in found} == {(older.name, False), (old.name, True)}
        assert [path.exists() for path in (young, older, old, uploaded)] == [True, True, False, True]
        await desk.redis.delete(key("upload", ANN, made.id))  # now nobody knows of it any more
        assert {each.what for each in await desk.check(age=None)} == {older.name, uploaded.name}

    run(test)


def test_names_of_strangers_are_told_and_left_alone(run: Run) -> None:
    async def test(desk: Desk) -> None:
        await desk.fill()
        stranger = desk.path("one").parent / "Read me.txt"
        stranger.write_text("not ours")
        (desk.disk.folder / "contents" / "a file").write_text("not ours")
        assert desk.house.s3
        await desk.house.s3.put("files/readme", b"not ours")
        found = await desk.check(mend=True)
        assert kinds(found) == {"orphaned": 2} and not any(each.mended for each in found)
        assert stranger.exists() and "files/readme" in await desk.house.objects("files")

    run(test)


def test_an_empty_catalog_deletes_nothing(run: Run) -> None:
    """The wrong redis, or one that has lost its data, is no reason to delete all files."""

    async def test(desk: Desk) -> None:
        for number in range(30):
            await desk.files.put(ANN, str(number), b"%d" % number)
        await desk.house.settle()
        lists = [desk.key(kind) for kind in ("files", "newest")]
        saved = {each: await desk.redis.dump(each) for each in lists}
        await desk.redis.delete(*lists)
        findings = await desk.checked(mend=True)
        assert findings.found["counts"] >= 30 and findings.notes
        await desk.house.settle()
        assert len(desk.house.contents()) == 30 and len(await desk.house.objects()) == 30
        for each, content in saved.items():
            await desk.redis.restore(each, 0, content)
        await desk.checked(mend=True)
        assert await desk.check(deep=True) == [] and len(await desk.files.list(ANN)) == 30
        await desk.redis.flushall()
        findings = await desk.checked(mend=True)
        assert findings.found == {"orphaned": 60} and findings.left == 60 and len(findings.notes) == 2
        assert len(desk.house.contents()) == 30 and len(await desk.house.objects()) == 30
        assert (await desk.checked(mend=True, insists=True)).left == 0
        assert not desk.house.contents() and not await desk.house.objects()

    run(test)


def test_nothing_is_wrong_while_files_come_and_go(run: Run) -> None:
    async def test(desk: Desk) -> None:
        await desk.fill()
        done = False

        async def write(number: int) -> None:
            name = f"busy {number % 20}"
            await desk.files.put(ANN, name, b"%d" % (number % 30) * 10)
            await desk.files.append(ANN, "busy log", b"line\n")
            if number % 3 == 0:
                try:
                    dead = await desk.files.delete(ANN, name)
                    if number % 2:
                        await desk.files.undelete(ANN, dead.id)
                    else:
                        await desk.files.erase(ANN, [dead.id])
                except (NoFile, Exists):
                    pass  # by another of us

        async def write_all() -> None:
            nonlocal done
            for start in range(0, 400, 4):
                await asyncio.gather(*map(write, range(start, start + 4)))
            done = True

        carrying, writing = asyncio.create_task(desk.files.courier.run()), asyncio.create_task(write_all())
        checks = 0
        try:
            while not done:
                findings = await desk.checked(mend=True, deep=checks % 2 == 1, age=None)
                assert not findings.found, findings.found
                checks += 1
                if writing.done():
                    break
            await writing
        finally:
            carrying.cancel()
            writing.cancel()
            await asyncio.gather(carrying, writing, return_exceptions=True)
        assert checks > 1
        for move in await desk.redis.zrange(desk.key("moves"), 0, -1):  # what was cut in the middle is due again
            await desk.redis.zadd(desk.key("moves"), {move: 0}, xx=True) if not move.startswith("~") else None
        await desk.is_whole()

    run(test)


def test_what_goes_while_it_is_looked_at_is_no_damage(run: Run) -> None:
    async def test(desk: Desk) -> None:
        await desk.fill()

        async def erase(name: str) -> None:
            dead = await desk.files.delete(ANN, name)
            await desk.files.erase(ANN, [dead.id])
            await desk.house.settle()

        # of a content that is found missing, and just then erased
        checking = desk.checking(mend=True)
        look = checking._shelf.look

        async def look_and_erase(blob: Blob) -> Copy | None:
            if "two" in await desk.files.catalog.names(ANN):
                await erase("two")
            return await look(blob)

        checking._shelf.look = look_and_erase  # type: ignore[method-assign]
        desk.path("two").unlink()
        assert not (await checking.run()).found
        assert "two" not in await desk.files.catalog.names(ANN)
        # of one that was seen on the disk and in S3, and was erased before the catalog was read
        checking = desk.checking(mend=True)
        see = checking._see

        async def see_and_erase() -> None:
            await see()
            await erase("three")

        checking._see = see_and_erase  # type: ignore[method-assign]
        assert not (await checking.run()).found
        assert "three" not in await desk.files.catalog.names(ANN)

    run(test)


def test_the_sum_of_all_comes_after_that_of_a_user(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "PAUSE", 2.0)

    async def test(desk: Desk) -> None:
        await desk.files.put(ANN, "a", b"a" * 100)
        await desk.redis.hincrby(desk.key("usage"), "bytes", 50)  # the first half of a change

        async def second_half() -> None:
            await asyncio.sleep(0.1)
            await desk.redis.hincrby("usage:{all}", "bytes", 50)

        await asyncio.gather(recount_all(desk.redis), second_half())
        assert await desk.files.catalog.total() == 150

    run(test)


def test_damages_are_mended_while_files_come_and_go(run: Run) -> None:
    async def test(desk: Desk) -> None:
        await desk.fill()

        async def write() -> None:
            for number in range(60):
                await desk.files.append(ANN, "log", b"line %d\n" % number)
                await desk.files.put(ANN, "busy", os.urandom(100))

        writing = asyncio.create_task(write())
        for damage in (disk_deleted, object_cut, counts_high, usage_bytes, newest_lacks, hash_lacks):
            await damage(desk)
            await desk.checked(mend=True, age=None)
        await writing
        await desk.house.settle()
        assert (await desk.checked(mend=True)).left == 0
        await desk.is_whole()
        log = await read(desk.files, ANN, await desk.files.find(ANN, "log"))
        assert log.endswith(b"".join(b"line %d\n" % number for number in range(60)))

    run(test)


def test_without_a_bucket(run: Run) -> None:
    async def test(desk: Desk) -> None:
        await desk.fill()
        await orphan_on_disk(desk)
        await counts_high(desk)
        desk.path("two").unlink()
        findings = await desk.checked(mend=True)
        assert findings.found == {"orphaned": 1, "counts": 1, "lost": 1} and findings.left == 1

    run(test, with_bucket=False)


def test_a_bucket_that_comes_later_gets_everything(run: Run, bucket: S3Server, tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.fill()
        late = Desk(House(desk.redis, desk.disk.folder, reach(bucket, prefix=tmp_path.name)))
        try:
            late.put = desk.put
            found = await late.check(mend=True)
            assert set(kinds(found)) == {"moves"} and all(problem.mended for problem in found)
            await late.is_whole()
        finally:
            await late.house.close()

    run(test, with_bucket=False)


def test_restore(run: Run) -> None:
    async def test(desk: Desk) -> None:
        contents = [os.urandom(100 + number) for number in range(300)]
        for number, content in enumerate(contents):
            await desk.files.put(ANN, f"{number:03}", content)
        log = await desk.files.append(BOB, "log", b"grows\n")
        await desk.house.settle()
        shutil.rmtree(desk.disk.folder / "contents")
        desk.disk.prepare()
        # cut in the middle, it goes on
        first = Restore(desk.redis, desk.files)
        running = asyncio.create_task(first.run())
        while first.brought < 50:
            await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        while desk.files.store._fetching:
            await asyncio.sleep(0.01)
        there = len(desk.house.contents())
        seen: list[tuple[int, int, int]] = []
        second = Restore(desk.redis, desk.files, 16, lambda *progress: seen.append(progress))
        await second.run()
        assert second.brought == 301 - there and 50 <= there < 301 and seen[-1][0] >= 301
        for number, content in enumerate(contents):
            assert desk.disk.path((await desk.files.find(ANN, f"{number:03}")).blobs[0][0]).read_bytes() == content
        assert await read(desk.files, BOB, log) == b"grows\n"
        assert await desk.check(deep=True) == []
        # what is damaged or gone in S3 is told, and the rest comes
        shutil.rmtree(desk.disk.folder / "contents")
        desk.disk.prepare()
        bad, none = [(await desk.files.find(ANN, name)).blobs[0][0] for name in ("001", "002")]
        assert desk.house.s3
        await desk.house.s3.put(f"files/{ANN}/{bad}", b"!" * 101)
        await desk.house.s3.delete([f"files/{ANN}/{none}"])
        third = Restore(desk.redis, desk.files)
        await third.run()
        assert sorted([(user, name) async for user, name, _ in third.lost()]) == [(ANN, "001"), (ANN, "002")]
        assert third.brought == 299 and len(desk.house.contents()) == 299

    run(test)


def test_total(run: Run) -> None:
    async def test(desk: Desk) -> None:
        files, catalog = desk.files, desk.files.catalog
        await files.put(ANN, "a", b"a" * 600)
        for refused in (files.put(BOB, "b", b"b" * 401), files.append(BOB, "b", b"b" * 401)):
            with pytest.raises(Quota):
                await refused
        await files.put(ANN, "a again", b"a" * 600)  # it takes no room
        await files.append(BOB, "b", b"b" * 400)
        assert await catalog.total() == 1000
        await files.put(BOB, "nothing", b"")
        with pytest.raises(Quota):
            await files.put(BOB, "c", b"c")
        dead = [await files.delete(ANN, name) for name in ("a", "a again")]
        assert await catalog.total() == 1000  # the trash counts
        await files.erase(ANN, [each.id for each in dead])
        assert await catalog.total() == 400
        await files.put(BOB, "c", b"c" * 600)
        # a crash between a user's step and that of all
        await desk.redis.hset("usage:{all}", "bytes", 5)
        await recount_all(desk.redis)
        assert await catalog.total() == 1000
        await files.wipe(BOB)
        await desk.house.settle()
        assert await catalog.total() == 0

    run(test, total=1000)


def test_the_trash_that_empties_itself_frees_the_total(run: Run) -> None:
    async def test(desk: Desk) -> None:
        await desk.files.put(ANN, "a", b"a" * 600)
        await desk.files.delete(ANN, "a")
        async with asyncio.timeout(20):
            while await desk.files.catalog.total():
                await desk.files.courier.turn()
                await asyncio.sleep(0.05)
        await desk.house.settle()
        assert await desk.check() == []

    run(test, trash=0.2)


def test_on_file_servers(engine: Engine, tmp_path: Path, bucket: S3Server) -> None:
    """All of them are as one disk."""
    with file_servers(tmp_path / "servers", 2, bucket, tmp_path.name) as servers:

        async def test(house: House) -> None:
            desk = Desk(house)
            await desk.fill()
            house.lose(desk.blob("one"))
            for path in house.paths(desk.blob("two")):
                flip(path)
            orphan = servers[1].path(new_id())
            orphan.parent.mkdir(exist_ok=True)
            orphan.write_bytes(b"nobody's")
            assert kinds(await desk.check(deep=True)) == {"absent": 2, "different": 1, "orphaned": 1}
            findings = await desk.checked(deep=True, mend=True)
            assert not findings.left, findings.notes
            assert not orphan.exists()
            await desk.is_whole()
            for server in servers:
                server.wipe()
            restoration = Restore(desk.redis, desk.files)
            await restoration.run()
            assert restoration.brought == restoration.seen == 7 and not restoration.failed
            await desk.is_whole()
            servers[0].kill()
            with pytest.raises(Away):  # nothing is said of what may be there
                await desk.check()

        runs(engine, tmp_path, reach(bucket, prefix=tmp_path.name), servers)(test)
