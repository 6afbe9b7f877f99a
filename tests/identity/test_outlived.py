"""What was decided on an older state changes nothing: requests, links and indexes that have outlived their reason."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backlore.core.keys import key
from backlore.services.identity.directory import email_key
from backlore.services.mail.mail import LETTERS
from tests.conftest import KINDS, MANY_USERS, PASSWORD, SHOEBOX, Server, User, mails, run_in_application, serving
from tests.kit.accounts import FREE, NEW, id_of, redis, reset
from tests.kit.authenticator import Device, add, begin
from tests.kit.engines import Engine
from tests.kit.totp import code_of, set_up
from tests.kit.waiting import until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(KINDS, tmp_path_factory.mktemp("outlived"), settings=FREE) as made:
        yield made


class Held:
    """A POST of a session whose last byte is held back."""

    def __init__(self, server: Server, user: User, path: str, body: dict):
        raw = json.dumps(body).encode()
        self.rest = raw[-1:]
        self.line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        self.line.putrequest("POST", path)
        cookies = "; ".join(f"{name}={value}" for name, value in user.cookies.items())
        headers = {"cookie": cookies, "x-csrf-token": user.csrf, "content-type": "application/json"}
        for name, value in (headers | {"content-length": str(len(raw))}).items():
            self.line.putheader(name, value)
        self.line.endheaders(raw[:-1])

    def let_go(self) -> tuple[int, str]:
        self.line.send(self.rest)
        got = self.line.getresponse()
        answer = json.loads(got.read())
        self.line.close()
        return got.status, answer.get("error", "")


def test_what_was_begun_before_a_reset_adds_nothing(server: Server) -> None:
    """10: neither by a request held open over the reset, nor by a session of afterwards with what was begun before."""
    user, device = User(server, "held@example.com").sign_up(), Device(server.port)
    begun = begin(user)
    secret = user.post("/auth/totp/begin", json={"password": PASSWORD}).json()["secret"]
    sent = {"credential": device.create(begun), "name": "A stranger's"}
    held = [
        Held(server, user, "/auth/passkeys/add", sent),
        Held(server, user, "/auth/totp/confirm", {"code": code_of(secret)}),
        Held(server, user, "/auth/recoveryCodes", {"password": PASSWORD}),
        Held(server, user, "/auth/changePassword", {"old": PASSWORD, "new": "the stranger's own"}),
        Held(server, user, "/auth/changeEmail", {"email": "stranger@example.com", "password": PASSWORD}),
        Held(server, user, "/auth/destroy", {"password": PASSWORD}),
    ]
    reset(server, user)
    assert {each.let_go()[0] for each in held} == {403}
    given = user.post("/auth/login", json={"email": user.email, "password": NEW})
    user.headers["x-csrf-token"] = given.json()["csrf"]
    assert user.post("/auth/passkeys/add", json=sent).json() == {"error": "passkey"}
    assert user.post("/auth/totp/confirm", json={"code": code_of(secret)}).json() == {"error": "token"}
    assert user.get("/auth/factors").json() == {"password": True, "totp": False, "recoveryCodes": 0}
    assert not mails(server, "stranger@example.com")


def test_of_two_that_were_begun_one_is_added(server: Server) -> None:
    """10: the second was begun for a user who is another one by then."""
    user = User(server, "both@example.com").sign_up()
    challenge = begin(user)
    secret = user.post("/auth/totp/begin", json={"password": PASSWORD}).json()["secret"]
    assert add(user, Device(server.port).create(challenge))[0] == 200
    assert user.post("/auth/totp/confirm", json={"code": code_of(secret)}).json() == {"error": "token"}


def test_a_demoted_admin_acts_no_more(server: Server) -> None:
    """10: with a request that was held open meanwhile."""
    boss = User(server, "admin@example.com").sign_up()
    helper, victim = User(server, "helper@example.com").sign_up(), User(server, "victim@example.com").sign_up()
    helpers, victims = (f"/admin/users/{id_of(each)}" for each in (helper, victim))
    assert boss.post(f"{helpers}/admin", json={"admin": True}).json() == {}
    held = [Held(server, helper, f"{victims}/admin", {"admin": True}), Held(server, helper, f"{victims}/destroy", {})]
    assert boss.post(f"{helpers}/admin", json={"admin": False}).json() == {}
    assert [each.let_go() for each in held] == [(403, "admin")] * 2
    assert victim.get("/auth/csrf").json()["user"]["admin"] is False


def test_an_admin_takes_off_what_is_added_meanwhile(server: Server) -> None:
    boss = User(server, "admin@example.com").log_in()
    user, device = User(server, "taken-off@example.com").sign_up(), Device(server.port)
    sent = {"credential": device.create(begin(user)), "name": "Late"}
    assert boss.post(f"/admin/users/{id_of(user)}/removeFactors").json() == {}
    assert user.post("/auth/passkeys/add", json=sent).json() == {"error": "passkey"}


# What names a browser


def test_known_browsers_share_one_limit_and_end(tmp_path: Path) -> None:
    """14: twenty are known, forty guess no more than one, and a change of password makes strangers of them."""
    limits = {"login-account": (3, 600), "login-device": (3, 600), "password": (100, 60)}
    with serving(KINDS, tmp_path, settings={"rates": MANY_USERS["rates"] | limits}) as server:
        email = "devices@example.com"
        owner = User(server, email).sign_up()
        browsers = [User(server, email).log_in() for _ in range(24)]
        devices = key("devices", id_of(owner))
        assert redis(server, "zcard", devices) == "20" and 0 < int(redis(server, "ttl", devices)) <= 90 * 86400
        assert browsers[-1].cookies["kinds-device"].partition(".")[0] not in redis(server, "zrange", devices, "0", "-1")
        guess = {"email": email, "password": "a wrong password"}
        got = [each.post("/auth/login", json=guess).status_code for each in browsers[-20:]]
        assert (got.count(403), got.count(429)) == (6, 14)  # three of everybody, three of all browsers together
        last = browsers[-1]
        assert last.post("/auth/changePassword", json={"old": PASSWORD, "new": NEW}).json() == {}
        assert redis(server, "zcard", devices) == "1"  # the one that asked
        reset(server, last)
        assert redis(server, "exists", devices) == "0"


def test_a_new_factor_forgets_browsers(server: Server) -> None:
    user, secret, _ = set_up(server, "forgets@example.com")
    User(server, user.email)
    devices = key("devices", id_of(user))
    assert redis(server, "zcard", devices) == "1"
    with User(server, user.email) as other:
        ticket = other.post("/auth/login", json={"email": user.email, "password": PASSWORD}).json()["ticket"]
        assert other.post("/auth/second", json={"ticket": ticket, "code": code_of(secret)}).status_code == 200
    assert redis(server, "zcard", devices) == "2"
    assert user.post("/auth/totp/remove", json={"password": PASSWORD}).json() == {}
    assert redis(server, "zcard", devices) == "1"


# What leads to the wrong account


def test_a_stale_place_opens_nothing(server: Server) -> None:
    """20: what a move that was cut has left: the old address leads to nobody, and is free."""
    user, other = (User(server, f"{name}@places.example").sign_up() for name in ("here", "there"))
    redis(server, "set", email_key("before@places.example"), id_of(user))
    login = {"email": "before@places.example", "password": PASSWORD}
    assert user.post("/auth/login", json=login).json() == {"error": "auth"}
    user.post("/auth/recover", json={"email": "before@places.example"})
    until(lambda: redis(server, "hlen", LETTERS) == "0")  # what it would say is decided when it leaves
    next_owner = User(server, "before@places.example").sign_up()
    assert len({id_of(each) for each in (user, other, next_owner)}) == 3
    assert not mails(server, "here@places.example") and not mails(server, "before@places.example")
    # what leads to an account that has the address, or is being taken, is nobody else's
    assert next_owner.post("/auth/signup", json=login).json() == {"error": "email"}
    redis(server, "set", email_key("soon@places.example"), "abcdefghijklmnop", "ex", "60")
    assert user.post("/auth/signup", json=login | {"email": "soon@places.example"}).json() == {"error": "email"}


def test_the_check_leads_back_only_to_who_is_there(server: Server) -> None:
    """20: an address whose place leads to somebody else who doesn't have it."""
    user, other = (User(server, f"{name}@back.example").sign_up() for name in ("one", "two"))
    redis(server, "set", email_key("one@back.example"), id_of(other))
    redis(server, "hset", key("user", id_of(user)), "created", "1600000000")
    run_in_application(server, "server.app.identity.users.mend()")
    assert redis(server, "get", email_key("one@back.example")) == id_of(user)
    assert redis(server, "ttl", email_key("one@back.example")) == "-1"


