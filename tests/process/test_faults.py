"""What dies, hangs or is full: each with a real process, really killed. Acknowledged means kept."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from backlore.clients.redis.client import Redis
from backlore.clients.smtp import Outbox
from backlore.core.keys import key
from backlore.core.notify import Notify
from backlore.process.program import find_binary
from backlore.services.identity.tokens import token_key
from backlore.services.mail.mail import Mail
from tests.conftest import (
    KEEPING,
    KINDS,
    PASSWORD,
    SHOEBOX,
    Server,
    User,
    engine_cli,
    free_port,
    mail_to,
    name_of,
    run_in_application,
    serving,
    token_in,
    words_of,
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of this test's own, to be broken."""
    with serving(KINDS, tmp_path) as made:
        yield made


def until(check: Callable[[], object], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if check():
                return
        except (httpx.TransportError, psutil.NoSuchProcess, StopIteration):
            pass
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def healthy(server: Server) -> bool:
    return httpx.get(f"{server.url}/health", timeout=3).status_code == 200


class Load:
    """Clients that keep counting up in redis, and remember what was acknowledged."""

    def __init__(self, server: Server, clients: int = 8):
        self.acknowledged: list[int] = []
        self.outcomes: Counter[str] = Counter()
        self._server = server
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(clients)
        self._running = [self._pool.submit(self._run) for _ in range(clients)]

    def _run(self) -> None:
        with User(self._server) as user:
            while not self._stop.is_set():
                try:
                    got = user.post("/count", timeout=10)
                except httpx.TransportError as error:
                    self.outcomes[type(error).__name__] += 1
                    continue
                self.outcomes[str(got.status_code)] += 1
                if got.status_code == 200:
                    self.acknowledged.append(got.json()["count"])

    def stop(self) -> None:
        self._stop.set()
        for each in self._running:
            each.result(30)
        self._pool.shutdown()


def check_counted(server: Server, load: Load) -> None:
    """No acknowledged step was lost and none given twice."""
    assert len(set(load.acknowledged)) == len(load.acknowledged) > 0
    assert httpx.post(f"{server.url}/count").json()["count"] > max(load.acknowledged)


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


def start_fails(server: Server) -> str:
    """What it says when it can't start; it must end by itself, with 1."""
    server.start(wait=False)
    assert server.process.wait(20) == 1, server.said()
    assert not server.family()
    return server.said()


def test_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = start_fails(Server(KINDS, tmp_path, port=taken.getsockname()[1]))
    assert "Can't listen on 127.0.0.1" in said and "--port" in said and "Traceback" not in said


def test_second_instance(server: Server, tmp_path: Path) -> None:
    said = start_fails(Server(KINDS, tmp_path / "second", data=server.data))
    assert f"in use by process {server.process.pid}" in said and "Traceback" not in said
    assert healthy(server)


def test_data_folder_that_cannot_be_written(tmp_path: Path) -> None:
    for data in ("/proc/nothing", "/dev/null/data"):
        shutil.rmtree(tmp_path / "app", ignore_errors=True)
        said = start_fails(Server(KINDS, tmp_path, data=data))
        assert "can't be written" in said and "--data" in said and "Traceback" not in said
        (tmp_path / "log").unlink()


def test_long_data_folder(tmp_path: Path) -> None:
    """A unix socket's path has 108 bytes at most; a data folder may be longer, in bytes if not in characters."""
    for name in ("x" * 200, "ü" * (95 - len(str(tmp_path)))):
        with serving(KINDS, tmp_path / name[0], data=tmp_path / name) as server:
            assert healthy(server)


def test_broken_application(tmp_path: Path) -> None:
    server = Server(KINDS, tmp_path)
    (server.folder / "server.py").write_text("import nothing_of_this_name")
    said = start_fails(server)
    assert "ModuleNotFoundError" in said and "nothing_of_this_name" in said


CONFIGS = [
    # config.py, what is said
    ('CONFIG = {"name": "x", "prot": 8000}', "config.py: prot: Is not known here. Known are: name, host, port"),
    ('CONFIG = {"name": "x", "port": "8000"}', "config.py: port: Should be a whole number, not a string."),
    ('CONFIG = {"name": "x", "port": 70000}', "config.py: port: Should be at most 65535."),
    ('CONFIG = {"port": 8000}', "config.py: name: Is missing."),
    ('CONFIG = {"name": "x", "redis": {"prot": 1}}', "config.py: redis.prot: Is not known here."),
    ('CONFIG = {"name": "x", "redis": {"embedded": "redis-server"}}', "redis.embedded: Should be like /usr/bin/valkey"),
    ('CONFIG = {"name": "x", "redis": {"embedded": "/x", "port": 1}}', "config.py: redis.embedded: stands alone"),
    ('CONFIG = {"name": "x", "durability": "never"}', "config.py: durability: "),
    ("CONFIG = 3", "config.py: CONFIG should be a dict."),
    ("x = 1", "config.py has no CONFIG"),
]


@pytest.mark.parametrize(("config", "said"), CONFIGS)
def test_wrong_configuration(tmp_path: Path, config: str, said: str) -> None:
    server = Server(KINDS, tmp_path)
    server.words = [word for word in server.words if word != "--port" and word != str(server.port)]
    (server.folder / "config.py").write_text(config)
    heard = start_fails(server)
    assert said in heard and "Traceback" not in heard


def test_wrong_folder_and_environment(tmp_path: Path) -> None:
    for words, said in [(["--app", str(tmp_path)], "config.py is missing"), (["../x"], "no name of an environment")]:
        words = [sys.executable, "-m", "backlore.cli", "run", "--app", str(KINDS), *words]
        got = subprocess.run(words, capture_output=True, text=True, timeout=20)
        assert got.returncode == 1 and said in got.stderr


def test_secret(tmp_path: Path) -> None:
    """Made on the first run, for its owner only, different each time; a wrong one is refused and not shown."""
    made = set()
    for name in ("a", "b"):
        with serving(KINDS, tmp_path / name) as server:
            file = server.folder / "secret.py"
            assert file.stat().st_mode & 0o777 == 0o600
            made.add(file.read_text())
    assert len(made) == 2
    file.write_text('SECRET = {"cookie": "short-and-known"}')
    said = start_fails(Server(KINDS, tmp_path / "b"))
    assert "secret.py: cookie: Should have at least 32 characters." in said and "short-and-known" not in said


def test_environment_splits_a_property(tmp_path: Path) -> None:
    """In prod Shoebox is reached by https: Secure cookies with the __Host- prefix, and HSTS."""
    with serving(SHOEBOX, tmp_path, env="prod") as server, User(server) as user:
        login = {"email": "prod@example.com", "password": "long enough password"}
        user.post("/auth/signup", json=login)
        link = mail_to(server, "prod@example.com")
        assert "https://shoebox.example/#verify=" in link  # in prod an address is verified first
        user.post("/auth/verifyEmail", json={"token": token_in(link, "verify"), "password": login["password"]})
        given = user.post("/auth/login", json=login)
        assert given.headers["set-cookie"].startswith("__Host-shoebox=") and "; Secure" in given.headers["set-cookie"]
        assert "max-age=31536000" in given.headers["strict-transport-security"]


class ExternalRedis:
    """A redis beside the server, as in production."""

    def __init__(self, folder: Path, *options: str, program: str = ""):
        self.port = free_port()
        folder.mkdir(exist_ok=True)
        words = [
            program or find_binary(),
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(folder),
            "--save",
            "",
        ]
        self.process = subprocess.Popen([*words, *options], stdout=subprocess.DEVNULL)

    def __enter__(self) -> "ExternalRedis":
        until(self._answers)
        return self

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return bool(connection.recv(100))
        except OSError:
            return False

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


def external(folder: Path, redis: dict, password: str | None = None) -> Server:
    server = Server(KINDS, folder)
    config = {"name": "kinds", "redis": redis, "admins": ["admin@example.com"]}
    (server.folder / "config.py").write_text(f"CONFIG = {config!r}")
    secret = {"cookie": "c" * 40, **({"redis_password": password} if password else {})}
    (server.folder / "secret.py").write_text(f"SECRET = {secret!r}")
    return server


def test_external_redis(tmp_path: Path) -> None:
    with ExternalRedis(tmp_path / "redis", "--requirepass", "pass-word") as redis:
        address = {"host": "127.0.0.1", "port": redis.port}
        server = external(tmp_path / "good", address, "pass-word")
        try:
            server.start()
            assert User(server, "external@example.com").sign_up().get("/who").status_code == 200
            assert not any("-server" in name_of(each) for each in server.family())
            redis.process.send_signal(signal.SIGSTOP)
            assert httpx.get(f"{server.url}/health").status_code == 503
            redis.process.send_signal(signal.SIGCONT)
            until(lambda: healthy(server), 5)
            server.stop()
        finally:
            server.kill()
        said = start_fails(external(tmp_path / "wrong", address, "wrong-word"))
        assert "refuses the login" in said and "redis_password" in said and "wrong-word" not in said
        said = start_fails(external(tmp_path / "none", address))
        assert "refuses the login" in said
    said = start_fails(external(tmp_path / "gone", address))
    assert "can't be reached" in said and "Traceback" not in said


def test_external_redis_read_only(tmp_path: Path) -> None:
    with ExternalRedis(tmp_path / "redis", "--replicaof", "127.0.0.1", str(free_port())) as redis:
        said = start_fails(external(tmp_path, {"port": redis.port}))
    assert "read-only replica" in said


class OddRedis(threading.Thread):
    """A stand-in that speaks just enough RESP3 to be too old, or still loading: no real one stays so for a test."""

    def __init__(self, version: str, loading: int):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.version = version
        self.loading = loading

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection: socket.socket) -> None:
        with connection:
            while said := connection.recv(4096):
                words = [word for word in said.upper().split(b"\r\n") if word in (b"HELLO", b"CLIENT", b"INFO")]
                connection.sendall(b"".join(self.reply(word) for word in words))

    def reply(self, word: bytes) -> bytes:
        match word:
            case b"HELLO":
                return b"%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n"
            case b"CLIENT":
                return b"+OK\r\n"
            case b"INFO":
                if self.loading:
                    self.loading -= 1
                    return b"-LOADING Redis is loading the dataset in memory\r\n"
                text = f"redis_version:{self.version}\r\nrole:master\r\n"
                return f"${len(text)}\r\n{text}\r\n".encode()
        return b""


