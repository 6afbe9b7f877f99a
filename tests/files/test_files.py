"""Files as applications call them: on a real redis, a real disk or real file servers, and a real S3 server."""

import asyncio
import contextlib
import errno
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backlore.clients.disk import Disk
from backlore.clients.fileserver import FileServer
from backlore.clients.redis import agenda
from backlore.clients.redis.aside import set_aside
from backlore.clients.redis.client import Redis
from backlore.clients.redis.lease import LASTS
from backlore.clients.redis.refusals import Unready
from backlore.clients.s3 import S3, S3Missing, S3Refused, S3Unreachable
from backlore.core.keys import key
from backlore.core.notify import Notify
from backlore.core.schema import FilesConfig
from backlore.services.files import catalog as catalogs
from backlore.services.files.allowance import Owners
from backlore.services.files.catalog import EVERYBODY, Changed, Exists, File, NoFile, Quota
from backlore.services.files.files import Files
from backlore.services.files.kinds import BadName, clean, is_shown, sniff
from backlore.services.files.steps import RECORD
from backlore.services.lines.lines import Lines
from backlore.services.storage.remote import RemoteStore
from backlore.services.storage.store import Lost
from backlore.services.uploads.uploads import Uploads
from tests.kit import fileservers
from tests.kit.buckets import BUCKET, KEYS, S3Server
from tests.kit.engines import Engine
from tests.kit.fileservers import TOKEN, file_servers

ANN, BOB = "annabcdefgh", "bobabcdefgh"
PREFIX = "servers"  # of the file servers, in the bucket


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, bucket: S3Server) -> Iterator[list[fileservers.FileServer]]:
    with file_servers(tmp_path_factory.mktemp("servers"), 2, bucket, PREFIX) as running:
        yield running


def reach(server: S3Server, **other: str) -> S3:
    keys = {"access_key": KEYS["s3_key"], "secret_key": KEYS["s3_secret"]}
    return S3(BUCKET, endpoint=server.endpoint, **{**keys, **other})


class House:
    """Files with what they stand on: the disk, or file servers."""

    def __init__(
        self,
        redis: Redis,
        folder: Path,
        s3: S3 | None,
        servers: list[fileservers.FileServer] | None = None,
        copies: int = 2,
        token: str = TOKEN,
        owners: Owners | None = None,
        **limits: Any,
    ):
        self.redis = redis
        self.s3 = s3
        self.servers = servers or []
        self._said: list[str] = []
        self.notify = Notify(lambda record: self._said.append(str(record["event"])))
        self.disk = Disk(folder)
        known = [FileServer(server.url, token, self.notify) for server in self.servers]
        self.store = RemoteStore(known, s3, self.notify, copies) if servers else None
        config = FilesConfig(**{"quota": 10 << 20, "trash": 3600, **limits})
        self.files = Files(redis, self.notify, self.disk, s3, config, self.store, owners)
        self.uploads = Uploads(redis, self.notify, self.files, config.unfinished)
        self.lines = Lines(self.files.find, self.files.spans)
        self.disk.prepare()

    async def wipe(self, user: str) -> None:
        """Of a user who goes."""
        await self.uploads.wipe(user)
        await self.files.wipe(user)

    async def close(self) -> None:
        self.lines.close()
        if self.store:
            await self.store.close()
        self.disk.close()

    def paths(self, blob: str) -> list[Path]:
        """Where a content is."""
        places = [server.path(blob) for server in self.servers] or [self.disk.path(blob)]
        return [path for path in places if path.exists()]

    def lose(self, blob: str) -> None:
        """No disk has it any more."""
        for path in self.paths(blob):
            path.unlink()

    @property
    def said(self) -> list[str]:
        """The events that were told."""
        self.notify.flush()
        return self._said

    async def settle(self) -> None:
        """Until nothing is left to move."""
        while await self.files.courier.turn():
            pass
        assert not await self.files.catalog.users_to_serve(10) or not await self.files.courier.turn()

    async def objects(self, folder: str = "") -> list[str]:
        assert self.s3 is not None
        return [each.name for each in [found async for found in self.s3.list(folder)]]

    async def fetches(self, before: int = -1) -> int:
        """How often something was fetched from S3; once that is more than `before`."""
        while True:
            told = self.said.count("files.fetched") + sum(each.said().count("files.fetched") for each in self.servers)
            if told > before:
                return told
            await asyncio.sleep(0.01)

    def contents(self) -> list[str]:
        found = [path.name for path in self.disk.folder.glob("contents/*/*")]
        assert not self.servers or not found  # a node keeps nothing
        return sorted({name for server in self.servers for name in server.names()} if self.servers else found)


