"""Ten thousand slow clients of each kind at one worker that also serves others: bytes for each connection, the others'
p99, and how many were ended.

`python -m bench.slow_clients [COUNT] [KIND…]`; each of two processes needs COUNT open files.
"""

import asyncio
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psutil
import uvloop

from backlore.web.door.door import Bounds, Door

BOUNDS = Bounds(head=15.0, idle=15.0, stall=15.0, linger=5.0, per_address=1 << 20)
LARGE = bytes(1 << 20)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LARGE_GET = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
POST = b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
PATIENCE = 15.0  # seconds that the application waits for a body
# what is sent first, and what is sent again and again
KINDS: dict[str, tuple[bytes, bytes]] = {
    "silent": (b"", b""),
    "idle": (GET, b""),
    "head byte by byte": (HEAD, b"a"),
    "body byte by byte": (POST, b"a"),
    "never reading": (LARGE_GET, b""),
    "sends and never reads": (LARGE_GET * 1000, LARGE_GET * 1000),
}


async def application(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Any) -> None:
    body = b"{}"
    if scope["path"] == "/large":
        body = LARGE
    elif scope["path"] == "/read":
        try:
            async with asyncio.timeout(PATIENCE):
                while (await receive()).get("more_body"):
                    pass
        except TimeoutError:
            body = b"late"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def serve(listening: Any) -> None:
    door = Door(application, BOUNDS, lambda _: False, lambda *_: None)
    await door.open(listening)
    await asyncio.Event().wait()


class Slow(asyncio.Protocol):
    """One client. `ended` counts the clients that the server has ended."""

    ended = 0
    read = 0

    def __init__(self, kind: str):
        self.first, self.more = KINDS[kind]
        self.reads = "never" not in kind

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.first)
        if not self.reads:
            asyncio.get_running_loop().call_soon(transport.pause_reading)  # uvloop begins to read after this call
        if self.more:
            asyncio.get_running_loop().call_later(1, self.go_on)

    def go_on(self) -> None:
        if not self.transport.is_closing() and self.transport.get_write_buffer_size() < 1 << 16:
            self.transport.write(self.more)
            asyncio.get_running_loop().call_later(1, self.go_on)

    def connection_lost(self, error: Exception | None) -> None:
        Slow.ended += 1


async def ask(port: int, took: list[float]) -> None:
    """One of the other clients: asks a hundred times a second, on a kept connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        began = time.perf_counter()
        writer.write(GET)
        await reader.readuntil(b"{}")
        took.append(time.perf_counter() - began)
        await asyncio.sleep(0.01)


def percentile(took: list[float]) -> str:
    return f"{sorted(took)[len(took) * 99 // 100] * 1e3:.1f} ms" if took else "none"


async def measure(kind: str, port: int, server: psutil.Process, count: int) -> None:
    loop = asyncio.get_running_loop()
    Slow.ended = 0
    before = server.memory_info().rss
    alone: list[float] = []
    asking = asyncio.ensure_future(ask(port, alone))
    await asyncio.sleep(2)
    asking.cancel()
    began = time.monotonic()
    for _ in range(count // 100):
        await asyncio.gather(*(loop.create_connection(lambda: Slow(kind), "127.0.0.1", port) for _ in range(100)))
    took: list[float] = []
    asking = asyncio.ensure_future(ask(port, took))
    await asyncio.sleep(5)
    held = (server.memory_info().rss - before) / count
    asking.cancel()
    while Slow.ended < count and time.monotonic() - began < 120:
        await asyncio.sleep(0.25)
        if "never" in kind and server.num_fds() < 100:  # a client that doesn't read doesn't see its connection end
            Slow.ended = count
    print(f"{kind:22} {held:8,.0f} bytes each   p99 of others {percentile(took)} (alone {percentile(alone)})   "
          f"ended {Slow.ended:,} of {count:,} in {time.monotonic() - began:.0f} s", flush=True)  # fmt: skip


def run(kind: str, count: int) -> None:
    """Measure one kind, with a server of its own."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    if (child := os.fork()) == 0:
        uvloop.run(serve(listening))
    port = listening.getsockname()[1]
    listening.close()
    try:
        uvloop.run(measure(kind, port, psutil.Process(child), count))
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


if __name__ == "__main__":
    count, kinds = sys.argv[1] if len(sys.argv) > 1 else "10000", sys.argv[2:]
    if len(kinds) == 1:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        run(kinds[0], int(count))
    else:  # each kind in processes of its own, so that their memory shows nothing else
        for kind in kinds or KINDS:
            subprocess.run([sys.executable, "-m", "bench.slow_clients", count, kind], check=True)
