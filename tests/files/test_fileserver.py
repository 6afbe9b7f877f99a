"""File servers: real processes, really killed, below nodes that keep nothing."""

import asyncio
import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from backlore.clients import fileserver
from backlore.clients.disk import Disk
from backlore.clients.fileserver import FileServerUnreachable
from backlore.clients.redis.client import Redis
from backlore.core.crypto import random_text
from backlore.core.notify import Notify
from backlore.services.files.allowance import Allowance
from backlore.services.files.append import Appender
from backlore.services.files.catalog import Catalog, Changed, File
from backlore.services.storage.remote import RemoteStore, order
from backlore.services.storage.store import Away, Lost
from tests.conftest import KEEPING, ROOT, Server, User
from tests.files.test_files import ANN, House, reach, read
from tests.kit.buckets import S3Server
from tests.kit.engines import Engine
from tests.kit.fileservers import TOKEN, FileServer, file_servers, write_secret

LOCK = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """A file server without S3."""
    with file_servers(tmp_path_factory.mktemp("alone"), 1) as (server,):
        yield server


@contextlib.asynccontextmanager
async def living(engine: Engine, folder: Path, s3: Any, servers: list[FileServer], **limits: Any) -> Any:
    """A node's files, on an empty redis."""
    redis = Redis(unix_socket_path=engine.path, timeout=5)
    await redis.flushall()
    house = House(redis, folder / "node", s3, servers, **limits)
    try:
        yield house
    finally:
        await house.close()
        await redis.aclose()


def blobs(number: int) -> list[str]:
    return [random_text(128) for _ in range(number)]


def test_one_more_server_takes_its_share_and_nothing_else_moves() -> None:
    servers = [f"http://10.0.0.{number}:8001" for number in range(1, 10)]
    names = blobs(20_000)
    for count in (1, 2, 4, 8):
        before = [servers[order(servers[:count], name)[0]] for name in names]
        after = [servers[order(servers[: count + 1], name)[0]] for name in names]
        moved = [new for old, new in zip(before, after, strict=True) if old != new]
        assert set(moved) == {servers[count]}
        share = len(moved) / len(names)
        assert abs(share - 1 / (count + 1)) < 0.02, share
    # the order of the others stays too, wherever a server stands in the list
    for name in names[:100]:
        whole = [servers[place] for place in order(servers, name)]
        less = [each for each in servers if each != servers[4]]
        assert [less[place] for place in order(less, name)] == [each for each in whole if each != servers[4]]


def test_locked(alone: FileServer) -> None:
    """Without the token there is nothing to be had or learnt, by any route."""
    blob, wrong = "lockedcontent", "a wrong token that is as long as the"
    hash = hashlib.sha256(b"secret content").hexdigest()
    with httpx.Client(base_url=alone.url) as client:
        kept = client.put(
            f"/contents/{blob}", params={"size": 14, "hash": hash}, content=b"secret content", headers=LOCK
        )
        assert kept.json() == {}, kept.text
        routes = [
            ("GET", "/health"),
            ("GET", "/contents"),
            ("GET", f"/contents/{blob}"),
            ("HEAD", f"/contents/{blob}"),
            ("PUT", f"/contents/{blob}?size=1&hash="),
            ("POST", f"/contents/{blob}/append?at=0"),
            ("POST", f"/contents/{blob}/push"),
            ("DELETE", f"/contents/{blob}"),
            ("DELETE", "/contents/nosuchcontent"),
        ]
        keys: list[dict[str, str]] = [{}, {"authorization": f"Bearer {wrong}"}, {"authorization": "Bearer"}]
        keys += [{"authorization": f"Basic {TOKEN}"}, {"authorization": TOKEN}, {"cookie": f"token={TOKEN}"}]
        for method, path in routes:
            for key in keys:
                got = client.request(method, path, headers=key)
                assert got.status_code == 403
                assert method == "HEAD" or got.json() == {"error": "token"}
                assert "etag" not in got.headers
        assert client.get(f"/contents/{blob}", headers=LOCK).content == b"secret content"
    said = alone.wait_said("files.token")
    assert wrong not in said and TOKEN not in said and "secret content" not in said


