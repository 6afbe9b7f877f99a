"""Two workers that remember sessions: what is done at one is seen at both, by the next request."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest

from backlore.core.stamps import EMPTY
from backlore.services.identity.openid import LinkedProvider, links_key
from backlore.services.identity.sessions import public_id, session_key
from backlore.services.identity.users import user_key
from tests.conftest import KINDS, PASSWORD, Server, User, run_in_application, serving, token_in
from tests.kit.accounts import FREE, NEW, id_of, redis, reset, told
from tests.kit.authenticator import Device, add, begin
from tests.kit.totp import code_of

ENDED = "session"


# Two workers


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(KINDS, tmp_path_factory.mktemp("stamps"), settings=FREE) as made:
        yield made


def cookie_of(user: User) -> str:
    return "; ".join(f"{name}={value}" for name, value in user.cookies.items())


class Workers:
    """A connection to each of two, which stays open."""

    cookies: dict[User, str] = {}  # those that a user first came with

    def __init__(self, server: Server):
        self.lines: dict[int, httpx.Client] = {}
        while len(self.lines) < 2:
            line = httpx.Client(base_url=server.url, timeout=10)
            self.lines.setdefault(line.get("/pid").json()["pid"], line)

    def see(self, user: User, path: str = "/auth/csrf") -> list[Any]:
        """What each says: address and flag, or the error."""
        said = []
        for line in self.lines.values():
            got = line.get(path, headers={"cookie": self.cookies.setdefault(user, cookie_of(user))}).json()
            line.cookies.clear()
            said.append(got["error"] if "error" in got else (got["user"]["email"], got["user"]["admin"]))
        return said


@pytest.fixture(scope="module")
def workers(server: Server) -> Workers:
    return Workers(server)


@pytest.fixture(scope="module")
def boss(server: Server) -> User:
    return User(server, "admin@example.com").sign_up()


class Scene:
    """A user with two sessions, and an admin."""

    def __init__(self, server: Server, boss: User, email: str):
        self.server = server
        self.user = User(server, email).sign_up()
        self.other = User(server, email).log_in()
        self.id = id_of(self.user)
        self.boss = boss

    def post(self, path: str, **body: Any) -> Any:
        got = self.user.post(path, json=body)
        assert got.status_code == 200, got.text
        return got.json()

    def by_boss(self, act: str, **body: Any) -> None:
        assert self.boss.post(f"/admin/users/{self.id}/{act}", json=body).json() == {}

    def prove(self, path: str, **body: Any) -> Any:
        return self.post(path, password=PASSWORD, **body)

    def by_command(self, *words: str) -> None:
        place = ["--app", str(self.server.folder), "--data", str(self.server.data)]
        command = [sys.executable, "-m", "backlore.cli", "user", *place, *words, self.user.email]
        subprocess.run(command, check=True, capture_output=True)

    def change_email(self) -> None:
        self.prove("/auth/changeEmail", email="moved@example.com")
        self.post("/auth/verifyEmail", token=token_in(told(self.server, "moved@example.com", "#verify="), "verify"))

    def confirm(self) -> None:
        self.post("/auth/totp/confirm", code=code_of(self.secret))

    def erase(self) -> None:
        """What the tasks process does with an erasure that was cut."""
        redis(self.server, "sadd", "destroying", self.id)
        redis(self.server, "hset", user_key(self.id), "state", "destroying")
        run_in_application(self.server, "server.app.identity.erasure.resume()")

    # What some acts need before

    def begin_totp(self) -> None:
        self.secret = self.prove("/auth/totp/begin")["secret"]

    def set_up_totp(self) -> None:
        self.begin_totp()
        self.confirm()
        self.other = self.user

    def add_passkey(self) -> None:
        device = Device(self.server.port)
        assert add(self.user, device.create(begin(self.user)))[0] == 200
        self.passkey = self.user.get("/auth/passkeys").json()["passkeys"][0]["id"]
        self.other = self.user

    def add_link(self) -> None:
        link = msgspec.json.encode(LinkedProvider("https://issuer.example", "1", 0)).decode()
        redis(self.server, "hset", links_key(self.id), "issuer", link)


Act = Callable[[Scene], Any]
# What somebody does; what is seen then by the session that does it and by the other one (None: what a hand has written
# into redis before, which nobody sees who remembers); what is needed before.
STAYS = None
ACTS: dict[str, tuple[Act, Any, Any, Act | None]] = {
    "logout": (lambda s: s.post("/auth/logout"), ENDED, STAYS, None),
    "end of one": (
        lambda s: s.post("/auth/sessions/end", id=public_id(s.other.cookies["kinds"].partition(".")[0])),
        STAYS,
        ENDED,
        None,
    ),
    "end of others": (lambda s: s.post("/auth/sessions/end", others=True), STAYS, ENDED, None),
    "end of all": (lambda s: s.by_boss("endSessions"), ENDED, ENDED, None),
    "reset": (lambda s: reset(s.server, s.user), ENDED, ENDED, None),
    "password": (lambda s: s.post("/auth/changePassword", old=PASSWORD, new=NEW), STAYS, ENDED, None),
    "address": (Scene.change_email, "moved@example.com", "moved@example.com", None),
    "disabled": (lambda s: s.by_boss("disable"), ENDED, ENDED, None),
    "disabled, by command": (lambda s: s.by_command("disable"), ENDED, ENDED, None),
    "destroyed": (lambda s: s.prove("/auth/destroy"), ENDED, ENDED, None),
    "destroyed by an admin": (lambda s: s.by_boss("destroy"), ENDED, ENDED, None),
    "destroyed by the task": (Scene.erase, ENDED, ENDED, None),
    "totp on": (Scene.confirm, STAYS, ENDED, Scene.begin_totp),
    "totp off": (lambda s: s.prove("/auth/totp/remove"), STAYS, STAYS, Scene.set_up_totp),
    "recovery codes": (lambda s: s.prove("/auth/recoveryCodes"), STAYS, STAYS, Scene.set_up_totp),
    "passkey on": (Scene.add_passkey, STAYS, ENDED, None),
    "passkey off": (lambda s: s.prove("/auth/passkeys/remove", id=s.passkey), STAYS, STAYS, Scene.add_passkey),
    "link off": (lambda s: s.prove("/auth/links/remove", provider="issuer"), STAYS, STAYS, Scene.add_link),
    "factors off": (lambda s: s.by_boss("removeFactors"), STAYS, STAYS, Scene.set_up_totp),
}


@pytest.mark.parametrize("name", ACTS)
def test_what_is_done_is_seen_by_the_next_request(server: Server, workers: Workers, boss: User, name: str) -> None:
    act, mine, others, prepare = ACTS[name]
    email = f"{name.replace(' ', '-').replace(',', '')}@example.com"
    scene = Scene(server, boss, email)
    if prepare:
        prepare(scene)
    shown = f"hand-{email}"
    by_hand = STAYS in (mine, others)
    assert workers.see(scene.user) == workers.see(scene.other) == [(email, False)] * 2
    if by_hand:
        redis(server, "hset", user_key(scene.id), "email", shown)
        assert workers.see(scene.user) == workers.see(scene.other) == [(email, False)] * 2  # remembered
    first, second = scene.user, scene.other
    act(scene)
    for user, seen in ((first, mine), (second, others)):
        right = seen if seen == ENDED else (seen or (shown if by_hand else email), False)
        assert workers.see(user) == [right] * 2


def test_a_flag_is_seen_at_the_admins_gate(server: Server, workers: Workers, boss: User) -> None:
    scene = Scene(server, boss, "flagged@example.com")
    path, acts = f"/admin/users/{'a' * 16}", [lambda flag: scene.by_boss("admin", admin=flag)] * 5
    acts.append(lambda flag: scene.by_command("admin", *([] if flag else ["--off"])))
    assert workers.see(scene.user, path) == ["admin"] * 2
    for act in acts:
        for flag, said in ((True, "user"), (False, "admin")):
            act(flag)
            assert workers.see(scene.user, path) == [said] * 2
            assert workers.see(scene.other) == [("flagged@example.com", flag)] * 2


def test_reads_go_on_while_redis_is_away(server: Server, workers: Workers) -> None:
    user = User(server, "reads@example.com").sign_up()
    assert workers.see(user) == [("reads@example.com", False)] * 2
    engine, until = server.engine(), time.monotonic() + 1
    engine.suspend()
    try:
        while time.monotonic() < until:
            assert workers.see(user) == [("reads@example.com", False)] * 2
    finally:
        engine.resume()


def test_a_worker_outlives_its_file(server: Server, workers: Workers) -> None:
    """Cut short, deleted, and put back: no worker dies, and none shows what has ended."""
    file, living = server.data / "stamps", set(workers.lines)
    for number, hurt in enumerate((lambda: file.write_bytes(b""), file.unlink, lambda: file.write_bytes(EMPTY))):
        user = User(server, f"file-{number}@example.com").sign_up()
        assert workers.see(user) == [(user.email, False)] * 2
        hurt()
        assert workers.see(user) == [(user.email, False)] * 2
        user.post("/auth/logout")
        if number == 1:  # deleted: who has not asked since may have what nobody else has any more
            continue
        assert workers.see(user) == [ENDED] * 2
    assert {each.pid for each in server.workers()} == living


# A worker that remembers nothing


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(KINDS, tmp_path_factory.mktemp("forgetful"), settings=FREE | {"session_memory": 0}) as made:
        yield made


def test_a_get_writes_nothing(forgetful: Server) -> None:
    """A session is renewed when 2 % of its time has gone by: each GET asks redis, which has nothing to keep."""
    user = User(forgetful, "writes@example.com").sign_up()
    session = session_key(user.cookies["kinds"].partition(".")[0])
    log = next((forgetful.data / "redis" / "appendonlydir").glob("*.incr.aof"))

    def written(after: int) -> int:
        return log.read_bytes()[after:].count(session.encode())

    assert user.get("/who").status_code == 200  # the first use renews it
    before, request = log.stat().st_size, f"GET /who HTTP/1.1\r\nhost: x\r\ncookie: {cookie_of(user)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", forgetful.port), 20) as line, line.makefile("rb") as replies:
        line.sendall(request.encode() * 1000)
        line.shutdown(socket.SHUT_WR)
        assert replies.read().count(b"HTTP/1.1 200 ") == 1000
    assert written(before) == 0
    idle = int(redis(forgetful, "ttl", session))
    for share, renewals in ((0.985, 0), (0.975, 1)):
        redis(forgetful, "expire", session, str(int(idle * share)))
        before = log.stat().st_size
        assert user.get("/who").status_code == 200
        assert written(before) == renewals
    assert int(redis(forgetful, "ttl", session)) >= idle - 1


def test_who_remembers_nothing_asks_each_time(forgetful: Server) -> None:
    user, workers = User(forgetful, "asks@example.com").sign_up(), Workers(forgetful)
    assert workers.see(user) == [("asks@example.com", False)] * 2
    redis(forgetful, "hset", user_key(id_of(user)), "email", "hand@example.com")
    assert workers.see(user) == [("hand@example.com", False)] * 2
    assert not (forgetful.data / "stamps").exists()
