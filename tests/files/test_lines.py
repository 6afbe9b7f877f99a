"""Lines of files on a real redis and a real disk, which grow meanwhile, and of contents that come as streams."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from backlore.clients.disk import Disk
from backlore.clients.redis.client import Redis
from backlore.core.notify import Notify
from backlore.core.schema import FilesConfig
from backlore.core.turns import Busy
from backlore.services.files.catalog import Changed, File, NoFile
from backlore.services.files.files import Files
from backlore.services.lines import lines as lines_module
from backlore.services.lines.conditions import BadCondition, Wanted
from backlore.services.lines.lines import Found, Line, Lines, Look
from backlore.services.lines.windows import Stretch
from backlore.web.delivery import FilePart, Part, StreamPart
from tests.kit.engines import Engine
from tests.kit.houses import ANN
from tests.kit.lines import all_lines


@pytest.fixture
def run(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a test's coroutine with files of its own, whose blobs are small and which are looked at often."""
    monkeypatch.setattr("backlore.services.files.append.BLOB", 1000)
    monkeypatch.setattr(lines_module, "POLL", 0.01)

    def runs(test: Callable[[Files, Lines], Awaitable[None]]) -> None:
        async def within() -> None:
            redis = Redis(unix_socket_path=engine.path, timeout=5)
            await redis.flushall()
            disk = Disk(tmp_path / "files")
            disk.prepare()
            files = Files(redis, Notify(lambda _: None), disk, None, FilesConfig(quota=1 << 30))
            lines = Lines(files.find, files.spans)
            try:
                await test(files, lines)
            finally:
                lines.close()
                disk.close()
                await redis.aclose()

        asyncio.run(within())

    return runs


def rows(first: int, last: int) -> bytes:
    """Lines of some JSON, numbered."""
    return b"".join(
        b'{"n": %d, "level": "%s"}\n' % (n, b"error" if n % 10 == 0 else b"info") for n in range(first, last)
    )


def numbers(found: list[Line]) -> list[int]:
    return [json.loads(line.data)["n"] for line in found]


def test_tail_and_filter_of_a_file_that_was_added_to(run) -> None:
    async def test(files: Files, lines: Lines) -> None:
        for start in range(0, 300, 10):
            file = await files.append(ANN, "log", rows(start, start + 10))
        assert len(file.blobs) > 5  # and lines lie across them
        found = await lines.tail(ANN, "log", 3)
        assert numbers(found.lines) == [297, 298, 299] and not found.is_all
        assert await lines.tail(ANN, "log", 1000) == Found(all_lines(rows(0, 300), 1 << 20), Stretch(0, 0))
        errors = Wanted(where=("level=error",))
        assert numbers((await lines.filter(ANN, "log", errors)).lines) == list(range(290, -1, -10))
        assert numbers((await lines.filter(ANN, "log", errors, newest=False, limit=3)).lines) == [0, 10, 20]
        await files.append(ANN, "log", b"unfinished")
        assert [line.text for line in (await lines.tail(ANN, "log", 1)).lines] == ["unfinished"]
        await files.append(ANN, "log", b", finished\r\nbad \xff")
        assert [line.text for line in (await lines.tail(ANN, "log", 2)).lines] == ["unfinished, finished", "bad \ufffd"]
        await files.put(ANN, "empty", b"")
        assert await lines.tail(ANN, "empty") == Found([], Stretch(0, 0))
        with pytest.raises(NoFile):
            await lines.tail(ANN, "none")
        with pytest.raises(BadCondition):
            await lines.scan(ANN, "log", Wanted(matches=("(",)))

    run(test)


@pytest.mark.parametrize("newest", [True, False])
@pytest.mark.parametrize("limited", [{"limit": 7}, {"seconds": 0}])
def test_answers_go_on_where_the_last_one_ended_while_the_file_grows(
    run, newest: bool, limited: dict, monkeypatch
) -> None:
    monkeypatch.setattr(lines_module, "SLICE", 0)

    async def test(files: Files, lines: Lines) -> None:
        await files.put(ANN, "log", rows(0, 20_000))
        size = (await files.find(ANN, "log")).size
        found, got = Found([], Stretch(0, size)), []
        while not found.is_all:
            found = await lines.filter(
                ANN,
                "log",
                Wanted(where=("n>100", "level=error")),
                newest=newest,
                stretch=found.left,
                **limited | {"limit": limited.get("limit", 10**6)},
            )
            got += numbers(found.lines)
            if len(got) < 100:
                await files.append(ANN, "log", rows(50_000, 50_010))
        assert got == list(range(110, 20_000, 10))[:: -1 if newest else 1]

    run(test)


