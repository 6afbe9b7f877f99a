"""Fault points: before and after each step of disk, redis and S3, where a process can be killed.

A redis command has a third point between these two: when it is sent and not yet answered.
"""

import asyncio
import functools
import hashlib
import itertools
import os
import signal
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from backlore.clients.disk import Disk
from backlore.clients.redis.client import Redis
from backlore.clients.s3 import S3
from backlore.core.notify import Notify
from backlore.core.schema import FilesConfig
from backlore.services.files.files import Files
from backlore.web.forms import FormReader
from tests.kit.buckets import BUCKET, KEYS

QUOTA = 1 << 30
FAILED = 3  # exit status of a deed that was refused or broke


class Points:
    """Counts the points that are passed, in all threads, and kills a process at one of them."""

    def __init__(self) -> None:
        self.arm(0, 0)

    def arm(self, at: int, victim: int, only: str = "") -> int:
        """Count anew, and kill `victim` at the `at`-th point of the kind `only`. Returns how many were passed."""
        passed = next(self._count) - 1 if hasattr(self, "_count") else 0
        self._count, self._at, self._victim, self._only = itertools.count(1), at, victim, only
        return passed

    def passing(self, kind: str) -> None:
        if self._only in ("", kind) and next(self._count) == self._at:
            os.kill(self._victim, signal.SIGKILL)


POINTS = Points()


def between(kind: str, holder: Any, name: str) -> None:
    """Make a function's begin and end points."""
    whole = getattr(holder, name)

    @functools.wraps(whole)
    def stepped(*given: Any, **named: Any) -> Any:
        POINTS.passing(kind)
        done = whole(*given, **named)
        POINTS.passing(kind)
        return done

    @functools.wraps(whole)
    async def stepped_later(*given: Any, **named: Any) -> Any:
        POINTS.passing(kind)
        done = await whole(*given, **named)
        POINTS.passing(kind)
        return done

    setattr(holder, name, stepped_later if asyncio.iscoroutinefunction(whole) else stepped)


def install() -> None:
    """Make the points, in this process."""
    for name in ("fsync", "fdatasync", "link", "unlink"):
        between("disk", os, name)
    between("disk", Disk, "run")
    between("disk", FormReader, "_write_all")
    for name in ("put", "copy", "delete"):
        between("s3", S3, name)
    whole: Callable[..., Any] = Redis.execute_command

    def command(self: Redis, *args: Any, **options: Any) -> Any:
        POINTS.passing("redis")
        answer = whole(self, *args, **options)
        asyncio.get_running_loop().call_soon(POINTS.passing, "redis")  # after the write of this turn of the loop
        if isinstance(answer, asyncio.Future):
            answer.add_done_callback(lambda _: POINTS.passing("redis"))  # before the caller that waits for it
        return answer

    Redis.execute_command = command  # type: ignore[method-assign]


class Place(NamedTuple):
    """Where a deed is done: the redis, the disk, the S3 server and the user."""

    socket: str
    folder: Path
    endpoint: str
    user: str


def open_files(place: Place, timeout: float = 5) -> tuple[Files, Redis, S3]:
    """The files of a place, as one process sees them. Close the redis."""
    redis = Redis(unix_socket_path=place.socket, timeout=timeout)
    keys = {"access_key": KEYS["s3_key"], "secret_key": KEYS["s3_secret"]}
    s3 = S3(BUCKET, endpoint=place.endpoint, **keys)
    disk = Disk(place.folder)
    disk.prepare()
    return Files(redis, Notify(lambda _: None), disk, s3, FilesConfig(quota=QUOTA, trash=3600)), redis, s3


State = tuple[dict[str, bytes], list[bytes]]  # files by name, and what is in the trash
OLD, NEW = b"old " * 1000, b"new " * 1500
ONE, TWO = b"one\n" * 200, b"two\n" * 300


class Deed(NamedTuple):
    """What is there before, what is done, and what must be there after."""

    before: State
    do: Callable[[Files, str], Awaitable[object]]
    after: State


async def trashed(files: Files, user: str) -> str:
    """The id of the one file in the trash."""
    ((file, _),) = await files.trash(user)
    return file.id


async def _undelete(files: Files, user: str) -> None:
    await files.undelete(user, await trashed(files, user))


async def _erase(files: Files, user: str) -> None:
    await files.erase(user, [await trashed(files, user)])


async def _carry(files: Files, user: str) -> None:
    """The courier's work."""
    await files.courier.turn()
    await files.delete(user, "a")
    await files.courier.turn()


DEEDS = {
    "upload": Deed(({}, []), lambda files, user: files.put(user, "a", NEW), ({"a": NEW}, [])),
    "overwrite": Deed(({"a": OLD}, []), lambda files, user: files.put(user, "a", NEW), ({"a": NEW}, [OLD])),
    "again": Deed(({"a": OLD}, []), lambda files, user: files.put(user, "b", OLD), ({"a": OLD, "b": OLD}, [])),
    "append": Deed(({"a": ONE}, []), lambda files, user: files.append(user, "a", TWO), ({"a": ONE + TWO}, [])),
    "delete": Deed(({"a": OLD}, []), lambda files, user: files.delete(user, "a"), ({}, [OLD])),
    "undelete": Deed(({}, [OLD]), _undelete, ({"a": OLD}, [])),
    "erase": Deed(({}, [OLD]), _erase, ({}, [])),
    "carry": Deed(({"a": OLD}, []), _carry, ({}, [OLD])),
}


async def make(files: Files, user: str, state: State, name: str) -> None:
    """Make what is there before. For the deed `append`, files are made by appending."""
    living, dead = state
    for content in dead:
        await files.put(user, "a", content)
        await files.delete(user, "a")
    for each, content in living.items():
        await (files.append if name == "append" else files.put)(user, each, content)


async def look(files: Files, user: str) -> State:
    """What is there. Each content is read, and must match its size and hash."""

    async def whole(file: Any) -> bytes:
        content = b"".join([piece async for piece in files.read(user, file)])
        assert len(content) == file.size and file.hash in ("", hashlib.sha256(content).hexdigest())
        return content

    living = {file.name: await whole(file) for file in await files.list(user)}
    return living, [await whole(file) for file, _ in await files.trash(user)]


def act(name: str, place: Place, at: int, victim: int, only: str, told: Connection) -> None:
    """Do a deed in this process. It sends how many points it passed once it is acknowledged, or its error."""

    async def within() -> None:
        deed = DEEDS[name]
        files, redis, _ = open_files(place)
        await make(files, place.user, deed.before, name)
        await redis.aclose()
        files, redis, _ = open_files(place, timeout=0.15 if at else 5)
        POINTS.arm(at, victim or os.getpid(), only)
        try:
            await deed.do(files, place.user)
        except Exception as error:
            told.send(f"{type(error).__name__}: {error}")
            os._exit(FAILED)
        told.send(POINTS.arm(0, 0))
        os._exit(0)

    install()
    asyncio.run(within())
