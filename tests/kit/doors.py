"""A door in a thread of this process, in front of a test's own ASGI application, and raw clients for it."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import uvloop

from backlore.web.door.door import Bounds, Door

Application = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


class Opened:
    """A door that serves. `seen`: method, path and body of each request to the application. `refused`: statuses."""

    def __init__(self, door: Door, port: int, loop: asyncio.AbstractEventLoop):
        self.door = door
        self.port = port
        self.loop = loop
        self.seen: list[tuple[str, str, bytes]] = []
        self.refused: list[int] = []
        self.failed: list[dict[str, Any]] = []  # errors in the loop that would end a worker

    def connect(self, seconds: float = 10) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), seconds)

    def ask(self, *pieces: bytes) -> bytes:
        """All replies until the connection ends; b"reset" follows when it breaks."""
        with self.connect() as client:
            for piece in pieces:
                client.sendall(piece)
            return read_all(client)

    def run(self, work: Callable[[], Any]) -> Any:
        """Call a function in the door's loop."""

        async def call() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)


def read_all(client: socket.socket) -> bytes:
    pieces = []
    try:
        while piece := client.recv(1 << 18):
            pieces.append(piece)
    except ConnectionResetError:
        pieces.append(b"reset")
    return b"".join(pieces)


def statuses(answer: bytes) -> list[int]:
    """The statuses of the replies in it, whose bodies must not contain `HTTP/1.1 `."""
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


async def read_body(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


async def answer(send: Any, body: bytes, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def opened(application: Application, **bounds: Any) -> Iterator[Opened]:
    ready: list[Opened] = []
    there = threading.Event()
    stop: list[Callable[[], Any]] = []

    async def live() -> None:
        loop, end = asyncio.get_running_loop(), asyncio.Event()
        listening = socket.create_server(("127.0.0.1", 0), backlog=4096)

        async def application_seen(scope: Any, receive: Any, send: Any) -> None:
            asked = (scope["method"], scope["raw_path"].decode())

            async def seen() -> dict[str, Any]:
                message = await receive()
                made.seen[at] = (*asked, made.seen[at][2] + message.get("body", b""))
                return message

            at = len(made.seen)
            made.seen.append((*asked, b""))
            await application(scope, seen, send)

        door = Door(application_seen, Bounds(**bounds), lambda _: False, lambda status, *_: made.refused.append(status))
        made = Opened(door, listening.getsockname()[1], loop)
        loop.set_exception_handler(lambda _, context: made.failed.append(context))
        await door.open(listening)
        ready.append(made)
        stop.append(lambda: loop.call_soon_threadsafe(end.set))
        there.set()
        await end.wait()
        await door.close(0.1)

    thread = threading.Thread(target=lambda: uvloop.run(live()), daemon=True)
    thread.start()
    assert there.wait(10)
    try:
        yield ready[0]
        assert not ready[0].failed, ready[0].failed
    finally:
        stop[0]()
        thread.join(10)