def test_contents_over_http(alone: FileServer) -> None:
    with httpx.Client(base_url=alone.url, headers=LOCK) as client:

        def put(blob: str, content: bytes, **said: Any) -> httpx.Response:
            given = {"size": len(content), "hash": hashlib.sha256(content).hexdigest(), **said}
            return client.put(f"/contents/{blob}", params=given, content=content)

        def append(blob: str, at: int, data: bytes) -> httpx.Response:
            return client.post(f"/contents/{blob}/append", params={"at": at}, content=data)

        content = os.urandom(3 << 20)
        assert put("contentone", content).json() == {} == put("contentone", content).json()
        for wrong in ({"size": 5}, {"hash": "0" * 64}):
            assert put("contenttwo", content, **wrong).json() == {"error": "hash"}
        assert client.get("/contents/contenttwo").json() == {"error": "content"}
        assert client.get("/contents/contentone").content == content
        part = client.get("/contents/contentone", params={"size": 1000}, headers={"range": "bytes=990-2000"})
        assert (part.status_code, part.content) == (206, content[990:1000])
        assert client.get("/contents/contentone", params={"size": len(content) + 1}).status_code == 404
        assert append("contentone", len(content), b"more").json() == {"error": "misplaced"}  # it came whole
        assert append("growing0", 1, b"x").json() == {"error": "misplaced"}
        assert append("growing0", 0, b"one").json() == {}
        for at in (0, 2, 4):
            assert append("growing0", at, b"x").json() == {"error": "misplaced"}
        assert append("growing0", 3, b" two").json() == {}
        assert client.get("/contents/growing0").content == b"one two"
        assert append("growing1", 0, bytes((8 << 20) + 1)).json() == {"error": "size"}
        for length in (1000, 2000, 1500):  # of what is alike the longest stays
            assert put("contentfour", content[:length]).json() == {}
        assert client.get("/contents/contentfour").content == content[:2000]
        for name in ("../../../etc/passwd", "..%2f..%2flock", "Contentone", "short", "contentone%00", "x" * 65):
            assert client.get(f"/contents/{name}").status_code == 404
        assert client.delete("/contents/growing0").json() == {} == client.delete("/contents/growing0").json()
        assert client.get("/contents/growing0").status_code == 404
        assert client.post("/contents/contentone/push", params={}).status_code == 400
        assert not list((alone.data / "files" / "drafts").iterdir())


def test_all_names_page_by_page(engine: Engine, alone: FileServer, tmp_path: Path) -> None:
    made = set(blobs(2500))
    for name in made:
        alone.path(name).parent.mkdir(exist_ok=True)
        alone.path(name).write_bytes(b"12345")

    async def test() -> None:
        async with living(engine, tmp_path, None, [alone]) as house:
            found = [each async for each in house.store.servers[0].names()]
            assert [each.name for each in found] == sorted(alone.names())
            assert all(each.size == 5 and each.age < 3600 for each in found if each.name in made)

    asyncio.run(test())
    alone.wipe()


def node(folder: Path, servers: list[FileServer], bucket: dict[str, Any] | None = None, **files: Any) -> Server:
    """An application whose configuration names file servers, and no more."""
    settings = {"files": {"free": 0, "servers": [each.url for each in servers], **files}, "bucket": bucket}
    server = Server(KEEPING, folder, workers=1, settings=settings)
    write_secret(server)
    return server


@contextlib.contextmanager
def served(server: Server) -> Iterator[Server]:
    try:
        yield server.start()
        server.stop()
    finally:
        server.kill()


def upload(user: User, name: str, content: bytes) -> httpx.Response:
    return user.post("/files", files={"file": ("f", content, "x/y")}, data={"name": name})


