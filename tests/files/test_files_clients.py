"""Files and clients that vanish, crawl or quarrel; and one who wants everything at once."""

import asyncio
import contextlib
import os
import random
import re
import shutil
import socket
import subprocess
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backlore.clients.disk import Disk
from backlore.clients.redis.client import Redis
from backlore.core.notify import Notify
from backlore.core.schema import FilesConfig
from backlore.core.temporary import FOLDER
from backlore.services.files.catalog import File, new_id
from backlore.services.files.files import Files
from tests.conftest import KEEPING, Server, User, serving
from tests.kit.raw import ask, connect, form, head, listed, put, reset, sha256, upload
from tests.kit.waiting import healthy, until

SEED = 5
PATIENCE = 2  # seconds between two chunks


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("keeping")
    with serving(KEEPING, folder, settings={"body_timeout": PATIENCE}) as server:
        yield server


@pytest.fixture
def ann(keeping: Server, request: pytest.FixtureRequest) -> Iterator[User]:
    """A user of this test's own."""
    address = re.sub(r"\W", "", request.node.name)
    with User(keeping, f"{address}@example.com") as user:
        yield user.sign_up()


def nothing_is_left(server: Server) -> bool:
    folders = server.data / FOLDER, server.data / "files" / "drafts"
    return not any(path for folder in folders for path in folder.glob("*"))


def contents(server: Server) -> int:
    return len(list((server.data / "files" / "contents").glob("*/*")))


# Who goes away


@pytest.mark.parametrize("leave", [socket.socket.close, reset])
def test_gone_in_the_middle_of_an_upload(keeping: Server, ann: User, leave) -> None:
    assert put(ann, "a", b"old") == 200
    before = contents(keeping)
    request = upload(ann, form(b"a", os.urandom(2 << 20)))
    for part in (0.1, 0.5, 0.99, 1):
        connection = connect(keeping)
        connection.sendall(request[: int(len(request) * part) - 1])
        if part == 0.5:
            until(lambda: not nothing_is_left(keeping))  # it is under way
        leave(connection)
    until(lambda: nothing_is_left(keeping))
    assert listed(ann) == {"a": sha256(b"old")} and not ann.get("/files/trash").json()["files"]
    assert contents(keeping) == before


def test_gone_in_the_middle_of_a_download(keeping: Server, ann: User) -> None:
    """Nothing stays open, and others are served."""
    content = os.urandom(16 << 20)
    assert put(ann, "a", content) == 200
    assert ann.get("/files/content/a").content == content
    handles = sum(each.num_fds() for each in keeping.workers())
    for header in ({}, {"range": "bytes=1-"}, {"range": "bytes=0-8000000,8000001-16000000"}):
        for _ in range(5):
            connection = connect(keeping)
            connection.sendall(head(ann, "GET /files/content/a", **header))
            assert connection.recv(10_000).startswith(b"HTTP/1.1 20")
            reset(connection)
    assert ann.get("/files/content/a").content == content
    until(lambda: sum(each.num_fds() for each in keeping.workers()) <= handles + 2)
    assert healthy(keeping)


