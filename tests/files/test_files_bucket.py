"""Files while S3 is away, sick, slow or lying: real uploads, a real S3 server, and a proxy between them that harms."""

import asyncio
import hashlib
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from backlore.clients import s3 as s3_module
from backlore.clients.redis.client import Redis
from backlore.clients.s3 import S3, S3Error
from backlore.core.keys import key
from backlore.services.files import courier as courier_module
from backlore.services.storage.store import Lost
from tests.conftest import KEEPING, Server, User
from tests.kit.buckets import BUCKET, KEYS, S3Server
from tests.kit.engines import Engine
from tests.kit.houses import ANN, House, read
from tests.kit.proxy import Proxy
from tests.kit.waiting import until

UPLOADS = 1000
CLIENTS = 8


@pytest.fixture
def proxy(bucket: S3Server) -> Iterator[Proxy]:
    with Proxy(bucket.endpoint) as made:
        yield made


def with_bucket(folder: Path, endpoint: str, prefix: str) -> Server:
    """A server whose files go to S3."""
    settings = {"bucket": {"name": BUCKET, "endpoint": endpoint, "prefix": prefix}}
    server = Server(KEEPING, folder, settings=settings)
    (server.folder / "secret.py").write_text(f"SECRET = { ({'cookie': 'c' * 40} | KEYS)!r}")
    return server


def open_s3(endpoint: str, prefix: str) -> S3:
    keys = {"access_key": KEYS["s3_key"], "secret_key": KEYS["s3_secret"]}
    return S3(BUCKET, endpoint=endpoint, prefix=prefix, **keys)


async def hashes(s3: S3) -> Counter[str]:
    """Of all objects among the files."""
    names = [each.name async for each in s3.list("files")]
    found: Counter[str] = Counter()
    for name in names:
        found[hashlib.sha256(b"".join([piece async for piece in s3.get(name)])).hexdigest()] += 1
    return found


def test_s3_stopped_in_the_middle_of_uploads(tmp_path: Path, bucket: S3Server) -> None:
    """A thousand uploads, and S3 away for a minute from the third hundred on: none is refused, none is lost."""
    server = with_bucket(tmp_path, bucket.endpoint, "stopped")
    done = Counter[int]()
    acknowledged = Counter[str]()
    lock = threading.Lock()
    changes: list[Future[object]] = []

    def be_away() -> None:
        bucket.stop()
        time.sleep(60)
        bucket.start()

    def upload(number: int) -> None:
        content = b"%d " % number + os.urandom(2000)
        user = users[number % CLIENTS]
        got = user.post("/files", files={"file": ("f", content)}, data={"name": f"n{number}"})
        with lock:
            done[got.status_code] += 1
            acknowledged[hashlib.sha256(content).hexdigest()] += 1
            count = done.total()
        if count == 300:
            changes.append(changer.submit(be_away))

    try:
        server.start()
        users = [User(server, f"u{number}@example.com").sign_up() for number in range(CLIENTS)]
        with ThreadPoolExecutor(CLIENTS) as pool, ThreadPoolExecutor(1) as changer:
            list(pool.map(upload, range(UPLOADS)))
            assert done == {200: UPLOADS}
            changes[0].result(120)
        server.wait_said("s3.failed")
        server.wait_said("s3.works", 60)
        s3 = open_s3(bucket.endpoint, "stopped")

        async def count() -> int:
            return len([each async for each in s3.list("files")])

        until(lambda: asyncio.run(count()) == UPLOADS, 60)
        assert asyncio.run(hashes(s3)) == acknowledged
        server.stop()
        # and with all that is on the disk gone, it comes back by use
        shutil.rmtree(server.data / "files")
        server.log.write_text("")
        server.start()
        for user in users[:2]:
            for file in user.get("/files", params={"limit": 20}).json()["files"]:
                got = user.get(f"/files/content/{file['name']}")
                assert got.status_code == 200 and hashlib.sha256(got.content).hexdigest() == file["hash"]
        server.stop()
    finally:
        server.kill()
        if bucket.process.poll() is not None:
            bucket.start()