def test_by_configuration_alone(tmp_path: Path, bucket: S3Server) -> None:
    with file_servers(tmp_path, 2, bucket, "http") as servers:
        server = node(tmp_path / "node", servers, bucket.bucket | {"prefix": "http"})
        with served(server), User(server, "ann@example.com") as ann:
            ann.sign_up()
            content = os.urandom(2 << 20)
            first = upload(ann, "a", content).json()
            assert first["hash"] == hashlib.sha256(content).hexdigest()
            assert ann.get("/files/content/a").content == content
            part = ann.get("/files/content/a", headers={"range": "bytes=1000-1999"})
            assert (part.status_code, part.content) == (206, content[1000:2000])
            several = ann.get("/files/content/a", headers={"range": "bytes=0-0,-1"})
            assert several.status_code == 206 and several.headers["content-type"].startswith("multipart/")
            assert upload(ann, "a", b"second").status_code == 200
            assert ann.get("/files/content/a").content == b"second"
            assert upload(ann, "same", b"second").status_code == 200
            assert ann.post("/files/undelete", json={"id": first["id"], "name": "b"}).status_code == 200
            assert ann.get("/files/content/b").content == content
            assert ann.post("/files/delete", json={"name": "b"}).json() == {"id": first["id"]}
            assert ann.get("/files/content/b").status_code == 404
            assert servers[0].names() == servers[1].names() and len(servers[0].names()) == 2
            assert not list((server.data / "files" / "contents").iterdir())
            assert not list((server.data / "files" / "drafts").iterdir())
            s3 = reach(bucket, prefix="http")
            assert asyncio.run(until(s3, {"files": 1, "trash": 1}))
            assert ann.post("/files/erase", json={"ids": [first["id"]]}).json() == {"erased": 1}
            assert asyncio.run(until(s3, {"files": 1, "trash": 0}))
            deadline = time.monotonic() + 30  # the servers' copies go after that of S3
            while not len(servers[0].names()) == len(servers[1].names()) == 1:
                assert time.monotonic() < deadline, [each.names() for each in servers]
                time.sleep(0.05)


async def until(s3: Any, counts: dict[str, int]) -> bool:
    """Wait until S3 has so many objects in these folders."""
    async with asyncio.timeout(30):
        while {folder: len([each async for each in s3.list(folder)]) for folder in counts} != counts:
            await asyncio.sleep(0.1)
    return True


def test_a_server_killed_in_the_middle_of_uploads(tmp_path: Path) -> None:
    """None is refused and none is lost, and with it gone all are read; without any server: 503, and nothing is kept."""
    with file_servers(tmp_path, 3) as servers:
        server = node(tmp_path / "node", servers)
        with served(server), User(server, "ann@example.com") as ann:
            ann.sign_up()
            contents = {f"{number}": f"content {number} ".encode() * (number * 7 + 1) for number in range(200)}
            refused = []

            def send(name: str) -> None:
                if name == "60":
                    servers[1].kill()
                got = upload(ann, name, contents[name])
                if got.status_code != 200:
                    refused.append((name, got.status_code, got.text))

            with ThreadPoolExecutor(8) as threads:
                list(threads.map(send, contents))
            assert not refused
            server.wait_said("fileserver.away")
            for name, content in contents.items():
                assert ann.get(f"/files/content/{name}").content == content
            left = servers[0].names() & servers[2].names()
            assert len(left) > 100  # what came after the kill has its two copies on those that are left
            servers[1].start()
            server.wait_said("fileserver.back")
            servers[0].kill()  # another one: each content has a copy that is left
            for name, content in contents.items():
                assert ann.get(f"/files/content/{name}").content == content
            servers[1].kill()
            servers[2].kill()
            got = upload(ann, "none", b"never acknowledged")
            assert (got.status_code, got.json()) == (503, {"error": "unavailable"}) and got.headers["retry-after"]
            assert ann.get("/files/content/0").status_code == 503
            assert ann.get("/files/content/none").status_code == 404
            servers[0].start()
            servers[2].start()
            until = time.monotonic() + 30
            while upload(ann, "none", b"again").status_code != 200:
                assert time.monotonic() < until
            assert ann.get("/files/content/none").content == b"again"