Run = Callable[..., None]


def runs(engine: Engine, folder: Path, s3: S3 | None, servers: list[fileservers.FileServer] | None = None) -> Run:
    """Runs a test's coroutine with a house of its own."""

    def run(test: Callable[[House], Awaitable[None]], with_bucket: bool = True, **limits: Any) -> None:
        async def within() -> None:
            redis = Redis(unix_socket_path=engine.path, timeout=5)
            await redis.flushall()
            house = House(redis, folder / "files", s3 if with_bucket else None, servers, **limits)
            try:
                await test(house)
                assert not list((folder / "files" / "drafts").iterdir())
            finally:
                await house.close()
                await redis.aclose()

        asyncio.run(within())

    return run


@pytest.fixture
def run_on_disk(engine: Engine, tmp_path: Path, bucket: S3Server) -> Run:
    return runs(engine, tmp_path, reach(bucket, prefix=tmp_path.name))


@pytest.fixture
def run_on_servers(engine: Engine, tmp_path: Path, bucket: S3Server, servers: list[fileservers.FileServer]) -> Run:
    s3 = reach(bucket, prefix=PREFIX)

    async def empty() -> None:
        await s3.delete([each.name async for each in s3.list()])

    asyncio.run(empty())
    for server in servers:
        server.wipe()
    return runs(engine, tmp_path, s3, servers)