@pytest.fixture
def run(
    engine: Engine, tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[House], Awaitable[None]]], None]:
    """Runs a test's coroutine with files whose S3 is behind the proxy, and whose patience is short."""
    for name, seconds in (("TRY", 1.5), ("LATEST_RETRY", 2)):
        monkeypatch.setattr(s3_module, name, s3_module.timedelta(seconds=seconds))
    monkeypatch.setattr(courier_module, "LONGEST", 0.5)

    def runs(test: Callable[[House], Awaitable[None]]) -> None:
        async def within() -> None:
            redis = Redis(unix_socket_path=engine.path, timeout=5)
            await redis.flushall()
            house = House(redis, tmp_path / "files", open_s3(proxy.endpoint, tmp_path.name), quota=1 << 30)
            try:
                await test(house)
            finally:
                house.disk.close()
                await redis.aclose()

        asyncio.run(within())

    return runs


SMALL, LARGE = os.urandom(100_000), os.urandom((8 << 20) + 1000)  # one request; parts


async def carry(house: House, until: Callable[[], Awaitable[bool]]) -> None:
    """Let the courier work until something is so."""
    for each in await house.redis.zrange(key("moves", ANN), 0, -1):
        await house.redis.zadd(key("moves", ANN), {each: 0}, xx=True)  # of leases that were cut
    running = asyncio.create_task(house.files.courier.run())
    try:
        async with asyncio.timeout(30):
            while not await until():
                await asyncio.sleep(0.05)
    finally:
        running.cancel()
        await asyncio.wait([running])


@pytest.mark.parametrize("mode", ["500 PUT", "503 PUT", "403 PUT", "cut PUT", "flip PUT", "hang PUT", "500 POST"])
def test_what_does_not_reach_s3_whole_is_brought_again(run, proxy: Proxy, bucket: S3Server, mode: str) -> None:
    """Until it is right; there never is a wrong object, and the user sees nothing of all that."""

    async def test(house: House) -> None:
        proxy.mode = mode
        contents = {"small": SMALL, "large": LARGE}
        for name, content in contents.items():
            await house.files.put(ANN, name, content)
        await carry(house, lambda: asyncio.sleep(0, "s3.failed" in house.said and proxy.met[mode] > 1))
        right = {hashlib.sha256(content).hexdigest() for content in contents.values()}
        s3 = open_s3(bucket.endpoint, house.disk.folder.parent.name)
        assert set(await hashes(s3)) <= right
        for name, content in contents.items():
            assert await read(house.files, ANN, await house.files.find(ANN, name)) == content
        proxy.mode = ""
        proxy.released.set()

        async def is_right() -> bool:
            return set(await hashes(s3)) == right

        await carry(house, is_right)

    run(test)


@pytest.mark.parametrize("mode", ["500 GET", "503 GET", "cut GET", "flip GET", "hang GET", "slow GET"])
def test_what_does_not_come_back_whole_is_not_served(run, proxy: Proxy, mode: str) -> None:
    async def test(house: House) -> None:
        for name, content in (("small", SMALL), ("large", LARGE)):
            file = await house.files.put(ANN, name, content)
            await house.settle()
            await house.disk.delete(file.blobs[0][0])
            proxy.mode = mode
            try:
                async with asyncio.timeout(20):
                    got = await read(house.files, ANN, file)
            except (Lost, S3Error) as error:
                assert mode != "slow GET", error
                got = b""
            assert proxy.met[mode] and got in (b"", content)
            assert mode != "flip GET" or (got == b"" and "files.damaged" in house.said)
            assert bool(house.contents()) == bool(got)
            proxy.mode = ""
            proxy.released.set()
            assert await read(house.files, ANN, file) == content
            await house.disk.delete(file.blobs[0][0])
            assert not list(house.disk.folder.glob("drafts/*"))

    run(test)
