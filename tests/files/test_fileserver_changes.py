"""File servers come, go, die and lose their disks, below nodes that keep nothing."""

import asyncio
import contextlib
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from backlore.clients.redis.client import Redis
from backlore.services.files.catalog import File
from backlore.services.storage.remote import order
from backlore.services.storage.store import Away, Lost
from tests.conftest import Server, User
from tests.kit.buckets import S3Server
from tests.kit.engines import Engine
from tests.kit.fileservers import FileServer, file_servers, node
from tests.kit.houses import ANN, House, living, reach, read


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
