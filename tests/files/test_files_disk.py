"""Files on a disk that is full: a small one of its own, with all data on it."""

import asyncio
import contextlib
import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from backlore.clients.disk import THREADS, Disk
from backlore.core.temporary import FOLDER
from tests.conftest import KEEPING, PASSWORD, Server, User, run_in_application, serving
from tests.kit.waiting import healthy, until

SIZE = 32 << 20  # bytes of the disk
LARGE = os.urandom(6 << 20)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of SIZE bytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be had here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def room(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def fill_up(folder: Path) -> None:
    """To the last byte."""
    with (folder / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
        while room(folder):
            filler.write(bytes(4096))


def put(user: User, name: str, content: bytes) -> httpx.Response:
    return user.post("/files", files={"file": ("f", content)}, data={"name": name})


def fill(user: User) -> dict[str, bytes]:
    """Upload until there is no more room; what was acknowledged."""
    kept: dict[str, bytes] = {}
    while True:
        name = f"large{len(kept)}"
        content = name.encode() + LARGE
        got = put(user, name, content)
        if got.status_code != 200:
            assert (got.status_code, got.json()) == (507, {"error": "disk"})
            return kept
        kept[name] = content


def check(user: User, kept: dict[str, bytes]) -> None:
    """What was acknowledged is listed, whole, and nothing else."""
    listed = {file["name"]: file["hash"] for file in user.get("/files").json()["files"]}
    assert listed == {name: hashlib.sha256(content).hexdigest() for name, content in kept.items()}
    for name, content in kept.items():
        assert user.get(f"/files/content/{name}").content == content


def no_uploads(server: Server) -> None:
    """Nothing is left of what was refused."""
    until(lambda: not list((server.data / FOLDER).glob("*")), 5)
    assert not list((server.data / "files" / "drafts").iterdir())


def test_room_that_is_to_stay_free_stays_free(tmp_path: Path, small: Path) -> None:
    """So that what is no file goes on: redis, deletion, whatever makes room."""
    free = 10 << 20
    with serving(KEEPING, tmp_path, data=small / "data", settings={"files": {"free": free, "trash": 3600}}) as server:
        user = User(server, "ann@example.com").sign_up()
        kept = fill(user)
        assert len(kept) == 3
        no_uploads(server)
        assert room(small) >= free - (1 << 20)  # the rest is redis' own
        check(user, kept)
        gone = kept.popitem()[0]
        id = user.post("/files/delete", json={"name": gone}).json()["id"]
        assert user.post("/files/undelete", json={"id": id}).status_code == 200
        assert user.post("/files/delete", json={"name": gone}).status_code == 200
        assert put(user, "more", LARGE).status_code == 507  # the trash takes room too
        assert user.post("/files/erase", json={"ids": [id]}).json() == {"erased": 1}
        until(lambda: put(user, "more", LARGE).status_code == 200)
        check(user, kept | {"more": LARGE})


def test_a_write_that_would_take_what_is_to_stay_free_is_not_begun(tmp_path: Path, small: Path) -> None:
    """Its size counts, not only what is free before it."""
    free = SIZE - (4 << 20)

    async def test() -> None:
        disk = Disk(small / "files", free)
        disk.prepare()
        draft = await disk.draft()
        await draft.write(LARGE[: 1 << 20])
        for write in (draft.write(LARGE), disk.append("grown", 0, LARGE)):
            with pytest.raises(OSError, match="stay free"):
                await write
        assert (draft.size, draft.path.stat().st_size) == (1 << 20, 1 << 20)
        assert room(small) >= free
        disk.close()

    asyncio.run(test())


@pytest.mark.parametrize("durability", ["everysec", "always"])
def test_full_to_the_last_byte(tmp_path: Path, small: Path, durability: str) -> None:
    """Also for the append-only file: redis takes no writes, clients are told so, and it heals by itself."""
    settings = {"durability": durability, "files": {"free": 0}}
    with serving(KEEPING, tmp_path, data=small / "data", settings=settings) as server:
        user = User(server, "ann@example.com").sign_up()
        kept = fill(user)
        no_uploads(server)
        check(user, kept)
        fill_up(small)
        # who looks first says it: we, or an engine that can't write
        assert put(user, "one more", b"x").json()["error"] in ("disk", "unavailable")
        login = {"email": user.email, "password": PASSWORD}  # it writes
        until(lambda: httpx.post(f"{server.url}/auth/login", json=login, timeout=5).status_code == 503)
        seen = set()
        for name in kept:
            fill_up(small)  # what is deleted, or written anew, may make room
            seen.add(user.post("/files/delete", json={"name": name, "expected": "none"}).status_code)
            seen.add(user.get(f"/files/content/{name}").status_code)
            seen.add(put(user, "one more", b"x").status_code)
            time.sleep(0.2)
        assert seen <= {200, 409, 503, 507} and 503 in seen, seen
        (small / "filler").unlink()
        until(lambda: healthy(server))
        until(lambda: put(user, "one more", b"x").status_code == 200)
        check(user, kept | {"one more": b"x"})
        no_uploads(server)
        run_in_application(server, "server.app.files.sweep()")
        assert len(list((server.data / "files" / "contents").glob("*/*"))) == len(kept) + 1
        server.kill()
        server.log.write_text("")
        server.start()
        check(user, kept | {"one more": b"x"})


def test_two_processes_wait_for_each_other_and_go_on(tmp_path: Path) -> None:
    """Each waits for as many locks of the other as it has threads, while its own holders still have to write."""
    names = [[f"{which}{number}" for number in range(THREADS)] for which in ("left", "right")]

    async def test() -> None:
        disks, held, all_hold = [Disk(tmp_path) for _ in names], 0, asyncio.Event()

        async def hold(disk: Disk, name: str) -> None:
            nonlocal held
            async with disk.alone(name):
                held += 1
                if held == 2 * THREADS:
                    all_hold.set()
                await all_hold.wait()
                await asyncio.sleep(0.3)  # until the others wait
                await (await disk.draft()).discard()

        async def wait(disk: Disk, name: str) -> None:
            await all_hold.wait()
            async with disk.alone(name):
                await (await disk.draft()).discard()

        disks[0].prepare()
        works = [hold(disk, name) for disk, mine in zip(disks, names, strict=True) for name in mine]
        works += [wait(disk, name) for disk, others in zip(disks, names[::-1], strict=True) for name in others]
        await asyncio.wait_for(asyncio.gather(*works), 20)
        for disk in disks:
            disk.close()

    asyncio.run(test())


def test_who_is_cancelled_leaves_no_draft(tmp_path: Path) -> None:
    """Nor goes before the thread that makes, writes or deletes one."""

    async def test() -> None:
        disk, busy = Disk(tmp_path / "files"), threading.Event()
        disk.prepare()
        (tmp_path / "whole").write_bytes(b"whole")
        kept, written, unwanted = [await disk.draft() for _ in range(3)]
        crowd = [asyncio.ensure_future(disk.run(busy.wait)) for _ in range(THREADS)]
        acts = [disk.draft(), disk.adopt(tmp_path / "whole", 5, "hash"), unwanted.discard(), written.write(b"all")]
        cut = [asyncio.ensure_future(each) for each in [*acts, kept.keep("a" * 8)]]
        try:
            for _ in range(3):  # once before a thread has begun, and again while it is waited for
                await asyncio.sleep(0)
                for each in cut:
                    each.cancel()
            assert not any(each.done() for each in cut)
        finally:
            busy.set()
        ended = await asyncio.gather(*cut, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended)
        assert set((tmp_path / "files" / "drafts").iterdir()) == {kept.path, written.path}
        assert written.path.read_bytes() == b"all" and disk.find("a" * 8, 0)
        await asyncio.gather(*crowd, kept.discard(), written.discard())
        assert not list((tmp_path / "files" / "drafts").iterdir())
        disk.close()

    asyncio.run(test())
