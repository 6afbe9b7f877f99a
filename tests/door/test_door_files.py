"""A file is changed while it is sent: its client gets what was there when it was opened, or sees that it didn't."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.doors import Opened, answer, opened, read_all, statuses

SIZE = 16 << 20  # bytes: more than systems keep for a socket
CONTENT = os.urandom(SIZE)
GET = b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(CONTENT)
    return tmp_path / "file"


@pytest.fixture
def door(path: Path) -> Iterator[Opened]:
    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["path"] != "/file":
            await answer(send, b"{}")
            return
        with path.open("rb") as file:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % SIZE)]})
            where = {"file": file.fileno(), "offset": 0, "count": SIZE}
            await send({"type": "http.response.zerocopysend", **where})

    with opened(application, stall=5.0, linger=2.0) as made:
        yield made


def begin(door: Opened) -> tuple[socket.socket, bytes]:
    """A client that has got a first part."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
    client.settimeout(10)
    client.connect(("127.0.0.1", door.port))
    client.sendall(GET)
    return client, client.recv(16 << 10)


def is_served(door: Opened) -> bool:
    return statuses(door.ask(b"GET /other HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")) == [200]


@pytest.mark.parametrize("change", ["replaced", "deleted", "longer"])
def test_replaced_deleted_or_longer_what_was_opened_is_sent(door: Opened, path: Path, change: str) -> None:
    client, got = begin(door)
    if change == "replaced":
        other = path.with_name("other")
        other.write_bytes(bytes(2 * SIZE))
        os.replace(other, path)
    elif change == "deleted":
        path.unlink()
    else:
        with path.open("ab") as file:
            file.write(bytes(SIZE))
    client.sendall(GET[:-2] + b"Connection: close\r\n\r\n" if change == "longer" else b"")
    client.shutdown(socket.SHUT_WR)
    got += read_all(client)
    assert got.partition(b"\r\n\r\n")[2][:SIZE] == CONTENT
    assert statuses(got[: got.index(b"\r\n\r\n")]) == [200]
    assert got.count(b"HTTP/1.1 200 OK\r\n") == (2 if change == "longer" else 1)  # the reply ended where it said
    assert is_served(door)


@pytest.mark.parametrize("left", [0, SIZE // 2])
def test_truncated_the_connection_breaks(door: Opened, path: Path, left: int) -> None:
    """Nothing is sent in the place of what is missing, and the worker lives."""
    client, got = begin(door)
    os.truncate(path, left)
    client.sendall(GET)  # this one is never answered: nobody could tell where its reply begins
    got += read_all(client).removesuffix(b"reset")
    body = got.partition(b"\r\n\r\n")[2]
    assert len(body) < SIZE and CONTENT.startswith(body)
    assert is_served(door)
