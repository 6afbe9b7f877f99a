"""What each layer of an authenticated request costs, in microseconds of one core, without a network.

The layers are those of the hot path, called alone and then together in this process; redis is a real one on a Unix
socket, asked by 64 tasks at once as 64 clients would. What granian and the kernel take is not here: it is what is left
of `1 / requests a second` in `throughput.py`.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from contest import CLIENT_CORE, SERVER_CORE, Ground, console_for_tables, listens, refusing
from rich.table import Table

from backlore.core.config import Context, enter
from backlore.process.program import find_binary
from backlore.web.reply import etag_of, reply
from backlore.web.request import Proxies, Request, User

OURS = Path(__file__).parent / "peers" / "ours"
TASKS = 64
BODY = b'{"title":"A title","text":"Some words of text","stars":3,"public":true,"tags":["red","blue"]}'
USER = User("abc4567890123456", "person@example.com", False)


def scope(method: str, path: str, headers: list[tuple[bytes, bytes]]) -> dict:
    """What granian gives for a request."""
    return {
        "type": "http", "http_version": "1.1", "method": method, "path": path, "raw_path": path.encode(),
        "query_string": b"", "root_path": "", "scheme": "http", "headers": headers, "state": {},
        "client": ("127.0.0.1", "40000"), "server": ("127.0.0.1", "8000"),
    }  # fmt: skip


async def receive() -> dict:
    return {"type": "http.request", "body": BODY, "more_body": False}


async def send(message: dict) -> None:
    pass


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
    id = await app.identity.users.create("person@example.com", "", verified=True)
    assert id
    session = await app.identity.sessions.begin(await app.identity.users.read(id), origin="127.0.0.1", browser="bench")
    cookie = app.identity.sessions.keeper.cookie
    sent = cookie.give(session)[1].partition(";")[0].encode()
    token = app.identity.sessions.keeper.csrf.sign(session)
    headers = [(b"host", b"127.0.0.1"), (b"cookie", sent)]
    change = [*headers, (b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
    change.append((b"x-csrf-token", token.encode()))
    get, post = scope("GET", "/me", headers), scope("POST", "/items", change)
    proxies = Proxies()
    request = Request(get, receive, proxies)
    codec = next(route for route in app.web.table.routes if route.path == "/items").body.codec
    answer = {"id": USER.id, "email": USER.email, "admin": False}
    raw = reply(200, answer).body
    rows = [
        ("take the request", alone(lambda: Request(get, receive, proxies))),
        ("find the route", alone(lambda: app.web.table.find(request))),
        ("read the cookie, verify its signature", alone(lambda: cookie.read(sent))),
        ("verify the csrf token", alone(lambda: app.identity.sessions.keeper.csrf.verify(session, token))),
        ("decode and validate five fields", alone(lambda: codec.from_json(BODY))),
        ("make the reply as JSON", alone(lambda: reply(200, answer))),
        ("its ETag", alone(lambda: etag_of(raw))),
        ("redis: session read and renewed, user read", await at_once(lambda: app.identity.sessions.load(session))),
        (
            "redis: one HSET of five fields",
            await at_once(lambda: app.redis.hset("k", mapping=dict.fromkeys("abcde", 1))),
        ),
        ("all of GET, redis included", await at_once(lambda: app(get, receive, send))),
        ("all of POST, redis included", await at_once(lambda: app(post, receive, send))),
    ]
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
