"""What dies, hangs or is full: each with a real process, really killed. Acknowledged means kept."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from backlore.process.program import find_binary
from tests.conftest import KINDS, Server, User, engine_cli, serving, words_of
from tests.kit.load import Load, check_counted
from tests.kit.waiting import healthy, until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of this test's own, to be broken."""
    with serving(KINDS, tmp_path) as made:
        yield made


def test_worker_killed(server: Server) -> None:
    load = Load(server)
    time.sleep(0.5)
    old = server.workers()[0].pid
    os.kill(old, signal.SIGKILL)
    said = server.wait_said("worker.died")
    assert f"pid={old}" in said
    until(lambda: len(server.workers()) == 2 and old not in {each.pid for each in server.workers()})
    time.sleep(0.5)
    load.stop()
    check_counted(server, load)
    assert set(load.outcomes) <= {"200", "ReadError", "RemoteProtocolError", "WriteError"}, load.outcomes


def test_worker_that_dies_at_once_again_and_again(tmp_path: Path) -> None:
    with serving(KINDS, tmp_path, workers=1) as server:
        (server.folder / "server.py").write_text("raise RuntimeError('broken on purpose')")
        os.kill(server.workers()[0].pid, signal.SIGKILL)
        time.sleep(4)
        assert server.said().count("worker.died") <= 14, server.said()  # with a growing pause; without one some 30
        until(lambda: server.said().count("worker.died") >= 3, 20)  # it is tried again and again
        assert "broken on purpose" in server.said()
        shutil.copy(KINDS / "server.py", server.folder / "server.py")
        until(lambda: healthy(server))


def test_uncaught_in_the_loop(server: Server) -> None:
    pids = {each.pid for each in server.workers()}
    assert httpx.get(f"{server.url}/crash").status_code == 200
    said = server.wait_said("worker.died")
    assert "worker.uncaught" in said and "ZeroDivisionError" in said
    until(lambda: len(server.workers()) == 2 and len(pids & {each.pid for each in server.workers()}) == 1)


CARELESS = """

async def fails_alone():
    1 / 0


async def careless(request=None):
    asyncio.create_task(fails_alone())
    app.redis.lpush("text", 1)
    return reply(200)


app.routes(public.get("/careless", careless))
app.every(1, careless, each=True)
"""


def test_what_nobody_awaits_ends_nothing(tmp_path: Path) -> None:
    """In a worker and in the tasks process: a task that fails, and a command of redis that does."""
    server = Server(KINDS, tmp_path, workers=1)
    with (server.folder / "server.py").open("a") as source:
        source.write(CARELESS)
    try:
        server.start()
        subprocess.run([*engine_cli(server), "set", "text", "x"], check=True, capture_output=True)
        pids = {each.pid for each in server.family() if "backlore.process.worker" in words_of(each)}
        assert httpx.get(f"{server.url}/careless").status_code == 200

        def told(what: str) -> set[int]:
            lines = [line for line in server.said().splitlines() if "background.failed" in line and what in line]
            return {int(line.rpartition("pid=")[2].split()[0]) for line in lines}

        until(lambda: told("Task exception") == told("Future exception") == pids)
        assert "in fails_alone" in server.said() and "WRONGTYPE" in server.said()
        assert httpx.get(f"{server.url}/pid").json()["pid"] in pids
        assert server.stop() == 0 and "worker.died" not in server.said()
    finally:
        server.kill()


def test_engine_killed(server: Server) -> None:
    user = User(server, "kept@example.com").sign_up()
    load = Load(server)
    time.sleep(1)
    server.engine().kill()
    server.wait_said("engine.back")
    until(lambda: healthy(server))
    time.sleep(0.5)
    load.stop()
    check_counted(server, load)
    assert set(load.outcomes) <= {"200", "503"}, load.outcomes
    assert user.get("/who").status_code == 200


SLOW = """
#include <sys/syscall.h>
#include <unistd.h>
int fdatasync(int file) { usleep(700000); return syscall(SYS_fdatasync, file); }
"""