def test_an_answer_covers_what_was_there_when_it_was_asked(run) -> None:
    async def test(files: Files, lines: Lines) -> None:
        await files.append(ANN, "log", rows(0, 20_000))
        scan = await lines.scan(ANN, "log", newest=False)
        got = numbers((await anext(scan)).lines)
        for _ in range(5):
            await files.append(ANN, "log", rows(90_000, 90_100))
        async for found in scan:
            got += numbers(found.lines)
        assert got == list(range(20_000))

    run(test)


def test_an_answer_is_bounded(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "ANSWER", 3 << 20)

    async def test(files: Files, lines: Lines) -> None:
        await files.put(ANN, "long", (b"x" * 300_000 + b"\n") * 40)
        found = await lines.filter(ANN, "long", limit=1000)
        assert len(found.lines) < 30 and not found.is_all
        assert all(line.cut and len(line.data) == 256 << 10 for line in found.lines)
        rest = await lines.filter(ANN, "long", limit=1000, stretch=found.left)
        more = await lines.filter(ANN, "long", limit=1000, stretch=rest.left)
        starts = [line.at for each in (found, rest, more) for line in each.lines]
        assert starts[: len(starts)] == [n * 300_001 for n in range(39, 39 - len(starts), -1)]

    run(test)


def test_only_what_is_needed_is_asked_for(run) -> None:
    """The end of a file can be read whose beginning is lost."""

    async def test(files: Files, lines: Lines) -> None:
        for start in range(0, 100_000, 10_000):
            await files.append(ANN, "log", rows(start, start + 10_000))
        file = await files.find(ANN, "log")
        files.store.disk.path(file.blobs[0][0]).unlink()
        assert numbers((await lines.tail(ANN, "log", 1)).lines) == [99_999]
        with pytest.raises(Exception, match=file.blobs[0][0]):
            await lines.filter(ANN, "log", Wanted(("no such text",)))

    run(test)


