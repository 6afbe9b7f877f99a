"""What makes life easier before a terminal: new code is served by itself, and each request is seen."""

import contextlib
import os
import pty
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import Server

CODE = """
from backlore import Backend, public, reply
from config import CONFIG

app = Backend(CONFIG)

async def version(request):
    return reply(200, {"version": VERSION})

app.routes(public.get("/", version))
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "config.py").write_text('CONFIG = {"name": "dev"}')
    (tmp_path / "source" / "server.py").write_text(CODE.replace("VERSION", "1"))
    return tmp_path / "source"


@pytest.fixture
def server(source: Path, tmp_path: Path) -> Iterator[Server]:
    server = Server(source, tmp_path)
    try:
        yield server.start()
        server.stop()
    finally:
        server.kill()


def version(server: Server) -> int:
    return httpx.get(server.url).json()["version"]


def waits_for(server: Server, expected: int) -> None:
    """Until a worker has the new code, and those of the old have gone."""
    until, served = time.monotonic() + 20, 0
    while served != expected or len(server.workers()) != 2:
        assert time.monotonic() < until, server.said()
        time.sleep(0.05)
        # in its haste a worker may drop a connection on which nobody has asked yet: browsers ask again
        with contextlib.suppress(httpx.RemoteProtocolError):
            served = version(server)


def test_new_code_is_served_by_itself(server: Server) -> None:
    assert version(server) == 1
    (server.folder / "server.py").write_text(CODE.replace("VERSION", "2"))
    waits_for(server, 2)
    (server.folder / "server.py").write_text("broken(")
    server.wait_said("master.reload.failed")
    assert "SyntaxError" in server.said() and version(server) == 2
    (server.folder / "helper.py").write_text("VERSION = 3")
    (server.folder / "server.py").write_text("import helper\n" + CODE.replace("VERSION", "helper.VERSION"))
    waits_for(server, 3)
    (server.folder / "helper.py").write_text("VERSION = 4")
    waits_for(server, 4)


def test_in_production_nothing_is_reloaded_by_itself(source: Path, tmp_path: Path) -> None:
    server = Server(source, tmp_path, env="prod", workers=1)  # the only one has the old code when it serves
    try:
        server.start()
        (server.folder / "server.py").write_text(CODE.replace("VERSION", "2"))
        time.sleep(1)
        assert version(server) == 1 and "master.reload" not in server.said()
        server.stop()
    finally:
        server.kill()


def test_each_request_is_seen_on_a_terminal(source: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    server = Server(source, tmp_path)
    said = os.fdopen(ours, "rb", buffering=0)
    try:
        server.start(terminal=theirs)
        version(server)
        seen, until = b"", time.monotonic() + 10
        while b"path=/ " not in seen:
            assert time.monotonic() < until, seen
            seen += said.read(1000)
        assert b"status=200" in seen and b"took=" in seen
        server.stop()
    finally:
        server.kill()
        os.close(theirs)
        said.close()