def test_who_stops_sending_is_told_so(keeping: Server, ann: User) -> None:
    request = upload(ann, form(b"a", os.urandom(1 << 20)))
    with connect(keeping) as connection:
        connection.sendall(request[: len(request) // 2])
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")
    until(lambda: nothing_is_left(keeping))
    assert listed(ann) == {}


def test_fifty_at_once_of_whom_half_vanish(keeping: Server, ann: User) -> None:
    chance = random.Random(SEED)
    before = contents(keeping)
    bodies = {f"n{number}": os.urandom(chance.randint(10_000, 1_000_000)) for number in range(50)}
    cut = set(chance.sample(sorted(bodies), 25))

    def send(name: str) -> int:
        request = upload(ann, form(name.encode(), bodies[name]))
        if name not in cut:
            return ask(keeping, request)[0]
        connection = connect(keeping)
        with contextlib.suppress(ConnectionError):
            connection.sendall(request[: chance.randint(300, len(request) - 1)])
        reset(connection)
        return 0

    with ThreadPoolExecutor(50) as pool:
        done = dict(zip(bodies, pool.map(send, bodies), strict=True))
    assert all(status == (0 if name in cut else 200) for name, status in done.items()), done
    until(lambda: nothing_is_left(keeping))
    assert listed(ann) == {name: sha256(body) for name, body in bodies.items() if name not in cut}
    assert contents(keeping) == before + 25


def test_two_writers_on_one_name(keeping: Server, ann: User) -> None:
    """A hundred times: whatever was acknowledged is the file, or in the trash, and once."""

    def write(writer: str) -> list[str]:
        with User(keeping, ann.email) as user:
            user.log_in()
            texts = [f"{writer} {number}".encode() for number in range(100)]
            assert {put(user, "a", text) for text in texts} == {200}
            return [sha256(text) for text in texts]

    with ThreadPoolExecutor(2) as pool:
        acknowledged = [each for hashes in pool.map(write, ("one", "two")) for each in hashes]
    dead = ann.get("/files/trash", params={"limit": 500}).json()["files"]
    assert sorted([*listed(ann).values(), *(file["hash"] for file in dead)]) == sorted(acknowledged)
    for file in dead[:20]:
        back = ann.post("/files/undelete", json={"id": file["id"], "name": file["id"]}).json()["name"]
        assert sha256(ann.get(f"/files/content/{back}").content) == file["hash"]


# A zip of many

MANY, DISTINCT = 10_000, 100
PIECE = 20_000  # bytes of each
GROWTH = 60 << 20  # bytes that the worker may grow by, of the 200 MB that go through it


async def keep_many(server: Server, user: str) -> dict[str, str]:
    """MANY files of DISTINCT contents, at once in the catalog, as if each had been uploaded; hashes by name."""
    redis = Redis(unix_socket_path=str(server.data / "redis" / "engine.sock"), timeout=20)
    disk = Disk(server.data / "files")
    files = Files(redis, Notify(lambda _: None), disk, None, FilesConfig(quota=1 << 40))
    try:
        kept = [await files.put(user, f"k{number}", os.urandom(PIECE)) for number in range(DISTINCT)]
        hashes = {file.name: file.hash for file in kept}
        for start in range(DISTINCT, MANY, 100):
            more = []
            for number in range(start, start + 100):
                like = kept[number % DISTINCT]
                name = f"{number % 7}/é {number}"
                blob = (new_id(), like.size)
                more.append(File(new_id(), name, like.type, like.size, like.hash, 0, 0, [blob]))
                hashes[name] = like.hash
            await asyncio.gather(*(files.catalog.put(user, file) for file in more))
    finally:
        disk.close()
        await redis.aclose()
    return hashes


def test_a_zip_of_ten_thousand(keeping: Server, ann: User, tmp_path: Path) -> None:
    hashes = asyncio.run(keep_many(keeping, ann.get("/auth/csrf").json()["user"]["id"]))
    assert len(hashes) == MANY
    target = tmp_path / "all.zip"
    ann.post("/files/zip", json={"names": ["k0"]})  # what is imported by then is no growth
    before = max(each.memory_info().rss for each in keeping.workers())
    most = 0
    with ann.stream("POST", "/files/zip", json={}) as got, target.open("wb") as file:
        assert got.status_code == 200
        for number, piece in enumerate(got.iter_bytes()):
            file.write(piece)
            if number == 0:
                time.sleep(2)  # who reads nothing for a while is waited for
            if number % 50 == 0:
                most = max(most, *(each.memory_info().rss for each in keeping.workers()))
    assert target.stat().st_size > MANY * PIECE and most - before < GROWTH
    with zipfile.ZipFile(target) as archive:
        assert {name: sha256(archive.read(name)) for name in archive.namelist()} == hashes
    if unzip := shutil.which("unzip"):
        done = subprocess.run([unzip, "-tqq", target], capture_output=True)
        assert done.returncode == 0, done.stderr
