"""Files while something dies: what was acknowledged is whole, and what was not is as if it had never been asked for.

Killed is killed by SIGKILL: what a process had given to the kernel is there. A machine that loses power is not tried
here; that contents and folders are fsynced before they are acknowledged is for that.
"""

import asyncio
import contextlib
import hashlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from backlore.clients.redis.client import Redis
from backlore.core.keys import key
from backlore.core.temporary import FOLDER
from backlore.services.files.catalog import EVERYBODY
from backlore.services.storage.store import FOLDERS
from tests.conftest import ROOT, Server, User, run_in_application, serving
from tests.kit import points
from tests.kit.buckets import S3Server
from tests.kit.engines import Engine
from tests.kit.points import DEEDS, NEW, OLD, Place, State
from tests.kit.waiting import healthy, until

BREAKING = ROOT / "tests" / "applications" / "breaking"
SEED = 5
DAY = 86_400


class Loop:
    """Does deeds again and again, each in a process of its own and at another point killed, and looks what is left."""

    def __init__(self, engine: Engine, folder: Path, bucket: S3Server):
        self.engine = engine
        self.ends: Counter[str] = Counter()
        self.orphans = 0
        self._folder = folder
        self._bucket = bucket
        self._number = 0
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["tests.kit.points"])

    def count(self, name: str, only: str) -> int:
        """The points that a deed passes when nobody is killed."""
        passed, end = self._act(name, 0, 0, only)
        assert end == 0 and isinstance(passed, int), passed
        return passed

    def run(self, name: str, at: int, victim: int = 0, only: str = "") -> None:
        """One deed with one kill, and all that must be true after it."""
        _, end = self._act(name, at, victim, only)
        self.ends["acknowledged" if end == 0 else "failed" if end == points.FAILED else "killed"] += 1
        assert end in (0, points.FAILED, -signal.SIGKILL), end
        if victim:
            self.engine.process.wait(10)
            self.engine.start()
        asyncio.run(self._check(name, end == 0))

    def _act(self, name: str, at: int, victim: int, only: str) -> tuple[Any, int]:
        self._number += 1
        user = f"u{self._number:02d}abcdefgh"
        self._place = Place(self.engine.path, self._folder / user, self._bucket.endpoint, user)
        hears, tells = self._processes.Pipe(duplex=False)
        process = self._processes.Process(target=points.act, args=(name, self._place, at, victim, only, tells))
        process.start()
        tells.close()
        process.join(30)
        told = hears.recv() if process.exitcode in (0, points.FAILED) else None
        hears.close()
        assert process.exitcode is not None
        return told, process.exitcode

    async def _check(self, name: str, acknowledged: bool) -> None:
        user, deed = self._place.user, DEEDS[name]
        files, redis, s3 = points.open_files(self._place)
        try:
            state = await points.look(files, user)
            assert state == deed.after or (state == deed.before and not acknowledged), name
            # whatever is to be moved is known to the courier, without anybody's asking
            waiting = await redis.zrange(key("moves", user), 0, -1)
            assert not waiting or await redis.zscore(EVERYBODY, user) is not None
            await self._settle(files, redis, user, waiting)
            assert await points.look(files, user) == state
            await self._compare(files, redis, s3, acknowledged)
        finally:
            await redis.aclose()

    async def _settle(self, files: Any, redis: Any, user: str, waiting: list[str]) -> None:
        """What the courier does when leases have run out."""
        for blob in [each for each in waiting if not each.startswith("~")]:
            await redis.zadd(key("moves", user), {blob: 0}, xx=True)
        await redis.zadd(EVERYBODY, {user: 0})
        while await files.courier.turn():
            pass

    async def _compare(self, files: Any, redis: Any, s3: Any, acknowledged: bool) -> None:
        """Disk and S3 have what the catalog has, and of the disk's leavings not more than one cut upload's."""
        user, disk = self._place.user, self._place.folder
        names = await redis.keys(key("blob", user, "*"))
        blobs = {name.rpartition(":")[2]: await redis.hgetall(name) for name in names}
        living = await files.list(user)
        dead = [file for file, _ in await files.trash(user)]
        for id, known in blobs.items():
            assert int(known["live"]) == sum(id in dict(file.blobs) for file in living)
            assert int(known["trash"]) == sum(id in dict(file.blobs) for file in dead)
        assert await redis.hlen(key("files", user)) == len(living) and await redis.hlen(key("trash", user)) == len(dead)
        hashes = {known["hash"]: id for id, known in blobs.items() if known["hash"]}
        assert await redis.hgetall(key("hashes", user)) == hashes
        usage = sum(int(known["size"]) for known in blobs.values()), len(living)
        assert await files.catalog.usage(user) == usage
        objects = {each.name for folder in FOLDERS for each in [found async for found in s3.list(f"{folder}/{user}")]}
        assert objects == {f"{known['where']}/{user}/{id}" for id, known in blobs.items()}
        left = {path.name for path in disk.glob("contents/*/*")} - set(blobs)
        assert not (left and acknowledged) and len(left) <= 1
        self.orphans += len(left)
        drafts = list(disk.glob("drafts/*"))
        assert not (drafts and acknowledged) and len(drafts) <= 1
        for draft in drafts:
            os.utime(draft, (time.time() - 2 * DAY,) * 2)
        await files.sweep()
        assert not list(disk.glob("drafts/*"))


