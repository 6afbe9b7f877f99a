"""The consistency check while files come and go: it finds no damage where none is, and mends the others."""

import asyncio
import os
from pathlib import Path

import pytest

from backlore.services.check import books
from backlore.services.check.books import recount_all
from backlore.services.check.judge import Copy
from backlore.services.files.catalog import Blob, Exists, NoFile
from tests.kit.buckets import S3Server
from tests.kit.damages import counts_high, disk_deleted, hash_lacks, newest_lacks, object_cut, usage_bytes
from tests.kit.desks import Desk
from tests.kit.engines import Engine
from tests.kit.houses import ANN, Run, reach, read, runs


@pytest.fixture
def run(engine: Engine, tmp_path: Path, bucket: S3Server) -> Run:
    """Runs a test's coroutine with a desk of its own."""
    run_with_house = runs(engine, tmp_path, reach(bucket, prefix=tmp_path.name))
    return lambda test, **limits: run_with_house(lambda house: test(Desk(house)), **limits)


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
