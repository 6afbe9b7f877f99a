"""How much a client may send, and how long it may take."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import msgspec

from backlore.core.turns import Turns
from backlore.web.request import become_task

T = TypeVar("T")

LOOK = 0.25  # seconds between two checks of all waits
SMALL = 64 << 10  # bytes of a body that a client may send before it has logged in


class TooLarge(Exception):
    """The body is over its limit: 413."""


class TooSlow(Exception):
    """The body did not arrive in time: 408."""


class Patience:
    """Ends waits that take longer than `seconds`: all of them are checked together, every LOOK seconds.

    A timer for each wait, as in asyncio.timeout, would cost a small POST a tenth of its time.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._since: dict[asyncio.Task[object], float] = {}
        self._late: set[asyncio.Task[object]] = set()
        self._looking = False

    async def wait(self, what: Awaitable[T], since: float = 0.0) -> T:
        """The result of `what`. Raises TooSlow if it isn't there `seconds` after `since`, by default now."""
        await become_task()
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        self._since[task] = since or loop.time()
        if not self._looking:
            self._looking = True
            loop.call_later(LOOK, self._look, loop)
        try:
            return await what
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            task.uncancel()
            raise TooSlow from None
        finally:
            del self._since[task]
            self._late.discard(task)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task, since in self._since.items():
            if now - since > self._seconds and task not in self._late:
                self._late.add(task)
                task.cancel()
        self._looking = bool(self._since)
        if self._looking:
            loop.call_later(LOOK, self._look, loop)


class Limits(msgspec.Struct, frozen=True):
    """Sizes in bytes."""

    folder: Path  # for uploaded files while their request lasts
    patience: Patience  # with a whole body of at most `body` bytes; with each `stretch` bytes of an upload
    body: int = 1 << 20  # JSON; a form without files; all text fields of a form with files
    upload: int = 100 << 20  # a form with files, all parts together; a Stream
    stretch: int = 30 << 10
    longest: float = 10800.0  # seconds for a whole upload
    parts: int = 100
    query: int = 2048  # characters
    free: int = 0  # of the disk, that uploads must leave free
    decoding: Turns = msgspec.field(default_factory=lambda: Turns(1, each=20, total=200))  # of long bodies, by origin