@pytest.fixture(scope="module")
def loop(engine: Engine, tmp_path_factory: pytest.TempPathFactory, bucket: S3Server) -> Loop:
    return Loop(engine, tmp_path_factory.mktemp("loop"), bucket)


@pytest.mark.parametrize("name", DEEDS)
def test_killed_at_every_step(loop: Loop, name: str) -> None:
    points = loop.count(name, "")
    before = loop.ends["killed"]
    for at in range(1, points + 1):
        loop.run(name, at)
    assert points >= 3  # of redis' commands alone each has three
    assert loop.ends["killed"] - before > points / 2  # a busy machine makes some fail before


@pytest.mark.parametrize("name", DEEDS)
def test_engine_killed_at_every_command(loop: Loop, name: str) -> None:
    points = loop.count(name, "redis")
    before = loop.ends["failed"]
    for at in range(1, points + 1):
        loop.run(name, at, loop.engine.process.pid, "redis")
    assert points >= 3 and loop.ends["failed"] > before  # some were not acknowledged


class Client:
    """A user with a deed over HTTP, done anew in each round."""

    def __init__(self, server: Server, name: str):
        self.name = name
        self.deed = DEEDS[name]
        self.user = User(server, f"{name}@example.com").sign_up()

    def prepare(self) -> None:
        """What is there before."""
        living, dead = self.deed.before
        for content in dead:
            self.put("a", content)
            self.user.post("/files/delete", json={"name": "a"})
        for each, content in living.items():
            self.put(each, content)
        self.dead = [file["id"] for file in self.user.get("/files/trash").json()["files"]]

    def put(self, name: str, content: bytes) -> httpx.Response:
        return self.user.post("/files", files={"file": ("f", content)}, data={"name": name})

    def act(self) -> bool:
        """The deed; whether it was acknowledged."""
        deeds = {
            "upload": lambda: self.put("a", NEW),
            "overwrite": lambda: self.put("a", NEW),
            "again": lambda: self.put("b", OLD),
            "delete": lambda: self.user.post("/files/delete", json={"name": "a"}),
            "undelete": lambda: self.user.post("/files/undelete", json={"id": self.dead[0]}),
            "erase": lambda: self.user.post("/files/erase", json={"ids": self.dead}),
        }
        try:
            return deeds[self.name]().status_code == 200
        except httpx.TransportError:
            return False

    def look(self) -> State:
        """What is there, read whole; afterwards nothing is."""
        listed = self.user.get("/files")
        assert listed.status_code == 200, listed.text
        living = {file["name"]: self._read(file) for file in listed.json()["files"]}
        for name in living:
            assert self.user.post("/files/delete", json={"name": name}).status_code == 200
        gone = self.user.get("/files/trash").json()["files"]
        dead = []
        for file in gone[len(living) :]:
            self.user.post("/files/undelete", json={"id": file["id"], "name": "back"})
            dead.append(self._read(file | {"name": "back"}))
            self.user.post("/files/delete", json={"name": "back"})
        ids = [file["id"] for file in gone]
        if ids:
            assert self.user.post("/files/erase", json={"ids": ids}).json() == {"erased": len(ids)}
        assert self.user.get("/files/usage").json()["bytes"] == 0
        return living, dead

    def _read(self, file: dict[str, Any]) -> bytes:
        got = self.user.get(f"/files/content/{file['name']}")
        assert got.status_code == 200 and hashlib.sha256(got.content).hexdigest() == file["hash"]
        return got.content


