"""The consistency check: each damage is found and mended, on a real redis, a real disk and a real S3 server."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backlore.core.keys import key
from backlore.services.check.books import recount_all
from backlore.services.files.catalog import Quota
from tests.kit.buckets import S3Server
from tests.kit.damages import (
    Damage,
    counts_high,
    counts_low,
    cut_and_in_wrong_folder,
    dead_counts,
    dead_in_wrong_folder,
    disk_cut,
    disk_deleted,
    disk_flipped,
    disk_longer,
    empty_object_deleted,
    flip,
    hash_has_more,
    hash_lacks,
    hash_of_another,
    in_both_folders,
    in_wrong_folder,
    in_wrong_folder_alone,
    log_cut,
    log_deleted,
    move_in_vain,
    move_lacks,
    never_emptied,
    newest_has_more,
    newest_lacks,
    nobody_looks,
    object_cut,
    object_deleted,
    object_flipped,
    orphan_in_s3,
    orphan_on_disk,
    ownerless,
    total,
    trashed_has_more,
    trashed_lacks,
    unknown,
    usage_bytes,
    usage_files,
    usage_gone,
)
from tests.kit.desks import CONTENTS, Desk, kinds
from tests.kit.engines import Engine
from tests.kit.houses import ANN, BOB, Run, reach, runs


@pytest.fixture
def run(engine: Engine, tmp_path: Path, bucket: S3Server) -> Run:
    """Runs a test's coroutine with a desk of its own."""
    run_with_house = runs(engine, tmp_path, reach(bucket, prefix=tmp_path.name))
    return lambda test, **limits: run_with_house(lambda house: test(Desk(house)), **limits)


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
