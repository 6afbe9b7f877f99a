"""Resumable uploads that are cut, stall, or lose their server or its bytes: they go on."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from backlore.services.uploads.receiver import WRITE
from backlore.services.uploads.transfers import LEASE
from tests.conftest import KEEPING, Server, User, serving
from tests.kit.tus import (
    LIMIT,
    OCTETS,
    SPOKEN,
    add,
    begin,
    hash_of,
    offset_of,
    on_disk,
    person,
    redis_key,
    redis_says,
    sha,
)
from tests.kit.waiting import until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"upload_limit": LIMIT, "body_timeout": 8.0}
    with serving(KEEPING, tmp_path_factory.mktemp("tus"), settings=settings) as made:
        yield made


@pytest.fixture(scope="module")
def ann(server: Server) -> Iterator[User]:
    with person(server, "ann") as user:
        yield user


class Slow:
    """A PATCH whose bytes come as they are sent here."""

    def __init__(self, server: Server, user: User, path: str, offset: int, length: int):
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        cookies = "; ".join(f"{name}={value}" for name, value in user.cookies.items())
        headers = {**OCTETS, "host": "x", "cookie": cookies, "x-csrf-token": user.csrf, "upload-offset": str(offset)}
        lines = [f"PATCH {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items()), f"content-length: {length}"]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def status(self) -> int:
        answer = self._socket.recv(65536)
        self.close()
        return int(answer.split()[1])

    def close(self) -> None:
        self._socket.close()


def test_two_at_once(ann: User, server: Server) -> None:
    content = os.urandom(2 * WRITE)
    path = begin(ann, len(content), "two at once")
    first = Slow(server, ann, path, 0, len(content))
    first.send(content[: WRITE + 10])
    until(lambda: offset_of(ann, path) >= WRITE)
    assert add(ann, path, offset_of(ann, path), b"x").json() == {"error": "locked"}
    assert ann.delete(path, headers=SPOKEN).json() == {"error": "locked"}
    first.send(content[WRITE + 10 :])
    assert first.status() == 204
    assert hash_of(ann, "two at once") == sha(content)


def test_broken_off_and_gone_on_with(ann: User, server: Server) -> None:
    content = os.urandom(WRITE)
    path = begin(ann, len(content), "broken off")
    for at in range(0, len(content) - 1, 1_000_000):
        slow = Slow(server, ann, path, at, len(content) - at)
        slow.send(content[at : at + 1_000_000])
        slow.close()
        # what the broken connection has brought is kept, all of it
        until(lambda at=at: how_far(ann, path) == min(at + 1_000_000, len(content)))
        until(lambda: redis_says(server, "hget", redis_key(server, path), "holder") == [""])
    rest = offset_of(ann, path)
    assert rest == len(content) or add(ann, path, rest, content[rest:]).status_code == 204
    assert hash_of(ann, "broken off") == sha(content)


def how_far(user: User, path: str) -> int:
    """The offset; -1 while a file is made of it, which is 423."""
    got = user.head(path, headers=SPOKEN)
    assert got.status_code in (200, 423)
    return int(got.headers.get("upload-offset", -1))


def test_one_that_stalls_is_taken_over(ann: User, server: Server) -> None:
    """Its connection may long be dead. What it still sends can do no harm, though it holds the same offset."""
    content = os.urandom(3 * WRITE)
    path = begin(ann, len(content), "stalls")
    stalled = Slow(server, ann, path, 0, len(content))
    stalled.send(content[: WRITE + 100_000])
    until(lambda: offset_of(ann, path) >= WRITE)
    at, end = offset_of(ann, path), time.monotonic() + LEASE + 5
    while (got := add(ann, path, at, content[at : at + WRITE])).status_code == 423:
        assert time.monotonic() < end
        time.sleep(0.2)
    assert got.status_code == 204, got.text
    stalled.send(b"evil" * 300_000)
    assert stalled.status() == 423
    at = offset_of(ann, path)
    assert add(ann, path, at, content[at:]).status_code == 204
    assert hash_of(ann, "stalls") == sha(content)


def test_bytes_that_nobody_has_acknowledged(ann: User, server: Server) -> None:
    """A worker that died between writing and saying so leaves bytes behind those that count."""
    content = os.urandom(200_000)
    for name, evil_at in (("junk", 100_000), ("junk at the end", 200_000)):
        path = begin(ann, len(content) + (evil_at == 200_000), name)
        assert add(ann, path, 0, content[:evil_at]).status_code == 204
        ((blob, size),) = json.loads(redis_says(server, "hget", redis_key(server, path), "pieces")[0])
        with (server.data / "files" / "contents" / blob[:2] / blob).open("ab") as file:
            file.write(b"evil")
        rest = (content + b"!")[size:] if evil_at == 200_000 else content[size:]
        assert add(ann, path, size, rest).status_code == 204
        assert hash_of(ann, name) == sha(content[:size] + rest)
        assert blob not in on_disk(server)


def test_bytes_that_the_disk_has_lost(ann: User, server: Server) -> None:
    """The client is told to begin anew, never that something is whole which isn't."""
    path = begin(ann, 10, "lost")
    assert add(ann, path, 0, b"12345").status_code == 204
    ((blob, _),) = json.loads(redis_says(server, "hget", redis_key(server, path), "pieces")[0])
    (server.data / "files" / "contents" / blob[:2] / blob).unlink()
    before = on_disk(server)
    assert add(ann, path, 5, b"67890").json() == {"error": "upload"}
    assert ann.head(path, headers=SPOKEN).status_code == ann.get("/files/content/lost").status_code == 404
    assert on_disk(server) == before and "files.lost" in server.said()


