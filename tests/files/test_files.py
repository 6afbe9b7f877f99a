"""Files as applications call them: on a real redis, a real disk or real file servers, and a real S3 server."""

import asyncio
import errno
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backlore.services.files.catalog import Changed, Exists, File, NoFile, Quota
from backlore.services.files.steps import RECORD
from backlore.services.storage.store import Lost
from tests.kit.houses import ANN, BOB, House, Run, read


@pytest.fixture(params=["disk", "servers"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.getfixturevalue(f"run_on_{request.param}")


def test_put_and_read(run) -> None:
    async def test(house: House) -> None:
        files = house.files
        content = os.urandom(3 << 20)
        file = await files.put(ANN, "a/b.bin", content)
        assert (file.name, file.size, file.hash) == ("a/b.bin", len(content), hashlib.sha256(content).hexdigest())
        assert await files.find(ANN, "a/b.bin") == file and await read(files, ANN, file) == content
        assert await read(files, ANN, file, 1000, 50) == content[1000:1050]
        assert await read(files, ANN, file, len(content) - 3, 50) == content[-3:]
        assert await read(files, ANN, file, len(content)) == b""
        assert await files.catalog.usage(ANN) == (len(content), 1)
        with pytest.raises(NoFile):
            await files.find(BOB, "a/b.bin")

        async def pieces() -> AsyncIterator[bytes]:
            yield b"one "
            yield b"two"

        assert await read(files, ANN, await files.put(ANN, "c", pieces())) == b"one two"
        source = house.disk.folder / "source"
        source.write_bytes(b"from a path")
        assert await read(files, ANN, await files.put(ANN, "d", source)) == b"from a path"
        assert await read(files, ANN, await files.put(ANN, "empty", b"")) == b""
        assert [each.name for each in await files.list(ANN)] == ["empty", "d", "c", "a/b.bin"]
        page = await files.list(ANN, limit=2)
        assert [each.name for each in await files.list(ANN, before=page[-1].changed)] == ["c", "a/b.bin"]

    run(test)


def test_an_upload_that_breaks_leaves_nothing(run) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        raise ConnectionError("gone")

    async def test(house: House) -> None:
        with pytest.raises(ConnectionError):
            await house.files.put(ANN, "a", broken())
        assert not await house.files.list(ANN) and not house.contents()

    run(test)


def test_an_answer_that_is_lost_loses_no_content(run) -> None:
    """The catalog has taken the file, and nobody learns it: what is listed can be read."""

    async def test(house: House) -> None:
        catalog = house.files.catalog
        whole = catalog.put

        async def cut(*given: object) -> File:
            await whole(*given)  # type: ignore[arg-type]
            raise ConnectionError("redis is gone")

        catalog.put = cut  # type: ignore[method-assign]
        with pytest.raises(ConnectionError):
            await house.files.put(ANN, "a", b"content")
        catalog.put = whole  # type: ignore[method-assign]
        assert await read(house.files, ANN, await house.files.find(ANN, "a")) == b"content"

    run(test)


def test_same_content_is_kept_once_of_one_user(run) -> None:
    async def test(house: House) -> None:
        files = house.files
        one, two = await files.put(ANN, "one", b"same" * 100), await files.put(ANN, "two", b"same" * 100)
        assert one.blobs == two.blobs and one.id != two.id
        assert await files.catalog.usage(ANN) == (400, 2)
        his = await files.put(BOB, "one", b"same" * 100)
        assert his.blobs != one.blobs and len(house.contents()) == 2
        await house.settle()
        assert len(await house.objects("files")) == 2
        # what is there, but no longer on this disk, comes back by whoever brings it
        house.lose(one.blobs[0][0])
        await files.put(ANN, "three", b"same" * 100)
        assert house.paths(one.blobs[0][0]) and len(house.contents()) == 2
        assert await files.put(ANN, "two", b"same" * 100) == two  # nothing differs, nothing is done

    run(test)


def test_overwritten_and_deleted_can_be_had_back(run) -> None:
    async def test(house: House) -> None:
        files = house.files
        first = await files.put(ANN, "a", b"first")
        second = await files.put(ANN, "a", b"second")
        await house.settle()
        assert [len(await house.objects(folder)) for folder in ("files", "trash")] == [1, 1]
        ((dead, when),) = await files.catalog.page_of_trash(ANN, 0, 10)
        assert dead.id == first.id and abs(when / 1e6 - time.time()) < 60
        with pytest.raises(Exists):
            await files.undelete(ANN, first.id)
        back = await files.undelete(ANN, first.id, "a before")
        assert await read(files, ANN, back) == b"first"
        assert (await files.delete(ANN, "a")).id == second.id
        with pytest.raises(NoFile):
            await files.find(ANN, "a")
        assert (await files.undelete(ANN, second.id)).name == "a"
        with pytest.raises(NoFile):
            await files.undelete(ANN, second.id)
        await house.settle()
        assert [len(await house.objects(folder)) for folder in ("files", "trash")] == [2, 0]
        assert await read(files, ANN, await files.find(ANN, "a")) == b"second"

    run(test)


def test_the_trash_is_emptied_by_time_and_by_hand(run) -> None:
    async def test(house: House) -> None:
        files = house.files
        by_hand = await files.put(ANN, "a", b"a")
        await files.put(ANN, "b", b"b")
        shared = await files.put(ANN, "c", b"a")
        await house.settle()
        await files.delete(ANN, "a")
        assert await files.erase(ANN, [by_hand.id, "nosuch"]) == 1
        await house.settle()
        assert await read(files, ANN, shared) == b"a"  # somebody still has it
        await files.delete(ANN, "b")
        await files.delete(ANN, "c")
        await asyncio.sleep(0.3)
        while await house.objects() or house.contents():
            await files.courier.turn()
            await asyncio.sleep(0.05)
        await house.settle()
        assert await files.catalog.usage(ANN) == (0, 0)
        assert sorted(await house.redis.keys("*")) == ["usage:{all}", "usage:{ann}abcdefgh"]
        assert await files.catalog.total() == 0

    run(test, trash=0.2)


def test_expected(run) -> None:
    async def test(house: House) -> None:
        files = house.files
        one = await files.put(ANN, "a", b"1", expected="*")
        with pytest.raises(Exists):
            await files.put(ANN, "a", b"2", expected="*")
        two = await files.put(ANN, "a", b"2", expected=one.id)
        for refused in (files.put(ANN, "a", b"3", expected=one.id), files.delete(ANN, "a", expected=one.id)):
            with pytest.raises(Changed):
                await refused
        with pytest.raises(Changed):
            await files.put(ANN, "none", b"3", expected=two.id)
        assert len(house.contents()) == 2
        writers = [files.put(ANN, "b", b"writer %d" % number, expected="*") for number in range(20)]
        done = await asyncio.gather(*writers, return_exceptions=True)
        assert sum(isinstance(each, File) for each in done) == 1 and len(house.contents()) == 3

    run(test)


def test_two_writers_on_one_name(run) -> None:
    async def test(house: House) -> None:
        contents = [b"%d" % number * 1000 for number in range(30)]
        await asyncio.gather(*(house.files.put(ANN, "a", each) for each in contents))
        assert await read(house.files, ANN, await house.files.find(ANN, "a")) in contents
        trash = await house.files.catalog.page_of_trash(ANN, 0, 100)
        assert len(trash) == 29  # nothing is lost: each is there or in the trash

    run(test)


def test_quota(run) -> None:
    async def test(house: House) -> None:
        files = house.files
        with pytest.raises(Quota):
            await files.put(BOB, "too much", b"e" * (1000 + 2 * RECORD + 1))
        await files.put(ANN, "a", b"a" * 600)
        for refused in (files.put(ANN, "b", b"b" * (401 + RECORD)), files.append(ANN, "c", b"c" * (401 + RECORD))):
            with pytest.raises(Quota):
                await refused
        await files.put(ANN, "a again", b"a" * 600)  # it takes no room
        await files.put(ANN, "b", b"b" * 400)
        await files.put(BOB, "b", b"b" * (1000 + 2 * RECORD))
        dead = [await files.delete(ANN, name) for name in ("a", "a again")]
        with pytest.raises(Quota):
            await files.put(ANN, "d", b"d")
        await files.erase(ANN, [each.id for each in dead])
        await files.put(ANN, "d", b"d" * 600)

    run(test, quota=1000 + 3 * RECORD)


def test_append(run) -> None:
    async def test(house: House) -> None:
        files = house.files
        lines = [b'{"n": %d}\n' % number for number in range(300)]
        await asyncio.gather(*(files.append(ANN, "log.jsonl", line) for line in lines))
        file = await files.find(ANN, "log.jsonl")
        assert sorted((await read(files, ANN, file)).splitlines(keepends=True)) == sorted(lines)
        assert len(file.blobs) == 1 and file.size == sum(map(len, lines))
        await house.settle()
        before = file.etag
        file = await files.append(ANN, "log.jsonl", b"more\n")
        assert file.etag != before
        await house.settle()
        # what a crash has left behind the last acknowledged byte is nobody's
        for path in house.paths(file.blobs[-1][0]):
            with path.open("ab") as blob:
                blob.write(b"never acknowledged")
        file = await files.append(ANN, "log.jsonl", b"and more\n")
        assert (await read(files, ANN, file)).endswith(b"more\nand more\n")
        await house.settle()
        house.lose(file.blobs[0][0])
        assert (await read(files, ANN, file)).endswith(b"more\nand more\n")  # from S3
        # what came whole does not grow any more
        file = await files.append(ANN, "log.jsonl", b"still more\n")
        assert (await read(files, ANN, file)).endswith(b"and more\nstill more\n")
        # a file that was put grows by a blob of its own, and its copies don't
        put = await files.put(ANN, "copy", b"put\n")
        grown = await files.append(ANN, "copy", b"added\n")
        assert await read(files, ANN, grown) == b"put\nadded\n" and await read(files, ANN, put) == b"put\n"
        assert await read(files, ANN, grown, 2, 4) == b"t\nad"

    run(test)


def test_append_across_blobs_and_processes(run, tmp_path: Path) -> None:
    async def test(house: House) -> None:
        other = House(house.redis, house.disk.folder, None, house.servers, quota=1 << 30)
        sent = [bytes([65 + number % 26]) * (1 << 20) for number in range(20)]
        takers = [house.files, other.files] * 10
        await asyncio.gather(*(to.append(ANN, "big", data) for to, data in zip(takers, sent, strict=True)))
        file = await house.files.find(ANN, "big")
        got = await read(house.files, ANN, file)
        assert sorted(got[at : at + (1 << 20)] for at in range(0, len(got), 1 << 20)) == sorted(sent)
        assert len(file.blobs) >= 2
        await other.close()

    run(test, quota=1 << 30)


def test_a_lost_disk_heals_by_use_once_for_all_who_wait(run) -> None:
    async def test(house: House) -> None:
        content = os.urandom(2 << 20)
        file = await house.files.put(ANN, "a", content)
        await house.settle()
        house.lose(file.blobs[0][0])
        before = await house.fetches()
        got = await asyncio.gather(*(read(house.files, ANN, file) for _ in range(20)))
        assert set(got) == {content} and await house.fetches(before) == before + 1
        # cut in S3 or here: never taken for the whole
        house.lose(file.blobs[0][0])
        assert house.s3 is not None
        await house.s3.put(f"files/{ANN}/{file.blobs[0][0]}", content[:-1] + b"!")
        with pytest.raises(Lost):
            await read(house.files, ANN, file)
        assert not house.contents()

    run(test)


def test_without_a_bucket(run) -> None:
    async def test(house: House) -> None:
        file = await house.files.put(ANN, "a", b"here")
        await house.settle()
        assert await read(house.files, ANN, file) == b"here"
        await house.files.delete(ANN, "a")
        await house.files.erase(ANN, [file.id])
        await house.settle()
        assert not house.contents()

    run(test, with_bucket=False)


def test_wipe(run) -> None:
    async def test(house: House) -> None:
        for number in range(30):
            await house.files.put(ANN, str(number), b"%d" % number)
        await house.files.put(BOB, "his", b"1")
        await house.files.delete(ANN, "3")
        await house.settle()
        await house.files.wipe(ANN)
        await house.files.wipe(ANN)
        await house.settle()
        assert len(house.contents()) == 1 and len(await house.objects()) == 1
        assert not await house.redis.keys("*{ann}*")

    run(test)


def test_full_disk(run_on_disk) -> None:
    async def test(house: House) -> None:
        house.disk._free = 1 << 60  # more than there is
        for refused in (house.files.put(ANN, "a", b"a"), house.files.append(ANN, "b", b"b")):
            with pytest.raises(OSError) as error:
                await refused
            assert error.value.errno == errno.ENOSPC
        assert not house.contents() and not await house.files.list(ANN)

    run_on_disk(test)