@pytest.fixture(params=["disk", "servers"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.getfixturevalue(f"run_on_{request.param}")


async def read(files: Files, user: str, file: File, *part: int) -> bytes:
    return b"".join([piece async for piece in files.read(user, file, *part)])


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


def test_durable_means_in_s3(run, bucket: S3Server) -> None:
    async def test(house: House) -> None:
        file = await house.files.put(ANN, "a", b"safe")
        assert await house.objects() == [f"files/{ANN}/{file.blobs[0][0]}"]
        await house.files.put(ANN, "b", b"safe")  # the same content
        assert len(await house.objects()) == 1
        bucket.stop()
        try:
            with pytest.raises(S3Unreachable):
                await house.files.put(ANN, "c", b"not safe")
            assert len(await house.files.list(ANN)) == 2 and len(house.contents()) == 1
        finally:
            bucket.start()

    run(test, durable="s3")


def test_s3_away_refuses_nothing_and_loses_nothing(run, bucket: S3Server) -> None:
    async def test(house: House) -> None:
        carrying = asyncio.create_task(house.files.courier.run())
        try:
            await house.files.put(ANN, "0", b"before")
            bucket.stop()
            for number in range(1, 100):
                await house.files.put(ANN, str(number), b"%d" % number)
            await asyncio.sleep(2)
            bucket.start()
            async with asyncio.timeout(60):
                while len(await house.objects("files")) < 100:
                    await asyncio.sleep(0.2)
        finally:
            carrying.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await carrying
        assert house.said.count("s3.failed") >= 1

    run(test)


def test_moves_cut_anywhere_are_done_at_last(run) -> None:
    """The courier's steps, each of which fails once."""

    async def test(house: House) -> None:
        s3 = house.s3
        assert s3 is not None
        file = await house.files.put(ANN, "a", b"content")
        blob, _ = file.blobs[0]
        for change in (None, lambda: house.files.delete(ANN, "a"), lambda: house.files.undelete(ANN, file.id)):
            if change:
                await change()
            for step in ("put", "copy", "delete"):
                whole = getattr(s3, step)

                async def cut(*given: object, whole=whole) -> None:
                    await whole(*given)
                    raise S3Unreachable("cut after it was done")

                setattr(s3, step, cut)
                await house.files.courier.turn()
                setattr(s3, step, whole)
                await house.redis.zadd(f"moves:{{ann}}{ANN[3:]}", {blob: 0}, xx=True)
            await house.settle()
            folder = "trash" if change and not await house.files.list(ANN) else "files"
            assert await house.objects() == [f"{folder}/{ANN}/{blob}"]

    run(test)


def test_who_moves_a_blob_is_alone_with_it(run: Run) -> None:
    """What changes meanwhile is nobody else's to move: a slower one would delete what the faster one has brought."""

    async def test(house: House) -> None:
        catalog = house.files.catalog
        file = await house.files.put(ANN, "a", b"content")
        (blob,) = (await catalog.claim(ANN, 10)).blobs
        await house.files.delete(ANN, "a")
        await house.files.undelete(ANN, file.id)
        await house.files.delete(ANN, "a")
        assert (await catalog.claim(ANN, 10)).blobs == []
        await catalog.moved(ANN, blob, *await house.files.courier.bring(ANN, blob))
        (again,) = (await catalog.claim(ANN, 10)).blobs
        assert (again.where, again.belongs) == ("files", "trash")
        await catalog.moved(ANN, again, *await house.files.courier.bring(ANN, again))
        assert await house.objects() == [f"trash/{ANN}/{blob.id}"]

    run(test)


MOVER = """
import asyncio, pathlib, sys
from backlore.clients.disk import Disk
from backlore.clients.redis.client import Redis
from backlore.core.notify import Notify
from backlore.core.schema import FilesConfig
from backlore.services.files import catalog
from backlore.services.files.files import Files
catalog.CLAIMED = 1_000_000
class Stuck:
    async def put(self, name, content):
        print("began", flush=True)
        await asyncio.sleep(1000)
socket, folder = sys.argv[1:]
disk, config = Disk(pathlib.Path(folder)), FilesConfig(quota=1, trash=1)
files = Files(Redis(unix_socket_path=socket), Notify(), disk, Stuck(), config)
asyncio.run(files.run())
"""


def test_moves_of_a_killed_process_go_on_soon(run_on_disk, engine: Engine) -> None:
    """When its claim has ended, which lasts as long as it lives."""

    async def test(house: House) -> None:
        file = await house.files.put(ANN, "a", b"content")
        command = [sys.executable, "-c", MOVER, engine.path, str(house.disk.folder)]
        other = await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.PIPE)
        assert other.stdout and await asyncio.to_thread(other.stdout.readline) == b"began\n"
        other.kill()
        await asyncio.to_thread(other.wait)
        async with asyncio.timeout(30):
            while not await house.files.courier.turn():
                await asyncio.sleep(0.01)
        assert await house.objects() == [f"files/{ANN}/{file.blobs[0][0]}"]

    run_on_disk(test)
    assert LASTS < 25  # and not the second that the test has it last


def test_a_slow_move_stays_claimed(run_on_disk, monkeypatch) -> None:
    """For longer than a claim lasts."""
    monkeypatch.setattr(agenda, "LASTS", 2.0)
    monkeypatch.setattr(agenda, "CLAIMED", 2_000_000)
    monkeypatch.setattr(catalogs, "CLAIMED", 2_000_000)

    async def test(house: House) -> None:
        assert house.s3
        await house.files.put(ANN, "a", b"content")
        put, puts, done = house.s3.put, [], asyncio.Event()

        async def slow(name: str, content: bytes | Path) -> None:
            puts.append(name)
            await asyncio.sleep(6)
            await put(name, content)
            done.set()

        monkeypatch.setattr(house.s3, "put", slow)
        others = [
            Files(house.redis, house.notify, house.disk, house.s3, FilesConfig(quota=1, trash=1)) for _ in range(2)
        ]
        running = [asyncio.create_task(each.run()) for each in others]
        await done.wait()
        for each in running:
            each.cancel()
        await asyncio.wait(running)
        assert len(puts) == 1

    run_on_disk(test)


BROKEN = [
    ("trash", "{"),
    ("trash", '{"blobs": 7}'),
    ("trash", b"\xff"),
    ("blob", {"size": "many"}),
    ("blob", {"live": ""}),
]


@pytest.mark.parametrize(("kind", "record"), BROKEN)
def test_a_move_that_cannot_be_read_is_set_aside(run_on_disk, kind: str, record: Any) -> None:
    """Told once, to be seen, and in nobody's way, not even its user's; when it can be read, it is done."""

    async def test(house: House) -> None:
        redis, files = house.redis, house.files
        odd = await files.put(ANN, "a", b"odd")
        await files.delete(ANN, "a")
        place, move = key("blob", ANN, odd.blobs[0][0]), odd.blobs[0][0]
        if kind == "trash":
            await house.settle()
            place, move = key("trash", ANN), f"~{odd.id}"
            await redis.zadd(key("moves", ANN), {move: 0})
        kept = await redis.hgetall(place)
        await redis.hset(place, mapping={odd.id: record} if kind == "trash" else record)
        ours, others = await files.put(ANN, "b", b"ours"), await files.put(BOB, "b", b"others'")
        await house.settle()
        names = [f"files/{user}/{file.blobs[0][0]}" for user, file in ((ANN, ours), (BOB, others))]
        assert set(names) <= set(await house.objects())
        assert await set_aside(redis) == [("move", f"{ANN} {move}")]
        if kind == "trash":
            assert await files.trash(ANN) == [] and await files.catalog.find_dead(ANN, odd.id) is None
        await redis.hset(place, mapping=kept)
        await redis.zadd(key("moves", ANN), {move: 0})
        await redis.zadd(EVERYBODY, {ANN: 0})
        while await redis.zscore(key("moves", ANN), move) is not None:
            await files.courier.turn()
        assert house.said.count("aside") == 1

    run_on_disk(test)


def test_a_move_that_redis_does_not_take_now_waits_for_redis_alone(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not ten minutes, as one that fails by itself."""

    async def test(house: House) -> None:
        catalog, claim = house.files.catalog, house.files.catalog.claim

        async def refuse(*_: Any) -> None:
            monkeypatch.setattr(catalog, "claim", claim)
            raise Unready("NOREPLICAS Not enough good replicas to write.")

        await house.files.put(ANN, "a", b"a")
        monkeypatch.setattr(catalog, "claim", refuse)
        with pytest.raises(Unready):
            await house.files.courier.turn()
        assert await house.files.courier.turn() == 1

    runs(engine, tmp_path, None)(test, with_bucket=False)


UNREADABLE = [
    "garbage",
    "7",
    '{"v": 2, "id": "odd"}',
    '{"id":"odd","name":"odd","type":"t","size":1,"hash":"","created":1,"changed":1,"blobs":{"b":1}}',
    '{"id":"odd","name":"odd","type":"t","size":1,"hash":"","created":1,"changed":1,"blobs":[["b"]]}',
    '{"id":"odd","name":"odd","type":"t","size":1,"hash":"","created":1,"changed":1,"blobs":[["%s",1]]}' % ("o" * 26),
]  # of the last one it is its blob


@pytest.mark.parametrize("text", UNREADABLE)
def test_what_cannot_be_read_stays_until_its_owner_goes(engine: Engine, tmp_path: Path, text: str) -> None:
    """No step stops halfway at it: it is in the way of its own name alone, and of no erasure."""

    async def test(house: House) -> None:
        redis, files = house.redis, house.files
        await redis.hset(key("blob", ANN, "o" * 26), mapping={"size": "many", "hash": "odd"})
        await redis.hset(key("files", ANN), "odd", text)
        await redis.zadd(key("newest", ANN), {"odd": 1})
        await redis.hset(key("trash", ANN), "dead", text)
        await redis.zadd(key("trashed", ANN), {"dead": 1})
        kinds = ("files", "newest", "trash", "trashed")
        before = [await redis.dump(key(kind, ANN)) for kind in kinds]
        for act in (
            lambda: files.put(ANN, "odd", b"new"),
            lambda: files.put(ANN, "odd", b"new", "*"),
            lambda: files.delete(ANN, "odd"),
            lambda: files.undelete(ANN, "dead"),
        ):
            with pytest.raises((Exists, NoFile)):
                await act()
        if text != UNREADABLE[-1]:  # else another blob begins behind the odd one
            with pytest.raises(Exists):
                await files.append(ANN, "odd", b"new")
        assert await files.erase(ANN, ["dead"]) == 0
        assert [await redis.dump(key(kind, ANN)) for kind in kinds] == before
        await files.put(ANN, "beside", b"new")
        await asyncio.wait_for(files.wipe(ANN), 10)
        assert not await redis.exists(*(key(kind, ANN) for kind in (*kinds, "usage")))

    runs(engine, tmp_path, None)(test, with_bucket=False)


def test_full_disk(run_on_disk) -> None:
    async def test(house: House) -> None:
        house.disk._free = 1 << 60  # more than there is
        for refused in (house.files.put(ANN, "a", b"a"), house.files.append(ANN, "b", b"b")):
            with pytest.raises(OSError) as error:
                await refused
            assert error.value.errno == errno.ENOSPC
        assert not house.contents() and not await house.files.list(ANN)

    run_on_disk(test)


def test_s3_refusals(bucket: S3Server) -> None:
    async def test() -> None:
        with pytest.raises(S3Missing):
            await reach(bucket).head("nosuch")
        with pytest.raises(S3Missing):
            [piece async for piece in reach(bucket).get("nosuch")]
        with pytest.raises(S3Refused) as error:
            await reach(bucket, secret_key="a wrong secret").put("a", b"a")
        assert "a wrong secret" not in str(error.value) and "Signature" not in str(error.value)

    asyncio.run(test())


NAMES = [
    "a",
    "é",
    "日本/語.txt",
    "a b",
    "CON",
    "aux.txt",
    "x" * 127 + "." + "y" * 127,
    "-rf",
    "a\u200db",
    "😀",
    ".hidden",
]
BAD = [
    "",
    "/",
    "a//b",
    "..",
    "a/../b",
    ".",
    "...",
    "a/. .",
    "a\0b",
    "a\nb",
    "x" * 256,
    "\u202egpj.exe",
    "a\\b",
    "a/",
    " ",
]
BAD += ["\u200f", "é" * 128, "\x7f", "\x85"]


def test_names(run) -> None:
    for name in NAMES:
        assert clean(name) == name
    assert clean("e\u0301") == "é"
    for name in BAD:
        with pytest.raises(BadName):
            clean(name)

    async def test(house: House) -> None:
        for name in NAMES:
            await house.files.put(ANN, name, name.encode())
        for name in NAMES:
            assert await read(house.files, ANN, await house.files.find(ANN, name)) == name.encode()

    run(test)


@pytest.mark.parametrize(
    ("head", "name", "kind", "shown"),
    [
        (b"\x89PNG\r\n\x1a\n....", "a.png", "image/png", True),
        (b"\x89PNG\r\n\x1a\n....", "a.html", "image/png", True),
        (b"<script>alert(1)</script>", "a.png", "application/octet-stream", False),
        (b"<html>", "a.html", "text/html", False),
        (b"<svg xmlns=''>", "a.svg", "image/svg+xml", False),
        (b"plain", "a.txt", "text/plain", True),
        (b"plain", "LICENSE", "text/plain", True),
        (b"\0\1\2", "a.txt", "text/plain", True),
        (b"\0\1\2", "thing", "application/octet-stream", False),
        (b"%PDF-1.7", "a.pdf", "application/pdf", False),
        (b"", "a", "application/octet-stream", False),
        (b"\xff\xd8\xff\xe0", "a", "image/jpeg", True),
    ],
)
def test_types(head: bytes, name: str, kind: str, shown: bool) -> None:
    assert (sniff(head, name), is_shown(kind)) == (kind, shown)
