"""What brings files back, from a bucket and into one; and the check without any, and over file servers."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from backlore.services.check.restore import Restore
from backlore.services.files.catalog import new_id
from backlore.services.storage.store import Away
from tests.kit.buckets import S3Server
from tests.kit.damages import counts_high, flip, orphan_on_disk
from tests.kit.desks import Desk, kinds
from tests.kit.engines import Engine
from tests.kit.fileservers import file_servers
from tests.kit.houses import ANN, BOB, House, Run, reach, read, runs


@pytest.fixture
def run(engine: Engine, tmp_path: Path, bucket: S3Server) -> Run:
    """Runs a test's coroutine with a desk of its own."""
    run_with_house = runs(engine, tmp_path, reach(bucket, prefix=tmp_path.name))
    return lambda test, **limits: run_with_house(lambda house: test(Desk(house)), **limits)


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
