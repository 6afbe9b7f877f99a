"""Moves to S3 and back: cut anywhere they are done at last, and what cannot be read is in nobody's way."""

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backlore.clients.redis import agenda
from backlore.clients.redis.aside import set_aside
from backlore.clients.redis.errors import Unready
from backlore.clients.redis.lease import LASTS
from backlore.clients.s3 import S3Missing, S3Refused, S3Unreachable
from backlore.core.keys import key
from backlore.core.schema import FilesConfig
from backlore.services.files import catalog as catalogs
from backlore.services.files.catalog import EVERYBODY, Exists, NoFile
from backlore.services.files.files import Files
from tests.kit.buckets import S3Server
from tests.kit.engines import Engine
from tests.kit.houses import ANN, BOB, House, Run, reach, runs


@pytest.fixture(params=["disk", "servers"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.getfixturevalue(f"run_on_{request.param}")


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
