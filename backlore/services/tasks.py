"""Tasks: functions that run periodically beside the workers, on one node at a time or on each.

    task:{NAM}E         hash   last: when the last run that ended had begun (µs); twice its period, and a day
    task:{NAM}E:NODE    hash   the same for a task that runs on each node

Laws: the period is counted from one beginning to the next, by redis' clock, across restarts. A task that has never run
is due at once. A task holds a lease while it runs, so that it never runs twice at once, however long it takes. If its
process is killed it is due again within half a minute. The failure of a task ends neither another task nor the process.
"""

import asyncio
import hashlib
import math
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from redis.exceptions import ConnectionError, TimeoutError

from backlore.clients.redis.errors import NOT_NOW
from backlore.clients.redis.lease import LeaseLost, lease
from backlore.clients.redis.script import read_clock
from backlore.core.keys import key
from backlore.core.notify import Notify

LOOK = 60.0  # seconds between two looks, at most: our clock stands still while the computer sleeps, redis' goes on
HELD = 2.0  # seconds between two looks at a task that runs elsewhere
DAY = 86_400.0
PAUSE = 1.0, 60.0  # seconds until a loop that failed begins again: the shortest pause, and the longest
REFUSED = 10.0  # the longest pause while redis is up but refuses writes

Function = Callable[[], Awaitable[None]]


class Task(msgspec.Struct, frozen=True):
    """A function to run every `seconds`, on one node at a time or on each. `place` is its name in redis."""

    name: str
    place: tuple[str, ...]
    seconds: float
    function: Function


class Tasks:
    """The tasks of an application. `data` is its data folder, which distinguishes this node from others."""

    def __init__(self, redis: Any, notify: Notify, data: Path):
        self._redis = redis
        self._notify = notify
        self._node = hashlib.blake2b(f"{socket.gethostname()}:{data}".encode(), digest_size=8).hexdigest()
        self._tasks: dict[str, Task] = {}

    def add(self, seconds: float, function: Function, each: bool, name: str) -> None:
        """Add a task. Raises ValueError for an invalid period, a name that is taken, or a function without a name."""
        if not 0 < seconds < math.inf:
            raise ValueError(f"a task can't run every {seconds} seconds: give it a period above 0")
        name = name or _name_of(function)
        if name in self._tasks:
            raise ValueError(f"two tasks are named {name!r}: give one of them another, by every(…, name=…)")
        self._tasks[name] = Task(name, (name, self._node) if each else (name,), seconds, function)

    async def run(self, **loops: Function) -> None:
        """Run all tasks, and `loops` beside them, until cancelled."""
        repeated = {task.name: partial(self._repeat, task) for task in self._tasks.values()}
        works: list[tuple[str, Function]] = [*loops.items(), *repeated.items()]
        await asyncio.gather(*(supervise(name, work, self._notify) for name, work in works))

    async def _repeat(self, task: Task) -> None:
        while True:
            await asyncio.sleep(await self._turn(task))

    async def _turn(self, task: Task) -> float:
        """Run the task if it is due. Returns the seconds until the next look."""
        if left := await self._left(task):
            return min(left, LOOK)
        async with lease(self._redis, *task.place) as held:
            if not held:
                return min(task.seconds, HELD)
            if not await self._left(task):  # no other node was faster
                await self._run(task)
        return 0

    async def _left(self, task: Task) -> float:
        """The seconds until the task is due, 0 if it is."""
        last, now = await asyncio.gather(self._redis.hget(key("task", *task.place), "last"), read_clock(self._redis))
        began = int(last) if last and last.isdecimal() else 0  # a value that we can't read counts as never
        return max(0.0, (began - now) / 1e6 + task.seconds)

    async def _run(self, task: Task) -> None:
        began = await read_clock(self._redis)
        try:
            await task.function()
        except Exception as error:
            self._notify("error", "task.failed", task=task.name, error=error)
        place = key("task", *task.place)
        async with self._redis.pipeline() as pipe:
            pipe.hset(place, "last", began).expire(place, int(2 * task.seconds + DAY))
            await pipe.execute()


async def supervise(name: str, work: Function, notify: Notify) -> None:
    """Run work that ends only by failing, until cancelled. Each failure is notified; it restarts after a growing pause.

    After a failure because redis is away or refuses writes, it restarts soon. If redis is away, its client notifies.
    """
    loop, pause = asyncio.get_running_loop(), PAUSE[0]
    while True:
        began = loop.time()
        try:
            await work()
        except (ConnectionError, TimeoutError):
            pause = PAUSE[0]
        except NOT_NOW as error:
            pause = min(2 * pause, REFUSED)
            notify("warning", "task.waits", task=name, why=str(error), begins_again_in=pause)
        except LeaseLost:
            notify("warning", "task.lost", task=name)
        except (Exception, asyncio.CancelledError, SystemExit) as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            pause = PAUSE[0] if loop.time() - began > PAUSE[1] else min(2 * pause, PAUSE[1])
            notify("error", "task.broke", task=name, error=error, begins_again_in=pause)
        await asyncio.sleep(pause)


def _name_of(function: Function) -> str:
    """The name of a function with its module. Raises ValueError for a function without a name."""
    name = getattr(function, "__qualname__", "<partial>")
    if "<lambda>" in name or "<partial>" in name:
        raise ValueError(f"{function!r} has no name, by which nodes know the task: every(…, name='send_digest')")
    return f"{function.__module__}.{name}"
