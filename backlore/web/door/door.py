"""The door of a worker: accepts connections from a listening socket, watches their deadlines, bounds their number."""

import asyncio
import contextvars
import socket
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from backlore.core.origins import origin_of
from backlore.web.door.connection import Connection
from backlore.web.door.reading import BadMessage
from backlore.web.door.writing import date_line

TICK = 0.25  # seconds between two looks at the clock
BACKLOG = 4096  # connections that wait to be accepted; the loop sets it again on the master's socket
SWEEP = 8  # ticks between two checks of all deadlines: 20,000 connections take a millisecond


class Bounds(NamedTuple):
    """The bounds of connections; times in seconds."""

    head: float = 10.0  # for a whole head
    idle: float = 75.0  # between two requests
    stall: float = 30.0  # for which a client may take nothing of what we send
    linger: float = 30.0  # for the client to close its side after we have closed ours; longer while data moves
    connections: int = 20_000  # open at once in a process
    per_address: int = 2_000  # open at once from one address (IPv6: its /64), unless it is a proxy's


class Door:
    """Serves an ASGI application over HTTP/1.1.

    `is_proxy` says whether many clients are behind an address. `tell` is called with status, word and address of each
    message that is refused before the application sees it.
    """

    def __init__(
        self,
        application: Callable[..., Coroutine[Any, Any, None]],
        bounds: Bounds,
        is_proxy: Callable[[str], bool],
        tell: Callable[[int, str, str], None],
    ):
        self.application = application
        self.bounds = bounds
        self.loop: asyncio.AbstractEventLoop
        self.address: tuple[str, int] | None = None
        self.now = 0.0  # the loop's time in seconds, at the last tick
        self.date = b""
        self._is_proxy = is_proxy
        self._tell = tell
        self.connections: set[Connection] = set()
        self.context: contextvars.Context
        self._origins: Counter[str] = Counter()
        self.is_shut = False
        self._ticks = 0
        self._unflushed: list[Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def open(self, listening: socket.socket) -> None:
        """Begin to serve on this socket."""
        self.loop = asyncio.get_running_loop()
        self.context = contextvars.copy_context()
        name = listening.getsockname()
        self.address = name[:2] if isinstance(name, tuple) else None
        self._look()
        self._server = await self.loop.create_server(lambda: Connection(self), sock=listening, backlog=BACKLOG)

    def shut(self) -> None:
        """Accept no more connections. Replies from now on close theirs, so that clients connect anew."""
        self.is_shut = True
        if self._server:
            self._server.close()

    async def close(self, seconds: float) -> None:
        """Close idle connections, and after `seconds` the others too."""
        self.shut()
        until = self.loop.time() + seconds
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        self._flush()
        for connection in list(self.connections):
            connection.close() if connection.is_idle else connection.abort()
        # replies may not have left yet
        while self.loop.time() < until and any(connection.is_sending for connection in self.connections):
            await asyncio.sleep(TICK / 10)
        if self._timer:
            self._timer.cancel()

    # Called by connections

    def admit(self, connection: Connection) -> bool:
        """Count a new connection. Returns whether it is within the bounds."""
        self.connections.add(connection)
        origin = _origin_of(connection)
        self._origins[origin] += 1
        return len(self.connections) <= self.bounds.connections and (
            self._origins[origin] <= self.bounds.per_address or self._is_proxy(connection.address)
        )

    def leave(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self.connections.discard(connection)
        origin = _origin_of(connection)
        self._origins[origin] -= 1
        if not self._origins[origin]:
            del self._origins[origin]

    def spawn(self, work: Coroutine[Any, Any, None], context: contextvars.Context) -> asyncio.Task[None]:
        """Run a coroutine as a task that `close` waits for."""
        task = self.loop.create_task(work, context=context)
        self._tasks.add(task)
        return task

    def forget(self, task: asyncio.Task[None]) -> None:
        """Forget a task that is done."""
        self._tasks.discard(task)

    def flush_soon(self, connection: Connection) -> None:
        """Flush a connection at the end of this turn of the loop."""
        if not self._unflushed:
            self.loop.call_soon(self._flush)
        self._unflushed.append(connection)

    def tell_refused(self, refusal: BadMessage, address: str) -> None:
        """Report a message that the application never sees."""
        self._tell(refusal.status, refusal.word, address)

    def _flush(self) -> None:
        unflushed, self._unflushed = self._unflushed, []
        for connection in unflushed:
            connection.flush()

    def _look(self) -> None:
        """Update the clock, and now and then expire connections whose deadline has passed."""
        self._timer = self.loop.call_later(TICK, self._look)
        self.now = self.loop.time()
        self.date = date_line()
        self._ticks += 1
        if self._ticks % SWEEP == 0:
            for connection in [each for each in self.connections if each.deadline < self.now]:
                connection.expire()


def _origin_of(connection: Connection) -> str:
    address = connection.address
    return origin_of(address) if ":" in address else address
