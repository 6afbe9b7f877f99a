"""What breaks half-way, while people sign up, prove, reset and leave: whoever tries again gets on."""

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import httpx
import psutil
import pytest
from aiosmtpd.controller import Controller

from tests.conftest import KINDS, PASSWORD, Server, engine_cli, free_port, run_in_application, serving, token_in
from tests.kit.accounts import NEW
from tests.kit.strangers import PLENTY, Stranger, cookies_of, error, links


def test_the_engine_dies_between_two_steps(tmp_path_factory: pytest.TempPathFactory) -> None:
    """While people sign up, prove, reset and leave, it dies again and again: whoever tries again gets on at last."""
    settings = PLENTY | {"verify_email": True}
    over = threading.Event()
    with serving(KINDS, tmp_path_factory.mktemp("broken"), settings=settings) as server, ThreadPoolExecutor(5) as pool:
        people = [pool.submit(live_until, over, server, number) for number in range(5)]
        try:
            for number in range(12):
                time.sleep(0.3 + 0.013 * number)  # another moment each time
                break_something(server, number)
        finally:
            over.set()
        lives = [each.result(60) for each in people]
        assert min(lives) >= 1, lives
        assert "handler.failed" not in server.said()


def break_something(server: Server, number: int) -> None:
    """The engine dies; or hangs, so that commands time out, and then dies; or a worker dies. All is back afterwards."""
    if number % 3 == 0:
        server.engine().kill()
    elif number % 3 == 1:
        engine = server.engine()
        engine.suspend()
        time.sleep(1)  # a command has 0.8 s: what runs is cut here, and what waits in the socket never runs
        engine.kill()
    else:
        server.workers()[0].kill()
    until = time.monotonic() + 10
    back = False
    while not back:
        assert time.monotonic() < until
        with contextlib.suppress(httpx.TransportError, psutil.NoSuchProcess):
            back = httpx.get(f"{server.url}/health").status_code == 200 and len(server.workers()) == 2


def live_until(over: threading.Event, server: Server, number: int) -> int:
    """One life after the other, each by an address of its own; how many there were."""
    lives = 0
    with Stranger(server) as client:
        while lives == 0 or not over.is_set():
            person = Person(server, client, f"person{number}.{lives}@example.com")
            person.gets_in()
            person.resets()
            person.leaves()
            person.gets_in()  # the address is free again
            lives += 1
    return lives


