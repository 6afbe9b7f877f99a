"""Turns: long work is done a few pieces at a time, and its owners take turns.

    size = await turns.run(user, lambda: asyncio.to_thread(measure, path))

Laws:

- Waiting pieces are taken round-robin by owner: a hundred pieces of one user delay another user by one piece.
- When too much waits, a piece is refused at once, with Busy. The second half of the places is for owners that have
  no piece waiting.
- Work that has begun keeps its turn until it ends, even if its caller no longer waits for it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Busy(Exception):
    """More work waits than can be done in a reasonable time. The refused piece has not begun."""


class Turns:
    """Does `at_once` pieces of work at a time. At most `each` pieces of one owner may wait, and `total` in all."""

    def __init__(self, at_once: int, *, each: int, total: int):
        self._free = at_once
        self._each = each
        self._total = total
        self._waiting = 0
        self._rows: dict[str, deque[asyncio.Future[None]]] = {}  # by owner; the first row is next
        self._doing: set[asyncio.Task[object]] = set()  # the loop keeps only weak references to them

    async def run(self, whose: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work when it is its owner's turn; `whose` is the owner. Returns its result.

        Raises Busy, and what the work raises.
        """
        most = self._each if self._waiting < self._total // 2 else 1
        if not self._free and (self._waiting >= self._total or len(self._rows.get(whose, ())) >= most):
            raise Busy("too much work waits already")
        return await self.go_on(whose, work)

    async def go_on(self, whose: str, work: Callable[[], Awaitable[T]]) -> T:
        """Like `run`, for the next piece of work that has already begun: it is never refused."""
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
            else:  # the turn was given at the same moment
                self._next()
            raise

    def _leave(self, whose: str, called: asyncio.Future[None]) -> None:
        row = self._rows.get(whose)
        if row and called in row:  # else `_next` has taken it out already
            row.remove(called)
            self._waiting -= 1
            if not row:
                del self._rows[whose]

    def _next(self) -> None:
        """Pass the turn to the first piece of the next row; that row then becomes the last."""
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