class Resuming(threading.Thread):
    """Uploads as a client does: ask how far it is, and go on, until it is whole. Counts what broke."""

    def __init__(self, user: User, path: str, content: bytes):
        super().__init__()
        self.broken = 0
        self.done = False
        self._user = user
        self._path = path
        self._content = content

    def run(self) -> None:
        end = time.monotonic() + 120
        while not self.done and time.monotonic() < end:
            try:
                self._go_on()
            except httpx.TransportError:
                self.broken += 1
            time.sleep(0.1)

    def _go_on(self) -> None:
        got = self._user.head(self._path, headers=SPOKEN)
        if got.status_code == 200:
            at = int(got.headers["upload-offset"])
            self.done = at == len(self._content)
            if self.done:
                return
            got = add(self._user, self._path, at, self._slowly(at), content_length=str(len(self._content) - at))
        self.broken += got.status_code == 503
        assert got.status_code in (200, 204, 409, 423, 503), got.text

    def _slowly(self, at: int) -> Iterator[bytes]:
        for start in range(at, len(self._content), 300_000):
            yield self._content[start : start + 300_000]
            time.sleep(0.01)


@pytest.mark.parametrize("what", ["workers", "engine", "both"])
def test_killed_in_the_middle(tmp_path: Path, what: str) -> None:
    content = os.urandom(60 << 20)
    with serving(KEEPING, tmp_path) as server, person(server, "kim") as user:
        path = begin(user, len(content), "killed")
        client = Resuming(user, path, content)
        client.start()
        at = 0
        for _ in range(3):
            until(lambda at=at: client.done or offset_of(user, path) > at)
            victims = [] if what == "engine" else server.workers()
            victims += [] if what == "workers" else [server.engine()]
            for each in victims:
                each.kill()
            assert not client.done
            until(lambda: httpx.get(f"{server.url}/health").status_code == 200)
            at = offset_of(user, path) + 1_000_000  # what comes beyond it, a request under way brings
        client.join()
        # an engine that is back soon is waited for, and the client notices nothing
        assert client.done and (client.broken >= 3 or what == "engine")
        assert server.said().count("engine.died" if what == "engine" else "worker.died") >= 3
        assert hash_of(user, "killed") == sha(content)
        assert user.get("/files/usage").json()["bytes"] == len(content)
        # whatever was cut has left nothing: one content, and no piece beside it
        assert user.delete(path, headers=SPOKEN).status_code == 204
        assert list(on_disk(server).values()) == [len(content)]