@pytest.mark.skipif(not (shutil.which("cc") and sys.platform == "linux"), reason="needs a C compiler, on Linux")
def test_engine_killed_on_a_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While an fsync takes its time, writes reach the file before they are answered, all the same."""
    library = tmp_path / "slow.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-o", library, "-"], input=SLOW.encode(), check=True)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    with serving(KINDS, tmp_path) as server:
        for _ in range(3):
            load = Load(server)
            time.sleep(1.5)
            back = server.said().count("engine.back")
            server.engine().kill()
            until(lambda back=back: server.said().count("engine.back") > back)
            until(lambda: healthy(server))
            load.stop()
            check_counted(server, load)


def test_engine_paused(server: Server) -> None:
    """Every request gets its 503 within a second and a little, none hangs, and all goes on by itself."""
    user = User(server, "paused@example.com").sign_up()
    engine = server.engine()
    engine.suspend()
    try:
        for _ in range(5):
            began = time.monotonic()
            got = user.get("/who", timeout=5)
            assert (got.status_code, got.json()) == (503, {"error": "unavailable"})
            assert int(got.headers["retry-after"]) >= 1
            assert time.monotonic() - began < 2.0
        assert httpx.get(f"{server.url}/health").status_code == 503
        assert httpx.get(f"{server.url}/files/hello.txt").status_code == 200  # what needs no redis goes on
    finally:
        engine.resume()
    until(lambda: user.get("/who").status_code == 200, 5)


def test_engine_that_refuses(server: Server) -> None:
    """What redis can't do now is 503, and all goes on when it can: no bug of ours, and no reason to end."""
    login = {"email": "refused@example.com", "password": "long enough password"}
    for refuse, take in [
        ("config set min-replicas-to-write 1", "config set min-replicas-to-write 0"),
        ("config set maxmemory 1", "config set maxmemory 0"),
        ("replicaof 127.0.0.1 1", "replicaof no one"),
    ]:
        subprocess.run([*engine_cli(server), *refuse.split()], check=True, capture_output=True)
        counted, logged_in = httpx.post(f"{server.url}/count"), httpx.post(f"{server.url}/auth/login", json=login)
        for got in (counted, logged_in):  # a command, and a script
            assert (got.status_code, got.json()) == (503, {"error": "unavailable"}), (refuse, got.text)
            assert int(got.headers["retry-after"]) >= 1
        subprocess.run([*engine_cli(server), *take.split()], check=True, capture_output=True)
        assert httpx.post(f"{server.url}/count").status_code == 200
    assert "worker.died" not in server.said()


def test_master_killed(tmp_path: Path) -> None:
    """Workers and engine follow it; a new one starts at once on the same port and folder; nothing is lost."""
    with serving(KINDS, tmp_path) as server:
        user = User(server, "master@example.com").sign_up()
        load = Load(server)
        time.sleep(0.5)
        family = server.family()
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(5)
        server.log.write_text("")
        server.start()
        _, alive = psutil.wait_procs(family, 10)
        assert not alive, alive
        until(lambda: healthy(server))
        time.sleep(0.3)
        load.stop()
        check_counted(server, load)
        assert user.get("/who").status_code == 200


def test_engine_left_behind(tmp_path: Path) -> None:
    """An engine that a killed master could not take along is stopped by the next one, which keeps its data."""
    server = Server(KINDS, tmp_path)
    try:
        server.start()
        httpx.post(f"{server.url}/count")
        server.stop()
        options = {"port": 0, "dir": server.data / "redis", "appendonly": "yes"}
        options["unixsocket"] = server.data / "redis" / "engine.sock"
        words = [find_binary(), *(str(word) for name, value in options.items() for word in (f"--{name}", value))]
        left = subprocess.Popen(words, cwd=server.data / "redis", stdout=subprocess.DEVNULL)
        time.sleep(0.5)
        server.log.write_text("")
        server.start()
        assert left.wait(10) == 0
        assert httpx.post(f"{server.url}/count").json() == {"count": 2}
        server.stop()
    finally:
        server.kill()


def test_stop_drains(server: Server) -> None:
    """SIGTERM: a request under way is answered, then all ends, the engine last."""
    with httpx.Client(base_url=server.url, timeout=10) as client, ThreadPoolExecutor(2) as pool:
        client.get("/pid")  # to make a client takes longer than what follows
        under_way = pool.submit(client.get, "/slow")
        time.sleep(0.3)
        server.process.terminate()
        assert under_way.result().status_code == 200
    assert server.process.wait(10) == 0
    assert not server.family()


def test_stop_of_idle_is_quick(server: Server) -> None:
    with httpx.Client() as client:
        client.get(f"{server.url}/pid")  # a connection that is kept open must not keep the server
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 5


def test_reload_without_a_failed_request(server: Server) -> None:
    load = Load(server)
    time.sleep(0.5)
    for _ in range(2):
        before = {each.pid for each in server.workers()}
        source = (server.folder / "server.py").read_text()
        (server.folder / "server.py").write_text(source.replace('"pot"', '"kettle"'))
        done = server.said().count("master.reloaded")
        server.process.send_signal(signal.SIGHUP)
        until(lambda done=done: server.said().count("master.reloaded") > done, 30)
        until(lambda before=before: not before & {each.pid for each in server.workers()})
    time.sleep(0.3)
    load.stop()
    assert set(load.outcomes) == {"200"}, load.outcomes
    check_counted(server, load)
    assert httpx.get(f"{server.url}/teapot").headers["x-kind"] == "kettle"


def test_reload_of_broken_code(server: Server) -> None:
    (server.folder / "server.py").write_text("this is no Python")
    server.process.send_signal(signal.SIGHUP)
    server.wait_said("master.reload.failed")
    assert "SyntaxError" in server.said()
    assert [httpx.get(f"{server.url}/pid").status_code for _ in range(20)] == [200] * 20


def test_notify_output_is_one_line_an_event(server: Server) -> None:
    """Nothing that a client sends forges a line of the log."""
    httpx.get(f"{server.url}/nowhere/%0a12:00:00%20error%20forged%1b[31m")
    server.wait_said("/nowhere/")
    assert not any(line.startswith("12:00:00 error forged") for line in server.said().splitlines())
    assert "\x1b" not in server.said()