class Person:
    """Somebody who does what people do when something does not work: log in, ask anew, wait a little."""

    PATIENCE = 40  # seconds

    def __init__(self, server: Server, client: Stranger, email: str):
        self.server, self.client, self.email = server, client, email
        self.password, self.cookie, self.csrf = PASSWORD, "", ""
        self.used: set[str] = set()  # links that were opened, or were not the newest

    def gets_in(self) -> None:
        """By a signup and its link, or by the account that a cut signup has made all the same."""
        body = {"email": self.email, "password": self.password}

        def sign_up() -> None:
            self.insists(lambda: self.sends("/auth/signup", body))

        def prove() -> None:
            self.sends("/auth/verifyEmail", {"token": self.link("verify", sign_up), "password": self.password})
            if not self.is_let_in():
                self.lets_a_minute_pass()

        sign_up()
        self.insists(self.is_let_in, prove)

    def resets(self) -> None:
        """A new password by the link of a mail; the old one is worth nothing any more."""
        old, self.password = self.password, NEW

        def ask() -> None:
            self.insists(lambda: self.sends("/auth/recover", {"email": self.email}))

        def reset() -> None:
            self.sends("/auth/reset", {"token": self.link("reset", ask), "password": NEW})

        ask()
        self.insists(self.is_let_in, reset)
        by_the_old = {"email": self.email, "password": old}
        self.insists(lambda: self.asks("/auth/login", by_the_old).status_code == 403)

    def leaves(self) -> None:
        """Destroys the account; what was cut of that the periodic task ends."""

        def destroy() -> None:
            mine = {"cookie": self.cookie, "x-csrf-token": self.csrf}
            if not self.sends("/auth/destroy", {"password": self.password}, **mine) and not self.is_let_in():
                self.erases_what_was_cut()

        def is_gone() -> bool:
            given = self.asks("/auth/login", {"email": self.email, "password": self.password})
            return given.status_code == 403 and not self.asks_redis("keys", f"email:*{self.email}")

        self.insists(is_gone, destroy)

    def asks(self, path: str, body: dict, **headers: str) -> httpx.Response:
        """What a request gets; every answer is the contract's, if the worker lives to give it."""
        try:
            got = self.client.post(path, json=body, headers=headers)
        except httpx.TransportError:
            return httpx.Response(503)
        assert got.status_code in (200, 403, 503), got.text
        return got

    def sends(self, path: str, body: dict, **headers: str) -> bool:
        """Whether it was served."""
        return self.asks(path, body, **headers).status_code == 200

    def insists(self, done: Callable[[], bool], again: Callable[[], object] = lambda: time.sleep(0.05)) -> None:
        until = time.monotonic() + self.PATIENCE
        while not done():
            assert time.monotonic() < until, f"{self.email} is shut out for good"
            again()

    def link(self, kind: str, ask: Callable[[], object]) -> str:
        """The token of the newest mail; it is asked for anew when none comes, or one that says the address is taken."""
        until = time.monotonic() + 2
        while True:
            found = [token for to, token in links(self.server, kind) if to == self.email]
            if left := [token for token in found if token not in self.used]:
                self.used |= set(left)
                return left[-1]
            if time.monotonic() > until:
                if self.is_let_in():
                    return "none"
                ask()
                until = time.monotonic() + 2
            time.sleep(0.05)

    def is_let_in(self) -> bool:
        given = self.asks("/auth/login", {"email": self.email, "password": self.password})
        if given.status_code == 200:
            self.cookie, self.csrf = cookies_of(given)["kinds"], given.json()["csrf"]
        return given.status_code == 200

    def lets_a_minute_pass(self) -> None:
        """An address that a cut signup was taking is free again by itself; nobody wants to wait for it here."""
        for name in self.asks_redis("keys", f"email:*{self.email}"):
            if self.asks_redis("ttl", name) != ["-1"]:
                self.asks_redis("del", name)

    def erases_what_was_cut(self) -> None:
        with contextlib.suppress(AssertionError):  # the engine dies for it too; it comes again in a minute
            run_in_application(self.server, "server.app.identity.erasure.resume()")

    def asks_redis(self, *words: str) -> list[str]:
        """What redis says; nothing true while it is away."""
        got = subprocess.run([*engine_cli(self.server), *words], capture_output=True, text=True)
        return got.stdout.split() if got.returncode == 0 else ["away"]


class Postbox:
    """An SMTP server that takes everything."""

    def __init__(self) -> None:
        self.arrived: list[EmailMessage] = []

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:
        self.arrived.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"


def test_mail_is_down_for_a_while(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What was asked for meanwhile arrives, and its link works."""
    port, box, login = free_port(), Postbox(), {"email": "late@example.com", "password": PASSWORD}
    sender = {"host": "127.0.0.1", "port": port, "tls": "none", "sender": "Kinds <hello@kinds.example>"}
    settings = PLENTY | {"verify_email": True, "mail": sender}
    controller = Controller(box, "127.0.0.1", port)
    with serving(KINDS, tmp_path_factory.mktemp("late"), settings=settings) as server, Stranger(server) as client:
        assert client.post("/auth/signup", json=login).json() == {}
        server.wait_said("mail.unreachable")
        time.sleep(3)
        assert error(client.post("/auth/login", json=login)) == (403, "verify")
        controller.start()
        try:
            until = time.monotonic() + 20
            while not box.arrived:
                assert time.monotonic() < until, server.said()
                time.sleep(0.05)
        finally:
            controller.stop()
        token = token_in(box.arrived[0].get_body(("plain",)).get_content(), "verify")
        assert client.post("/auth/verifyEmail", json={"token": token, "password": PASSWORD}).json() == {}
        assert client.post("/auth/login", json=login).status_code == 200
        assert [mail["to"] for mail in box.arrived] == ["late@example.com"]