def test_a_wiped_disk(engine: Engine, tmp_path: Path, bucket: S3Server) -> None:
    """Everything is read again: from the sibling, without one from S3."""

    async def test(servers: list[FileServer]) -> None:
        s3 = reach(bucket, prefix="wiped")
        async with living(engine, tmp_path, s3, servers) as house:
            kept = {f"{number}": os.urandom(1000 + number) for number in range(40)}
            files = {name: await house.files.put(ANN, name, content) for name, content in kept.items()}
            grown = await house.files.append(ANN, "log", b"line\n" * 100)
            assert servers[0].names() == servers[1].names() and len(servers[0].names()) == 41
            servers[0].wipe()
            for name, content in kept.items():
                assert await read(house.files, ANN, files[name]) == content
            assert not servers[0].names()  # nobody fetched what a sibling has
            await house.settle()
            servers[1].wipe()
            for name, content in kept.items():
                assert await read(house.files, ANN, files[name]) == content
            assert await read(house.files, ANN, grown) == b"line\n" * 100
            assert len(servers[0].names() | servers[1].names()) == 41
            # what is in neither is lost, and is said to be; while a server is away nothing is said to be lost
            lost = files["7"].blobs[0][0]
            house.lose(lost)
            await s3.delete([f"files/{ANN}/{lost}"])
            with pytest.raises(Lost):
                await read(house.files, ANN, files["7"])
            servers[0].kill()
            with pytest.raises(Away):
                await read(house.files, ANN, files["7"])
            # with a server away and the contents of the other gone: from S3
            servers[1].wipe()
            assert await read(house.files, ANN, files["8"]) == kept["8"]

    with file_servers(tmp_path, 2, bucket, "wiped") as servers:
        asyncio.run(test(servers))


def test_a_third_server_comes_and_the_first_goes(engine: Engine, tmp_path: Path, bucket: S3Server) -> None:
    async def test(servers: list[FileServer]) -> None:
        s3 = reach(bucket, prefix="third")
        async with living(engine, tmp_path, s3, servers[:2]) as house:
            files = {number: await house.files.put(ANN, f"{number}", b"%d" % number * 50) for number in range(200)}
            await house.settle()
        redis = Redis(unix_socket_path=engine.path, timeout=5)
        wider = House(redis, tmp_path / "node", s3, servers)
        for number, file in files.items():
            assert await read(wider.files, ANN, file) == b"%d" % number * 50
        urls = [each.url for each in servers]
        homes = [order(urls, file.blobs[0][0])[0] for file in files.values()]
        assert 34 < homes.count(2) < 100, homes.count(2)  # a third of 200, within five standard deviations
        more = {number: await wider.files.put(ANN, f"{number}", b"%d" % number * 50) for number in range(200, 260)}
        assert 20 < len(servers[2].names()) < 60  # two of three copies
        await wider.settle()
        await wider.close()
        # what only the first two have, after the first was taken away
        narrow = House(redis, tmp_path / "node", s3, servers[1:])
        servers[0].kill()
        for number, file in (files | more).items():
            assert await read(narrow.files, ANN, file) == b"%d" % number * 50
        await narrow.close()
        await redis.aclose()

    with file_servers(tmp_path, 3, bucket, "third") as servers:
        asyncio.run(test(servers))