def test_who_closes_it_ends_the_look(run, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    real = os.pread

    def pread(*given: int) -> bytes:
        nonlocal reads
        reads += 1
        return real(*given)

    monkeypatch.setattr("backlore.services.lines.windows.os.pread", pread)
    monkeypatch.setattr(lines_module, "SLICE", 3600)

    async def test(files: Files, lines: Lines) -> None:
        await files.put(ANN, "big", (b"x" * 99 + b"\n") * 3_000_000)

        async def search() -> None:
            await lines.filter(ANN, "big", Wanted(("no such text",)), seconds=3600)

        task = asyncio.create_task(search())
        while reads < 300:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        so_far = reads
        lines._threads.shutdown(wait=True)  # what was under way has ended
        assert reads < so_far + 10  # of some 2,300

    run(test)


async def take(stream, count: int) -> list[Line]:
    got: list[Line] = []
    async for lines in stream:
        got += lines
        if len(got) >= count:
            return got
    return got


def test_follow(run) -> None:
    async def test(files: Files, lines: Lines) -> None:
        await files.append(ANN, "log", rows(0, 100))
        version, stream = await lines.follow(ANN, "log", count=3)
        assert numbers(await take(stream, 3)) == [97, 98, 99]
        _, errors = await lines.follow(ANN, "log", Wanted(where=("level=error",)), count=1)
        assert numbers(await take(errors, 1)) == [90]
        await files.append(ANN, "log", rows(100, 140) + b'{"n": 1')  # the last one is not finished
        came = await take(stream, 40)
        assert numbers(came) == list(range(100, 140))
        assert numbers(await take(errors, 4)) == [100, 110, 120, 130]
        for _ in range(5):
            assert await anext(stream) == []
        await files.append(ANN, "log", b"40}\n")
        assert numbers(await take(stream, 1)) == [140]
        # whoever was away goes on where it was; of another version it gets the end
        _, again = await lines.follow(ANN, "log", version=version, at=came[-3].at)
        assert numbers(await take(again, 3)) == [138, 139, 140]
        _, again = await lines.follow(ANN, "log", count=1, version="another", at=0)
        assert numbers(await take(again, 1)) == [140]
        await files.put(ANN, "log", b"replaced\n")
        with pytest.raises(Changed):
            await take(stream, 1)
        _, stream = await lines.follow(ANN, "log")
        assert (await anext(stream))[0].text == "replaced"
        await files.append(ANN, "log", b"\n\nadded\n")
        assert [line.text for line in await take(stream, 3)] == ["", "", "added"]
        await files.delete(ANN, "log")
        with pytest.raises(NoFile):
            await take(stream, 1)

    run(test)


def test_many_add_while_others_follow_and_page(run) -> None:
    """Nothing is lost or told twice."""

    async def test(files: Files, lines: Lines) -> None:
        await files.append(ANN, "log", rows(0, 1))
        followers = [(await lines.follow(ANN, "log", count=1))[1] for _ in range(3)]
        taking = [asyncio.create_task(take(stream, 2001)) for stream in followers]
        for batch in range(1, 2001, 50):
            await asyncio.gather(*(files.append(ANN, "log", rows(n, n + 1)) for n in range(batch, batch + 50)))
        for each in await asyncio.gather(*taking):
            got = numbers(each)
            assert len(got) == 2001 and sorted(got) == list(range(2001))

    run(test)


def test_contents_that_come_as_streams_or_move(tmp_path: Path) -> None:
    """From a file server, say; and from a disk where the file has another path meanwhile."""
    content = rows(0, 30_000)
    asked: list[int] = []

    async def find(user: str, name: str) -> File:
        return File("version", name, "text/plain", len(content), "", 0, 0, [("b", len(content))])

    async def read(start: int, length: int):
        yield content[start : start + length // 2]
        yield content[start + length // 2 : start + length]

    async def streams(user: str, file: File, start: int, length: int) -> list[Part]:
        asked.append(length)
        return [StreamPart(read, start, length)]

    async def moving(user: str, file: File, start: int, length: int) -> list[Part]:
        path = tmp_path / str(len(asked))
        if asked:
            os.rename(tmp_path / str(len(asked) - 1), path)
        else:
            path.write_bytes(content)
        asked.append(length)
        return [FilePart(path, start, length)]

    async def test() -> None:
        for spans in (streams, moving):
            lines = Lines(find, spans)
            for newest in (True, False):
                found = await lines.filter(ANN, "log", Wanted(where=("n>49",)), newest=newest, limit=30_000)
                assert numbers(found.lines) == list(range(50, 30_000))[:: -1 if newest else 1]
            assert numbers((await lines.tail(ANN, "log", 1)).lines) == [29_999] and asked[-1] <= 1 << 20
            asked.clear()
            lines.close()

    asyncio.run(test())


def test_users_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ann has twenty filters that find nothing: Bob's tail comes after a few of their looks, and more of hers are
    refused."""
    path, begun = tmp_path / "log", 0
    path.write_bytes(b"nothing that she is looking for\n" * 100_000)
    file, at = File("id", "log", "", path.stat().st_size, "", 0, 0, []), Look.at

    async def find(user: str, name: str) -> File:
        return file

    async def spans(user: str, file: File, start: int, length: int) -> list[Part]:
        return [FilePart(path, start, length)]

    def count(*given: Any) -> tuple[Found, Any]:
        nonlocal begun
        begun += 1
        return at(*given)

    async def test() -> None:
        lines = Lines(find, spans)
        looks = [asyncio.create_task(lines.filter(ANN, "log", Wanted(contains=("else",)))) for _ in range(30)]
        while begun < 30:
            await asyncio.sleep(0)
        before = begun
        assert len((await lines.tail("bob", "log", 1)).lines) == 1
        assert begun - before < 20  # in one row for all, it would be some seventy
        found = await asyncio.gather(*looks, return_exceptions=True)
        assert [type(each) for each in found] == [Found] * 22 + [Busy] * 8  # two were in the threads
        lines.close()

    monkeypatch.setattr(Look, "at", count)
    monkeypatch.setattr(lines_module, "SLICE", 0.005)
    asyncio.run(test())
