"""What each layer of an authenticated request costs, in microseconds of one core, without a network.

The layers are those of the hot path, called alone and then together in this process, from the bytes of a request to
those of its reply. Redis is a real one on a Unix socket, asked by 64 connections at once as 64 clients would. The cost
of the sockets in uvloop and the kernel is not included: it is the rest of `1 / requests a second` in `throughput.py`.
"""

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from contest import CLIENT_CORE, SERVER_CORE, Ground, console_for_tables, listens, refusing
from rich.table import Table

from backlore.core.config import Context, enter
from backlore.process.program import find_binary
from backlore.web.door.connection import Connection
from backlore.web.door.door import Bounds, Door
from backlore.web.door.reading import read_head
from backlore.web.door.writing import begin
from backlore.web.reply import JSON, etag_of, reply
from backlore.web.request import Proxies, Request, User

OURS = Path(__file__).parent / "peers" / "ours"
TASKS = 64
BODY = b'{"title":"A title","text":"Some words of text","stars":3,"public":true,"tags":["red","blue"]}'
USER = User("abc4567890123456", "person@example.com", False)


class Wire:
    """Stands in for a connection's transport: takes what is written."""

    def __init__(self) -> None:
        self.last = b""
        self.waiting: asyncio.Future | None = None

    def get_extra_info(self, name: str) -> tuple[str, int]:
        return "127.0.0.1", 40000

    def writelines(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def write(self, data: bytes) -> None:
        self.last = data
        if self.waiting:
            self.waiting.set_result(None)
            self.waiting = None


class Client:
    """A connection of our door without a socket."""

    def __init__(self, door: Door):
        self.wire = Wire()
        self.connection = Connection(door)
        self.connection.connection_made(self.wire)

    async def ask(self, request: bytes) -> None:
        """Pass a request to the connection as the event loop would, and wait for its reply."""
        self.wire.waiting = asyncio.get_running_loop().create_future()
        waiting = self.wire.waiting
        self.connection.data_received(request)
        await waiting


def alone(function: Callable[[], object], count: int = 20_000) -> float:
    """Microseconds of a plain function: the best of five."""
    best = 1e9
    for _ in range(5):
        began = time.process_time()
        for _ in range(count):
            function()
        best = min(best, (time.process_time() - began) / count * 1e6)
    return best


async def at_once(function: Callable[[], Awaitable[object]], count: int = 20_000) -> float:
    """Microseconds of CPU of an async function called by 64 tasks at once: the best of five."""

    async def repeat() -> None:
        for _ in range(count // TASKS):
            await function()

    best = 1e9
    for _ in range(5):
        began = time.process_time()
        await asyncio.gather(*(repeat() for _ in range(TASKS)))
        best = min(best, (time.process_time() - began) / count * 1e6)
    return best


async def measure(ground: Ground) -> list[tuple[str, float]]:
    """The rows of the table."""
    import server  # the application of the benchmark, made importable by `enter`

    app = server.app
    sessions, users = app.identity.sessions, app.identity.users
    id = await users.create("person@example.com", "", verified=True)
    assert id
    session = await sessions.begin(await users.read(id), origin="127.0.0.1", browser="bench", device="bench")
    cookie = sessions.keeper.cookie
    sent = cookie.give(session)[1].partition(";")[0].encode()
    token = sessions.keeper.token_of(session)
    host = b"Host: 127.0.0.1:8000\r\nCookie: " + sent + b"\r\n"
    get = b"GET /me HTTP/1.1\r\n" + host + b"\r\n"
    post = b"POST /items HTTP/1.1\r\n" + host + b"Content-Type: application/json\r\nX-Csrf-Token: " + token.encode()
    post += b"\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
    door = Door(app.web, Bounds(head=1e9, idle=1e9), app.web.is_proxy, app.web.tell_refused)
    listening = socket.create_server(("127.0.0.1", 0))
    await door.open(listening)
    idle = [Client(door) for _ in range(TASKS)]

    async def ask(request: bytes) -> bytes:
        client = idle.pop()
        await client.ask(request)
        idle.append(client)
        return client.wire.last

    for request in (get, post):
        assert (got := await ask(request)).startswith(b"HTTP/1.1 200 "), got
    scope: dict = {}

    async def keep_scope(given: dict, receive: object, send: object) -> None:
        scope.update(given)
        given["exchange"].whole(200, [], b"")

    door.application = keep_scope
    await ask(get)
    door.application = app.web
    proxies = Proxies()
    request = Request(scope, None, proxies)
    codec = next(route for route in app.web.table.routes if route.path == "/items").body.codec
    answer = {"id": USER.id, "email": USER.email, "admin": False}
    raw = reply(200, answer).body
    sessions.remember_for = 3600
    await sessions.load(session)
    rows = [
        ("read the head of a request", alone(lambda: read_head(get))),
        ("take the request", alone(lambda: Request(scope, None, proxies))),
        ("find the route", alone(lambda: app.web.table.find(request))),
        ("read the cookie, verify its signature", alone(lambda: cookie._read(sent))),
        ("read the cookie, verified before", alone(lambda: cookie.read(sent))),
        ("the user of a session that is remembered", alone(lambda: sessions.remembered(session))),
        ("verify the csrf token", alone(lambda: sessions.keeper.has_token(session, token.encode()))),
        ("decode and validate five fields", alone(lambda: codec.from_json(BODY))),
        ("make the reply as JSON", alone(lambda: reply(200, answer))),
        ("its ETag", alone(lambda: etag_of(raw))),
        ("the head of a reply", alone(lambda: begin(200, JSON))),
        ("redis: session and user read", await at_once(lambda: sessions.load(session))),
        (
            "redis: one HSET of five fields",
            await at_once(lambda: app.redis.hset("k", mapping=dict.fromkeys("abcde", 1))),
        ),
        ("all of GET, session remembered", await at_once(lambda: ask(get))),
        ("all of POST, session remembered", await at_once(lambda: ask(post))),
    ]
    sessions.remember_for = 0
    users.stamps.renew(id)
    rows += [
        ("all of GET, redis asked for the session", await at_once(lambda: ask(get))),
        ("all of POST, redis asked for the session", await at_once(lambda: ask(post))),
    ]
    door.shut()
    await app.redis.aclose()
    return rows


def main() -> None:
    """Measure and print."""
    with Ground() as ground:
        data = ground.folder / "data"
        socket = data / "redis" / "engine.sock"
        socket.parent.mkdir(parents=True)
        process = ground.start(
            [find_binary(), "--port", "0", "--unixsocket", socket, "--appendonly", "yes"], core=CLIENT_CORE
        )
        ground.wait(process, lambda: listens(str(socket)))
        os.sched_setaffinity(0, {SERVER_CORE})
        enter(Context(folder=str(OURS), flags={"data": str(data)}))
        table = Table("layer", "µs", title="what each layer costs")
        for name, cost in uvloop.run(measure(ground)):
            table.add_row(name, f"{cost:.2f}")
        console_for_tables().print(table)


if __name__ == "__main__":
    refusing(main)