def spread(folder: Path, servers: list[FileServer], *words: str) -> str:
    """What the command says, for an application with these servers."""
    app = node(folder, servers)
    command = [sys.executable, "-m", "backlore.cli", "files", "spread", "--app", str(app.folder)]
    done = subprocess.run([*command, "--data", str(app.data), *words], capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def test_spread(engine: Engine, tmp_path: Path) -> None:
    """Without S3: a third server gets its share, and one goes after it has given its own away."""

    async def test(servers: list[FileServer]) -> None:
        def grow_old() -> None:
            for path in tmp_path.glob("server*/data/files/contents/*/*"):
                os.utime(path, (0, 0))

        def check(among: list[FileServer]) -> None:
            urls = [each.url for each in among]
            for blob in blobs:
                homes = {among[place] for place in order(urls, blob)[:2]}
                assert {each for each in servers if blob in each.names()} == homes

        async with living(engine, tmp_path, None, servers[:2]) as house:
            files = {number: await house.files.put(ANN, f"{number}", b"%d" % number * 50) for number in range(80)}
            files[80] = await house.files.put(ANN, "empty", b"")
            log = await house.files.append(ANN, "log", b"one\n")
            blobs = [file.blobs[0][0] for file in (*files.values(), log)]
            said = await asyncio.to_thread(spread, tmp_path / "young", servers, "--trim")
            assert said.startswith("82 contents: 0 copies made, 0 taken away; 82 changed just now"), said
            grow_old()
            said = await asyncio.to_thread(spread, tmp_path / "wide", servers, "--trim")
            moved = sum(servers[2].path(blob).exists() for blob in blobs)
            assert said == f"82 contents: {moved} copies made, {moved} taken away\n" and 30 < moved < 80, said
            check(servers)
        wide = House(house.redis, tmp_path / "node", None, servers)
        log = await wide.files.append(ANN, "log", b"two\n")
        blobs.append(log.blobs[-1][0])
        await wide.close()
        longer = next(servers[0].path(blob) for blob in blobs if blob in servers[0].names())
        longer.chmod(0o644)
        longer.write_bytes(content := longer.read_bytes() + b"added, and never acknowledged")
        grow_old()
        said = await asyncio.to_thread(spread, tmp_path / "less", servers[1:], "--from", servers[0].url, "--trim")
        assert "taken away\n" in said and not servers[0].names(), said
        check(servers[1:])
        assert all(each.path(longer.name).read_bytes() == content for each in servers[1:])
        servers[0].kill()
        said = await asyncio.to_thread(spread, tmp_path / "away", servers)
        assert "Error: " in said and "must be reached" in said
        less = House(house.redis, tmp_path / "node", None, servers[1:])
        for number, file in files.items():
            assert await read(less.files, ANN, file) == (b"%d" % number * 50 if number < 80 else b"")
        log = await less.files.append(ANN, "log", b"three\n")
        assert await read(less.files, ANN, log) == b"one\ntwo\nthree\n"
        await less.close()
        await house.redis.aclose()

    with file_servers(tmp_path, 3) as servers:
        asyncio.run(test(servers))


def test_from_a_disk_to_file_servers(engine: Engine, tmp_path: Path) -> None:
    """A node's own contents are served by a file server that is started over them."""

    async def fill() -> File:
        redis = Redis(unix_socket_path=engine.path, timeout=5)
        await redis.flushall()
        house = House(redis, tmp_path / "server0" / "data" / "files", None)
        await house.files.put(ANN, "a", b"put before")
        log = await house.files.append(ANN, "log", b"one\n")
        await house.close()
        await redis.aclose()
        return log

    async def test(servers: list[FileServer]) -> None:
        redis = Redis(unix_socket_path=engine.path, timeout=5)
        house = House(redis, tmp_path / "node", None, servers)
        assert await read(house.files, ANN, await house.files.find(ANN, "a")) == b"put before"
        grown = await house.files.append(ANN, "log", b"two\n")
        assert await read(house.files, ANN, grown) == b"one\ntwo\n" and grown.blobs[:1] == log.blobs
        same = await house.files.put(ANN, "b", b"put before")
        assert same.blobs == (await house.files.find(ANN, "a")).blobs
        await house.close()
        await redis.aclose()

    log = asyncio.run(fill())
    with file_servers(tmp_path, 2) as servers:
        asyncio.run(test(servers))


def test_a_reader_goes_on_where_a_server_broke_off(engine: Engine, tmp_path: Path) -> None:
    async def test(servers: list[FileServer]) -> None:
        async with living(engine, tmp_path, None, servers, quota=1 << 30) as house:
            content = os.urandom(64 << 20)
            file = await house.files.put(ANN, "big", content)
            first = order([each.url for each in servers], file.blobs[0][0])[0]
            got, pieces = bytearray(), house.files.read(ANN, file)
            async for piece in pieces:
                got += piece
                if len(got) > 1 << 20 and servers[first].process.poll() is None:
                    servers[first].kill()
            assert got == content

    with file_servers(tmp_path, 2) as servers:
        asyncio.run(test(servers))


def test_a_server_that_hangs(engine: Engine, tmp_path: Path) -> None:
    """It takes connections and answers nothing: found out once, then nobody waits for it."""

    async def test(servers: list[FileServer]) -> None:
        async with living(engine, tmp_path, None, servers) as house:
            await house.files.put(ANN, "before", b"before")
            log = await house.files.append(ANN, "log", b"1\n")
            hanging = servers[0].workers()[0]
            hanging.send_signal(signal.SIGSTOP)
            await house.files.put(ANN, "meanwhile", b"meanwhile")
            assert house.said.count("fileserver.away") == 1
            log = await house.files.append(ANN, "log", b"2\n")
            for number in range(20):
                await house.files.put(ANN, f"{number}", b"%d" % number)
                log = await house.files.append(ANN, "log", b"%d\n" % number)
            assert len(log.blobs) == 2  # one with two homes, one with the home that is left
            assert await read(house.files, ANN, await house.files.find(ANN, "before")) == b"before"
            hanging.send_signal(signal.SIGCONT)
            async with asyncio.timeout(30):
                while "fileserver.back" not in house.said:
                    await asyncio.sleep(0.05)
            log = await house.files.append(ANN, "log", b"3\n")
            lines = [b"1", b"2", *(b"%d" % number for number in range(20)), b"3"]
            assert (await read(house.files, ANN, log)).split() == lines
            assert len(house.paths(log.blobs[-1][0])) == 2 and house.said.count("fileserver.away") == 1

    with file_servers(tmp_path, 2) as servers:
        asyncio.run(test(servers))


def test_a_node_with_a_wrong_token(engine: Engine, tmp_path: Path, alone: FileServer) -> None:
    async def test() -> None:
        async with living(engine, tmp_path, None, [alone], token="not the one of the server") as house:
            with pytest.raises(Away) as refused:
                await house.files.put(ANN, "a", b"a")
            assert "token" not in str(refused.value)
            with pytest.raises(Away):
                await house.files.append(ANN, "b", b"b")
            assert not await house.files.list(ANN) and "fileserver.away" in house.said

    asyncio.run(test())


def test_full_disks(engine: Engine, tmp_path: Path) -> None:
    """A full server is passed over; when all are, it is as with a disk of one's own."""

    async def test(servers: list[FileServer]) -> None:
        async with living(engine, tmp_path, None, servers) as house:
            for number in range(20):
                await house.files.put(ANN, f"{number}", b"%d" % number)
                await house.files.append(ANN, "log", b"%d\n" % number)
            assert not servers[0].names()
            log = await house.files.find(ANN, "log")
            assert (await read(house.files, ANN, log)).split() == [b"%d" % number for number in range(20)]
            assert len(log.blobs) < 5
        async with living(engine, tmp_path, None, servers[:1]) as house:
            for refused in (house.files.put(ANN, "a", b"a"), house.files.append(ANN, "b", b"b")):
                with pytest.raises(OSError) as error:
                    await refused
                assert error.value.errno == 28
            assert not await house.files.list(ANN)

    with file_servers(tmp_path, 2) as servers:
        servers[0].stop()
        with (servers[0].folder / "config.py").open("a") as config:
            config.write('\nCONFIG["files"]["free"] = 1 << 40\n')
        servers[0].start()
        asyncio.run(test(servers))


# What a node of its own does: adds numbered lines to one file, says which were acknowledged.
APPENDER = """
import asyncio, json, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from backlore.clients.redis.client import Redis
from tests.files.test_files import ANN, House

class At:
    def __init__(self, url): self.url = url

async def main(socket, folder, name, *urls):
    redis = Redis(unix_socket_path=socket, timeout=5)
    house = House(redis, Path(folder), None, [At(url) for url in urls], quota=1 << 30)
    for number in range(150):
        batch = [f"{{name}} {{number}}.{{each}}\\n".encode() for each in range(3)]
        done = await asyncio.gather(*(house.files.append(ANN, "log", line) for line in batch), return_exceptions=True)
        for line, outcome in zip(batch, done):
            if isinstance(outcome, BaseException):
                print(f"{{type(outcome).__name__}}: {{outcome}}", file=sys.stderr, flush=True)
            else:
                print(line.decode(), end="", flush=True)
    await house.close()
    await redis.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_connection_that_breaks() -> None:
    """What can be done twice is sent again, all of it; what can't is not."""
    asked: list[tuple[bytes, bytes]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append((head.split()[0], await reader.readexactly(10)))
        if len(asked) > 1:
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")
            await writer.drain()
        writer.close()

    async def ten() -> AsyncIterator[bytes]:
        yield b"01234"
        yield b"56789"

    async def test() -> None:
        listener = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        server = fileserver.FileServer(f"http://127.0.0.1:{port}", TOKEN, Notify())
        await server.put("abcdefgh", ten, 10, "")
        assert asked == [(b"PUT", b"0123456789")] * 2
        asked.clear()
        with pytest.raises(FileServerUnreachable):
            await server.append("abcdefgh", 0, b"0123456789")
        assert asked == [(b"POST", b"0123456789")]
        await server.close()
        listener.close()
        await listener.wait_closed()

    asyncio.run(test())


class Shaky:
    """A file server's disk, to which the way is bad: what is asked for may not be done, or be done and never told."""

    def __init__(self, disk: Disk, url: str, chance: random.Random):
        self.disk = disk
        self.url = url
        self.chance = chance
        self.away = False
        self.takes = True

    async def append(self, name: str, at: int, data: bytes) -> None:
        await self._hazard()
        await self.disk.append(name, at, data, exactly=True)
        await self._hazard()

    async def delete(self, name: str) -> None:
        await self._hazard()
        await self.disk.delete(name)

    async def _hazard(self) -> None:
        self.takes = self.chance.random() > 0.1
        await asyncio.sleep(self.chance.random() * 0.003)
        if self.chance.random() < 0.1:
            raise FileServerUnreachable(self.url)

    async def close(self) -> None:
        self.disk.close()


def alike(file: File, folder: Path) -> bytes:
    """What a file is on all servers that have it."""
    content = b""
    for blob, size in file.blobs:
        copies = [path.read_bytes() for path in folder.glob(f"server*/**/contents/*/{blob}")]
        (whole,) = {copy[:size] for copy in copies if len(copy) >= size}
        content += whole
    return content


@pytest.mark.parametrize("seed", range(6))
def test_adding_over_bad_ways(engine: Engine, tmp_path: Path, seed: int) -> None:
    """Three nodes, three servers, each seen differently by each node: acknowledged once is there once, everywhere
    alike; what was cut in between is there once or not at all."""
    chance = random.Random(seed)

    async def live(number: int, redis: Redis, acknowledged: list[bytes], unknown: list[bytes]) -> None:
        shaky = [Shaky(Disk(tmp_path / f"server{each}"), f"http://server{each}", chance) for each in range(3)]
        disk = Disk(tmp_path / f"node{number}")
        disk.prepare()
        catalog = Catalog(redis, 1, Allowance(redis, 1 << 30))
        whole = catalog.append

        async def cut(*given: Any) -> None:
            await whole(*given)
            if chance.random() < 0.05:
                raise ConnectionError("its answer is lost")

        catalog.append = cut  # type: ignore[method-assign]
        store = RemoteStore(shaky, None, lambda *_, **__: None, 1 + seed % 3)  # type: ignore[arg-type]
        appender = Appender(catalog, store, disk)
        for turn in range(60):
            line = b"%d.%d\n" % (number, turn)
            try:
                await appender.append(ANN, "log", line)
            except (Away, Changed, ConnectionError):
                unknown.append(line)
            else:
                acknowledged.append(line)
        await store.close()
        disk.close()

    async def test() -> None:
        for each in range(3):
            Disk(tmp_path / f"server{each}").prepare()
        redis = Redis(unix_socket_path=engine.path, timeout=5)
        await redis.flushall()
        acknowledged: list[bytes] = []
        unknown: list[bytes] = []
        await asyncio.gather(*(live(number, redis, acknowledged, unknown) for number in range(3)))
        file = await Catalog(redis, 1, Allowance(redis, 1 << 30)).find(ANN, "log")
        assert file and len(acknowledged) > 60 and unknown
        content = alike(file, tmp_path)
        lines = content.splitlines(keepends=True)
        assert len(set(lines)) == len(lines)
        assert set(acknowledged) <= set(lines) <= {*acknowledged, *unknown}
        await redis.aclose()

    asyncio.run(test())


@pytest.mark.parametrize("killing", [False, True])
def test_two_nodes_add_to_one_file(engine: Engine, tmp_path: Path, killing: bool) -> None:
    """Every line that was acknowledged is there once, in its node's order; also when a server dies meanwhile."""

    async def look(servers: list[FileServer]) -> tuple[File, bytes]:
        redis = Redis(unix_socket_path=engine.path, timeout=5)
        house = House(redis, tmp_path / "reader", None, servers)
        file = await house.files.find(ANN, "log")
        content = await read(house.files, ANN, file)
        await house.close()
        await redis.aclose()
        return file, content

    async def empty() -> None:
        redis = Redis(unix_socket_path=engine.path, timeout=5)
        await redis.flushall()
        await redis.aclose()

    asyncio.run(empty())
    with file_servers(tmp_path, 2) as servers:
        program = APPENDER.format(root=str(ROOT))
        words = [sys.executable, "-c", program, engine.path]
        urls = [each.url for each in servers]
        nodes = [
            subprocess.Popen(
                [*words, str(tmp_path / name), name, *urls], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            for name in ("one", "two")
        ]
        try:
            if killing:
                assert nodes[0].stdout
                for _ in range(60):
                    nodes[0].stdout.readline()
                servers[1].kill()
                servers[1].start()
            told = [node.communicate(timeout=120) for node in nodes]
        finally:
            for each in nodes:
                each.kill()
                each.wait()
        assert not any(errors for _, errors in told), told[0][1] + told[1][1]
        file, content = asyncio.run(look(servers))
        lines = content.decode().splitlines()
        wanted = [f"{name} {number}.{each}" for name in ("one", "two") for number in range(150) for each in range(3)]
        assert sorted(lines) == sorted(wanted)
        for name in ("one", "two"):
            mine = [int(line.split()[1].partition(".")[0]) for line in lines if line.startswith(name)]
            assert mine == sorted(mine)
        assert alike(file, tmp_path) == content


def test_what_is_needed_is_said(tmp_path: Path) -> None:
    server = FileServer(tmp_path / "one")
    (server.folder / "secret.py").write_text(f"SECRET = {{'cookie': {'x' * 40!r}}}\n")
    server.start(wait=False)
    assert server.process.wait(20) == 1 and "files_token is missing" in server.said()
    twice = node(tmp_path / "two", [server, server])
    twice.start(wait=False)
    assert twice.process.wait(20) == 1 and "named once" in twice.said()