OVER_HTTP = ("upload", "overwrite", "again", "delete", "undelete", "erase")
ROUNDS = 15  # in turn the worker, the engine and the master die


def test_worker_engine_and_master_killed_under_uploads(tmp_path: Path) -> None:
    """Six clients at once, over HTTP; at a step of theirs a process of the server is killed."""
    with serving(BREAKING, tmp_path, workers=1) as server, ThreadPoolExecutor(len(OVER_HTTP)) as pool:
        clients = [Client(server, name) for name in OVER_HTTP]
        steps, ends = 0, Counter[bool]()
        chance = random.Random(SEED)
        for number in range(ROUNDS + 1):
            for client in clients:
                client.prepare()
            victim = (server.workers()[0], server.engine(), psutil.Process(server.process.pid))[number % 3]
            kill = {"at": chance.randint(1, steps) if number else 0, "victim": victim.pid}
            assert arm(server, kill).status_code == 200
            done = list(pool.map(Client.act, clients))
            if not number:
                steps = arm(server, {"at": 0}).json()["passed"]
                assert all(done)
            revive(server, victim)
            for client, acknowledged in zip(clients, done, strict=True):
                state = client.look()
                deed = client.deed
                assert state == deed.after or (state == deed.before and not acknowledged), (client.name, kill, victim)
            ends.update(done)
        assert ends[False] > ROUNDS  # it did break something
        check_remains(server, ends[False])


def arm(server: Server, kill: dict[str, int]) -> httpx.Response:
    return httpx.post(f"{server.url}/arm", json=kill, timeout=3)


def is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def revive(server: Server, victim: psutil.Process) -> None:
    """Until the server is whole again; a master is started by whoever keeps it."""
    until(lambda: not is_alive(victim) or arm(server, {"at": 0}).status_code == 200)
    if not is_alive(victim):
        if victim.pid == server.process.pid:
            family = server.family()
            server.process.wait(3)
            psutil.wait_procs(family, 10)
            server.log.write_text("")
            server.start()
        until(lambda: [is_alive(each) for each in server.family()] == 4 * [True])  # zygote, worker, tasks, engine
    until(lambda: healthy(server))


def check_remains(server: Server, unacknowledged: int) -> None:
    """All was erased: the catalog names nothing, and of the disk's leavings each is one cut upload's, and goes."""
    asyncio.run(forgotten(server))
    contents = list((server.data / "files" / "contents").glob("*/*"))
    assert len(contents) <= unacknowledged
    for path in [*contents, *(server.data / "files" / "drafts").iterdir(), *(server.data / FOLDER).iterdir()]:
        os.utime(path, (time.time() - 2 * DAY,) * 2)
    checking = [sys.executable, "-m", "backlore.cli", "check", "--mend", "--insist", "--app", str(server.folder)]
    checked = subprocess.run([*checking, "--data", str(server.data)], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert not list((server.data / "files" / "contents").glob("*/*"))
    for task in ("files.sweep", "_sweep_uploads"):
        run_in_application(server, f"server.app.{task}()")
    assert not list((server.data / "files" / "drafts").iterdir())
    assert not list((server.data / FOLDER).iterdir())


async def forgotten(server: Server) -> None:
    """Until the courier has taken away what was erased."""
    redis = Redis(unix_socket_path=str(server.data / "redis" / "engine.sock"), timeout=5)
    try:
        end = time.monotonic() + 20
        while blobs := await redis.keys("blob:*"):
            assert time.monotonic() < end, blobs
            for name in await redis.keys("moves:*"):  # of those that a killed courier had claimed
                await redis.zadd(name, dict.fromkeys(await redis.zrange(name, 0, -1), 0))
            await asyncio.sleep(0.3)
    finally:
        await redis.aclose()