@pytest.mark.parametrize(
    ("version", "loading", "said"),
    [("5.0.7", 0, "is 5.0.7: 6.2 or newer is needed"), ("6.0.1", 2, "is still loading its data: waiting")],
)
def test_external_redis_odd(tmp_path: Path, version: str, loading: int, said: str) -> None:
    odd = OddRedis(version, loading)
    odd.start()
    heard = start_fails(external(tmp_path, {"port": odd.port}))
    odd.listener.close()
    assert said in heard and "Traceback" not in heard


def test_tasks_process_killed(server: Server) -> None:
    tasks = next(each for each in server.family() if "tasks" in words_of(each))
    tasks.kill()
    server.wait_said("role=tasks")
    until(lambda: any("tasks" in words_of(e) and e.pid != tasks.pid for e in server.family()))
    assert healthy(server)


def tasks_of(server: Server) -> psutil.Process:
    return next(each for each in server.family() if "tasks" in words_of(each))


def in_redis(server: Server, *words: str) -> str:
    got = subprocess.run([*engine_cli(server), *words], check=True, capture_output=True, text=True)
    return got.stdout.strip()


def test_what_cannot_be_read_ends_no_loop(server: Server) -> None:
    """Of another version: a letter, a move, a user who is to be erased, what is known of a task."""
    pid = tasks_of(server).pid
    with User(server, "ann@example.com") as user:
        user.sign_up().post("/auth/recover", json={"email": user.email})
        for command in (
            ("hset", key("mail", "outletters"), "odd", "{"),
            ("zadd", key("mail", "outdue"), "0", "odd"),
            ("hset", key("blob", "odduser", "b"), "size", "many"),
            ("zadd", key("moves", "odduser"), "0", "b"),
            ("zadd", key("moves", "all"), "0", "odduser"),
            ("hset", key("user", "odd"), "email", "odd@example.com", "created", "never"),
        ):
            in_redis(server, *command)
        for kind in ("kind=mail name=odd", 'kind=move name="odduser b"'):
            assert server.wait_said(kind).count(kind) == 1
        # one that is to be erased holds up no other, who is erased within a period of that task and a lease
        in_redis(server, "hset", key("user", "odd"), "state", "destroying")
        in_redis(server, "sadd", "destroying", "odd", "gone")
        until(lambda: in_redis(server, "smembers", "destroying") == "odd", 60)
        mail_to(server, user.email)
        user.post("/auth/recover", json={"email": user.email})
        mail_to(server, user.email, 2)
    assert tasks_of(server).pid == pid
    checking = [sys.executable, "-m", "backlore.cli", "check", "--app", str(server.folder), "--data", str(server.data)]
    checked = subprocess.run(checking, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 1 and "mail odd" in checked.stderr and "move odduser b" in checked.stderr


def test_what_cannot_be_read_takes_down_no_list(tmp_path: Path) -> None:
    """Nor does it open anything; what is beside it is there."""
    with serving(KEEPING, tmp_path) as server, User(server, "ann@example.com") as user:
        id = user.sign_up().get("/auth/csrf").json()["user"]["id"]
        made = user.post("/files", files={"file": ("f", b"content")}, data={"name": "a"})
        assert made.status_code == 200
        for name, field in (
            (key("sessions", id), "odd"),
            (key("passkeys", id), "odd"),
            (key("files", id), "odd"),
            (key("trash", id), "odd"),
        ):
            in_redis(server, "hset", name, field, '{"session": 7}')
        in_redis(server, "zadd", key("newest", id), "1", "odd")
        in_redis(server, "zadd", key("trashed", id), "1", "odd")
        in_redis(server, "set", token_key("reset", f"{id[:3]}{'a' * 26}"), "{")
        in_redis(server, "hset", key("upload", id, "b" * 32), "ended", "", "expires", str(1 << 52), "pieces", "{")
        assert len(user.get("/auth/sessions").json()["sessions"]) == 1
        assert user.get("/auth/passkeys").json()["passkeys"] == []
        assert [each["name"] for each in user.get("/files").json()["files"]] == ["a"]
        assert user.get("/files/trash").json()["files"] == []
        assert user.get("/files/content/odd").status_code == 404
        assert user.head(f"/files/tus/{'b' * 32}", headers={"tus-resumable": "1.0.0"}).status_code == 404
        reset = user.post("/auth/reset", json={"token": f"{id[:3]}{'a' * 26}", "password": PASSWORD})
        assert (reset.status_code, reset.json()) == (403, {"error": "token"})


LETTERS = 40


def test_letters_outlive_kills_of_the_tasks_process(server: Server) -> None:
    """At any moment: whatever was acknowledged leaves."""
    acknowledged: list[str] = []

    async def send() -> None:
        redis = Redis(unix_socket_path=str(server.data / "redis" / "engine.sock"), timeout=5)
        names = {"application": "Kinds", "address": server.url, "sender": "kinds@example.com"}
        mail = Mail(redis, Notify(), Outbox(server.data / "unused"), **names)
        chance = random.Random(7)
        for number in range(LETTERS):
            to = f"user{number}@example.com"
            await mail.send(to, "taken", {"link": server.url})
            acknowledged.append(to)
            if number % 8 == 4:
                await asyncio.sleep(chance.uniform(0, 0.4))  # until its letters are looked at
                with contextlib.suppress(StopIteration, psutil.NoSuchProcess):
                    tasks_of(server).kill()
        await redis.aclose()

    asyncio.run(send())
    until(lambda: {path.read_text().split("To: ")[1].split()[0] for path in outbox(server)} >= set(acknowledged), 90)


def outbox(server: Server) -> list[Path]:
    return list((server.data / "outbox").glob("[!.]*.eml"))


def test_signup_cut_by_a_crash(tmp_path: Path) -> None:
    """A user without its index, as a crash between two steps leaves it, is found again by the consistency check."""
    with serving(KINDS, tmp_path) as server:
        user = User(server, "cut@example.com").sign_up()
        cli = engine_cli(server)
        names = subprocess.run([*cli, "keys", "*cut@example.com"], capture_output=True, text=True).stdout.split()
        assert len(names) == 1
        subprocess.run([*cli, "del", *names], check=True, capture_output=True)
        id = user.get("/auth/csrf").json()["user"]["id"]
        created = str(int(time.time()) - 1000)
        subprocess.run(
            [*cli, "hset", f"user:{{{id[:3]}}}{id[3:]}", "created", created], check=True, capture_output=True
        )
        assert "identity.mended" in run_in_application(server, "server.app.identity.users.mend()")
        user.log_in()


def test_notify_output_is_one_line_an_event(server: Server) -> None:
    """Nothing that a client sends forges a line of the log."""
    httpx.get(f"{server.url}/nowhere/%0a12:00:00%20error%20forged%1b[31m")
    server.wait_said("/nowhere/")
    assert not any(line.startswith("12:00:00 error forged") for line in server.said().splitlines())
    assert "\x1b" not in server.said()
