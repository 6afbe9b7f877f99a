"""Turns: work that takes long is done a few pieces at a time, and whose it is decides when.

    size = await turns.run(user, lambda: asyncio.to_thread(measure, path))

Laws: those who wait are taken round-robin, by whose work it is, so that a hundred pieces of one user hold another up
by one. Too much is refused at once, with Busy; the second half of the room is for those who have nothing in it. Work
that has begun keeps its turn until it ends, also when nobody waits for it any more.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Busy(Exception):
    """More work waits than can be done in a reasonable time; that which was refused has not begun."""


class Turns:
    """Does work `at_once` at a time. So many pieces may wait: `each` of one, `total` of all."""

    def __init__(self, at_once: int, *, each: int, total: int):
        self._free = at_once
        self._each = each
        self._total = total
        self._waiting = 0
        self._rows: dict[str, deque[asyncio.Future[None]]] = {}  # by whose they are; the first row is next
        self._doing: set[asyncio.Task[object]] = set()  # the loop alone would forget them

    async def run(self, whose: str, work: Callable[[], Awaitable[T]]) -> T:
        """The result of the work, done when it is its turn. Raises Busy, and what the work raises."""
        most = self._each if self._waiting < self._total // 2 else 1
        if not self._free and (self._waiting >= self._total or len(self._rows.get(whose, ())) >= most):
            raise Busy("too much is to be done at once")
        return await self.go_on(whose, work)

    async def go_on(self, whose: str, work: Callable[[], Awaitable[T]]) -> T:
        """The same for the next piece of what has begun: it is never refused."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(whose)
        doing = asyncio.create_task(self._do(work))
        self._doing.add(doing)
        doing.add_done_callback(self._doing.discard)
        return await asyncio.shield(doing)

    async def _do(self, work: Callable[[], Awaitable[T]]) -> T:
        try:
            return await work()
        finally:
            self._next()

    async def _wait(self, whose: str) -> None:
        called = asyncio.get_running_loop().create_future()
        self._rows.setdefault(whose, deque()).append(called)
        self._waiting += 1
        try:
            await called
        except asyncio.CancelledError:
            if called.cancelled():
                self._leave(whose, called)
            else:  # the turn came at the same moment
                self._next()
            raise

    def _leave(self, whose: str, called: asyncio.Future[None]) -> None:
        row = self._rows.get(whose)
        if row and called in row:  # else it was called when it had gone already
            row.remove(called)
            self._waiting -= 1
            if not row:
                del self._rows[whose]

    def _next(self) -> None:
        """Hand a turn on: to the first of the next row, which is the last row then."""
        while self._rows:
            whose = next(iter(self._rows))
            row = self._rows.pop(whose)
            called = row.popleft()
            self._waiting -= 1
            if row:
                self._rows[whose] = row
            if not called.cancelled():
                called.set_result(None)
                return
        self._free += 1
