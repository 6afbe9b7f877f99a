"""When a body is late, told without a server: what has come counts from the moment when the session was looked at."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from backlore.core.notify import Notify
from backlore.web.application import Application
from backlore.web.body import Stream
from backlore.web.cookie import SignedCookie
from backlore.web.limits import Limits, Patience
from backlore.web.reply import Reply, reply
from backlore.web.request import Request, User
from backlore.web.stages import Keeper, private

SECRET, SESSION = "s" * 40, "abc" + "d" * 26
COOKIE = SignedCookie("test", SECRET, False)
Load = Callable[[str], Awaitable[User | None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


def serving(load: Load, handler: Any, folder: Path) -> Callable[..., Awaitable[int]]:
    keeper = Keeper(COOKIE, SECRET, load, Notify())
    application = Application(keeper, keeper.notify, Limits(folder=folder, patience=Patience(10)))
    application.add(private.post("/act", handler))

    async def ask(receive: Receive, headers: list[tuple[bytes, bytes]], exchange: Any = None) -> int:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/act", "raw_path": b"/act", "query_string": b""}
        about = {"headers": headers, "client": ("127.0.0.1", 1)}
        if exchange:
            about["exchange"] = exchange
        await application({**scope, **about}, receive, send)
        status: int = exchange.status if exchange else sent[0]["status"]
        return status

    return ask


def test_a_body_that_comes_while_the_handler_waits_is_late(tmp_path: Path) -> None:
    async def live() -> int:
        looks, come = 0, asyncio.Event()

        async def load(session: str) -> User | None:
            nonlocal looks
            looks += 1
            return User("a" * 16, "ann@example.com", False) if looks == 1 else None  # logged out meanwhile

        async def receive() -> dict[str, Any]:
            await come.wait()
            return {"type": "http.request", "body": b"a", "more_body": False}

        async def act(request: Request, body: Stream) -> Reply:
            come.set()
            await asyncio.sleep(0.05)  # it is here before it is asked for
            return reply(200, {"size": sum([len(chunk) async for chunk in body])})

        cookie = COOKIE.give(SESSION)[1].partition(";")[0].encode()
        token = Keeper(COOKIE, SECRET, load, Notify()).token_of(SESSION).encode()
        ask = serving(load, act, tmp_path)
        return await ask(receive, [(b"cookie", cookie), (b"x-csrf-token", token), (b"content-length", b"1")])

    assert asyncio.run(live()) == 403


class Exchange:
    """As our door has it, with a body that comes when it is told to."""

    def __init__(self) -> None:
        self.is_here = False
        self.status = 0

    def has_arrived(self) -> bool:
        return self.is_here

    def take_all(self) -> bytes:
        return b"{}"

    def whole(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status


def test_a_body_that_comes_while_redis_is_asked_is_late(tmp_path: Path) -> None:
    """The session ends behind redis' look, and before its answer is here."""

    async def live(comes: str) -> tuple[int, int]:
        looks, exchange = 0, Exchange()

        async def load(session: str) -> User | None:
            nonlocal looks
            looks += 1
            exchange.is_here = True
            return User("a" * 16, "ann@example.com", False) if looks == 1 else None  # logged out meanwhile

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def act(request: Request) -> Reply:
            return reply(200)

        exchange.is_here = comes == "before"
        cookie = COOKIE.give(SESSION)[1].partition(";")[0].encode()
        token = Keeper(COOKIE, SECRET, load, Notify()).token_of(SESSION).encode()
        headers = [(b"cookie", cookie), (b"x-csrf-token", token), (b"content-type", b"application/json")]
        return await serving(load, act, tmp_path)(receive, [*headers, (b"content-length", b"2")], exchange), looks

    assert asyncio.run(live("before")) == (200, 1)
    assert asyncio.run(live("meanwhile")) == (403, 2)


def test_nobody_waits_for_the_body_of_a_request_that_was_refused(tmp_path: Path) -> None:
    async def live() -> list[str]:
        told: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))

        async def never() -> dict[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

        async def broken() -> dict[str, Any]:
            raise OSError("the connection broke")

        async def load(session: str) -> User | None:
            raise AssertionError

        async def act(request: Request) -> Reply:
            raise AssertionError

        ask = serving(load, act, tmp_path)
        for receive in (never, broken):
            assert await ask(receive, [(b"content-length", b"1")]) == 403
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1
        gc.collect()
        await asyncio.sleep(0)
        return told

    assert asyncio.run(live()) == []