# What comes after the end


def test_what_is_written_after_an_erasure_is_erased(tmp_path: Path) -> None:
    """10: by a request that was under way, however slow: once more, a while later."""
    with serving(SHOEBOX, tmp_path, settings=FREE) as server:
        user = User(server, "late@example.com").sign_up()
        id = id_of(user)
        begun = begin(user)
        device = Device(server.port)
        assert user.post("/auth/destroy", json={"password": PASSWORD}).json() == {}
        assert add(user, device.create(begun))[0] == 403
        redis(server, "hset", key("note", id, 1), "text", "late", "tags", "[]")  # as a handler that was in the middle
        redis(server, "zadd", key("notes", id), "1", "1")
        run_in_application(server, "server.app.identity.erasure.resume()")
        assert redis(server, "exists", key("notes", id)) == "1"  # not before its time
        redis(server, "zadd", "erased", "1", id)
        run_in_application(server, "server.app.identity.erasure.resume()")
        assert redis(server, "exists", key("notes", id), key("note", id, 1), "erased") == "0"
        assert len(mails(server, user.email)) == 1  # who has gone is told once


FAILS = """
async def fail(user):
    if not (app.settings.data / "mended").exists():
        raise RuntimeError("out of order")

app.identity.on_destroy.insert(0, fail)
"""


