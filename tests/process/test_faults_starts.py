"""What a server can't start with, or on: it says so, and ends."""

import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import KINDS, SHOEBOX, Server, User, free_port, mail_to, name_of, serving, token_in
from tests.kit.external import ExternalRedis, external
from tests.kit.waiting import healthy, start_fails, until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of this test's own, to be broken."""
    with serving(KINDS, tmp_path) as made:
        yield made


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