def test_one_eraser_that_fails_stops_no_other(tmp_path: Path) -> None:
    """34: the others have done their work, it is told, and goes on until it has succeeded."""
    made = Server(SHOEBOX, tmp_path, settings=FREE)
    with (made.folder / "server.py").open("a") as code:
        code.write(FAILS)
    try:
        server = made.start()
        user = User(server, "fails@example.com").sign_up()
        id = id_of(user)
        user.post("/notes", json={"text": "a note", "tags": ["red"]})
        assert user.post("/auth/destroy", json={"password": PASSWORD}).json() == {}
        server.wait_said("account.not_erased")
        assert "out of order" in server.said()
        assert redis(server, "exists", key("notes", id)) == "0"
        assert redis(server, "exists", key("user", id)) == "1"
        login = {"email": user.email, "password": PASSWORD}
        assert user.post("/auth/login", json=login).json() == {"error": "auth"}
        (server.data / "mended").touch()
        run_in_application(server, "server.app.identity.erasure.resume()")
        assert redis(server, "exists", key("user", id)) == "0"
        server.stop()
    finally:
        made.kill()


def test_the_limit_of_a_session_goes_by_redis_clock(server: Server) -> None:
    """9: what a node's own clock says ends no session, and keeps none."""
    user = User(server, "clock@example.com").sign_up()
    session = user.cookies["kinds"].partition(".")[0]
    now = int(redis(server, "time").split()[0])
    held = redis(server, "get", key("session", session)).split()
    assert abs(int(held[1]) - now) < 60
    shown = run_in_application(
        server,
        f"(__import__('time').__setattr__('time', lambda: 4e9), server.app.identity.sessions.load({session!r}))[1]",
    )
    assert "Error" not in shown and user.get("/who").status_code == 200
    again = User(server, user.email).log_in()  # a session that no worker remembers yet
    session = again.cookies["kinds"].partition(".")[0]
    redis(server, "set", key("session", session), f"{held[0]} {now - 91 * 86400}")
    assert again.get("/who").json() == {"error": "session"}


class Far:
    """The way to a redis that is far away: each piece of what is said takes so many seconds."""

    def __init__(self, path: str, seconds: float):
        self.seconds, self.path = seconds, path
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, far = self.listening.accept()[0], socket.socket(socket.AF_UNIX)
                far.connect(self.path)
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self.carry, args=ends, daemon=True).start()

    def carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                time.sleep(self.seconds)
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)


def test_no_link_is_signed_for_after_its_session(tmp_path: Path, engine: Engine) -> None:
    """16: what ends sessions ends them in the step that changes the user, and who signs is looked at behind it."""
    far = Far(engine.path, 0.02)
    own = {"redis": {"host": "127.0.0.1", "port": far.port}}
    with serving(SHOEBOX, tmp_path, workers=1, settings=FREE | own) as server:
        user, owner = (User(server, "hasty@example.com") for _ in range(2))
        user.sign_up()
        assert user.post("/files", files={"file": ("a.txt", b"secret")}).status_code == 200
        owner.log_in()
        urls: list[str] = []

        def sign() -> None:
            with User(server) as hand:
                hand.cookies.update(user.cookies)
                hand.headers["x-csrf-token"] = user.csrf
                while (got := hand.post("/files/link", json={"name": "a.txt"})).status_code == 200:
                    urls.append(got.json()["url"])
                assert got.json() == {"error": "session"}

        with ThreadPoolExecutor(4) as hands:
            signing = [hands.submit(sign) for _ in range(4)]
            while len(urls) < 8:
                time.sleep(0.01)
            assert owner.get(urls[0]).status_code == 200
            assert owner.post("/auth/changePassword", json={"old": PASSWORD, "new": NEW}).json() == {}
            for each in signing:
                each.result()
        assert {owner.get(url).status_code for url in set(urls)} == {403}


def test_who_is_disabled_has_no_session(server: Server) -> None:
    """10: from the moment on, also where ending the sessions was cut."""
    user = User(server, "cut@example.com").sign_up()
    id = redis(server, "get", email_key(user.email))  # no worker remembers the session yet
    redis(server, "hset", key("user", id), "state", "disabled")
    assert user.get("/who").json() == {"error": "session"}
