"""The lines of text files: the last ones, those that match conditions, and new ones.

    found = await app.lines.filter(user, "log.jsonl", Wanted(where=("level=error",)))
    for line in found.lines: print(line.text)

Laws: a file is never loaded whole, and an answer begins with the first block. It covers the bytes that were
acknowledged when it was asked for. Blocks are searched one by one in a few threads that do nothing else, so that
neither uploads nor the event loop wait for them, and users take turns in them. Each answer gives the stretch that is
left, where the next one continues; each line is in exactly one answer, whatever is added meanwhile. The line break is
no part of a line, nor is a carriage return before it.
"""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple, TypeVar

from backlore.core.turns import Turns
from backlore.services.files.catalog import Changed, File
from backlore.services.lines.conditions import Conditions, Wanted
from backlore.services.lines.places import Places, Spans
from backlore.services.lines.windows import LONGEST, Stretch, Text, Unknown, Window, end_of_lines, newest, oldest

T = TypeVar("T")
Find = Callable[[str, str], Awaitable[File]]  # given a user and a name

THREADS = 2  # of a process, for searching
EACH, TOTAL = 20, 200  # searches that may wait for a thread: per user, and of all users
SLICE = 0.05  # seconds that one search runs before another's turn
GATHERED = 1 << 20  # bytes of lines that are handed over at once
ANSWER = 4 << 20  # bytes of lines in one answer
SECONDS = 10.0  # that an answer may take
POLL = 0.5  # seconds between two checks whether a file has grown
ALL = Wanted()
WHOLE = Stretch(0, sys.maxsize)
FOREVER = float("inf")


class Line(NamedTuple):
    """A line. `at` is the byte of the file where it begins; `cut`: whether it is longer than `data`."""

    at: int
    data: bytes
    cut: bool

    @property
    def text(self) -> str:
        """The line as text; bytes that are not UTF-8 are replaced."""
        return self.data.decode("utf-8", "replace")


class Found(NamedTuple):
    """Lines in the order asked for, and the stretch that is left to be searched."""

    lines: list[Line]
    left: Stretch

    @property
    def is_all(self) -> bool:
        """Whether nothing is left to be searched."""
        return self.left.after >= self.left.before


class Look(NamedTuple):
    """One search of a text: for which lines, in which order, and how many at most."""

    conditions: Conditions
    newest: bool
    limit: int

    def at(self, text: Text, stretch: Stretch, stopped: threading.Event) -> tuple[Found, Unknown | None]:
        """The lines found in one slice of time, and the Unknown stretch that is needed to go on. For threads."""
        lines: list[Line] = []
        gathered, until = 0, time.monotonic() + SLICE
        try:
            with text:
                for window in (newest if self.newest else oldest)(text, stretch):
                    found = list(lines_of(window, self.conditions, text.longest))
                    if self.newest:
                        found.reverse()
                    lines += found[: self.limit - len(lines)]
                    if len(lines) == self.limit:
                        return Found(lines, self._left(stretch, lines[-1].at + (not self.newest))), None
                    stretch = self._left(stretch, window.left)
                    gathered += weight(found)
                    if gathered >= GATHERED or stopped.is_set() or time.monotonic() > until:
                        return Found(lines, stretch), None
        except Unknown as error:
            return Found(lines, stretch), error
        return Found(lines, self._left(stretch, stretch.after if self.newest else stretch.before)), None

    def _left(self, stretch: Stretch, at: int) -> Stretch:
        if self.newest:
            return Stretch(stretch.after, max(at, stretch.after))
        return Stretch(min(at, stretch.before), stretch.before)


def weight(lines: list[Line]) -> int:
    """The bytes that lines take, roughly."""
    return sum(len(line.data) + 100 for line in lines)


def lines_of(window: Window, conditions: Conditions, longest: int = LONGEST) -> Iterator[Line]:
    """The lines of a window for which all conditions hold, in their order."""
    at, block, _ = window
    end = len(block) - block.endswith(b"\n")
    has_returns = b"\r" in block
    ends_elsewhere = has_returns or len(block) > longest  # a line may end before the end that the scout sees
    scout = None if ends_elsewhere and conditions.by_end else conditions.scout
    place = 0 if block else 1
    while place <= end:
        hit = place
        if scout is not None:
            found = scout.search(block, place, end)
            if found is None:
                return
            hit = found.end()
        start = max(block.rfind(b"\n", place, hit) + 1, place)
        place = block.find(b"\n", hit, end)
        if place < 0:
            place = end
        data = block[start:place]
        if has_returns:
            data = data.removesuffix(b"\r")
        place += 1
        cut = len(data) > longest
        if cut:
            data = data[:longest]
        if conditions.hold(data, scout is not None and not has_returns and not cut):
            yield Line(at + start, data, cut)


async def within(until: float, work: Awaitable[None]) -> bool:
    """Whether the work ends before a moment (of time.monotonic), at which it is cancelled."""
    limit = asyncio.timeout(None if until == FOREVER else until - time.monotonic())
    try:
        async with limit:
            await work
    except TimeoutError:
        if not limit.expired():
            raise
        return False
    return True


class Lines:
    """The lines of users' files. Methods raise BadName, NoFile, Lost, S3Error, Busy, and BadCondition where named.

    Busy is raised only before the first line: a search that has begun goes on to its end.
    """

    def __init__(self, find: Find, spans: Spans):
        self._find = find
        self._spans = spans
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="lines")
        self._turns = Turns(THREADS, each=EACH, total=TOTAL)

    def close(self) -> None:
        """Shut the threads down."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def tail(self, user: str, name: str, count: int = 10) -> Found:
        """The last lines of a file in the file's order, and the stretch before them."""
        found = await self.filter(user, name, limit=count)
        return Found(found.lines[::-1], found.left)

    async def filter(
        self,
        user: str,
        name: str,
        wanted: Wanted = ALL,
        *,
        newest: bool = True,
        limit: int = 100,
        stretch: Stretch = WHOLE,
        seconds: float = SECONDS,
    ) -> Found:
        """The lines of a file that match, the newest or the oldest first, at most `limit`.

        Fewer if it takes longer than `seconds` or they are too large for one answer. Raises BadCondition.
        """
        lines: list[Line] = []
        size = 0
        scan = await self.scan(user, name, wanted, newest=newest, limit=limit, stretch=stretch, seconds=seconds)
        async with aclosing(scan):
            async for found in scan:
                lines += found.lines
                size += weight(found.lines)
                if size >= ANSWER:
                    break
        return Found(lines, found.left)

    async def scan(
        self,
        user: str,
        name: str,
        wanted: Wanted = ALL,
        *,
        newest: bool = True,
        limit: int = sys.maxsize,
        stretch: Stretch = WHOLE,
        seconds: float = SECONDS,
    ) -> AsyncGenerator[Found, None]:
        """The same as `filter`, one Found after another as they come; a Found may be empty.

        Closing the generator ends the search. Raises BadCondition before the first.
        """
        until = time.monotonic() + seconds
        file = await self._find(user, name)
        look = Look(await self._turns.run(user, self._thread(Conditions, wanted)), newest, limit)
        there = Stretch(stretch.after, min(stretch.before, file.size))
        return self._look(user, Places(self._spans, user, file), file.size, look, there, until)

    async def follow(
        self, user: str, name: str, wanted: Wanted = ALL, *, count: int = 10, version: str = "", at: int = -1
    ) -> tuple[str, AsyncGenerator[list[Line], None]]:
        """The version of a file, and a stream of its lines that match: the last ones, then each new one when it ends.

        Lists may be empty, when nothing has come for a while. Given back, `version` and `at` continue a stream behind
        the line that begins at that byte. Raises BadCondition; in the middle NoFile when the file is deleted, and
        Changed when it is replaced.
        """
        file = await self._find(user, name)
        conditions = await self._turns.run(user, self._thread(Conditions, wanted))
        begin = at + 1 if version == file.id else None
        return file.id, self._follow(user, file, conditions, count, begin)

    async def _follow(
        self, user: str, file: File, conditions: Conditions, count: int, begin: int | None
    ) -> AsyncGenerator[list[Line], None]:
        places = Places(self._spans, user, file)
        end = await self._end(user, places, file.size, 0)
        if begin is None and count:
            until = time.monotonic() + SECONDS
            last = self._look(user, places, end, Look(conditions, True, count), Stretch(0, end), until)
            yield [line async for found in last for line in found.lines][::-1]
        first = end if begin is None else begin
        stretch, coming = Stretch(first, end), Look(conditions, False, sys.maxsize)
        while True:
            async with aclosing(self._look(user, places, stretch.before, coming, stretch)) as look:
                async for found in look:
                    yield found.lines
            await asyncio.sleep(POLL)
            now = await self._find(user, file.name)
            if now.id != file.id:
                raise Changed(file.name)
            places = Places(self._spans, user, now)
            end = await self._end(user, places, now.size, file.size)
            stretch = Stretch(max(stretch.before, first), end if end > file.size else stretch.before)
            file = now

    async def _look(
        self, user: str, places: Places, size: int, look: Look, stretch: Stretch, until: float = FOREVER
    ) -> AsyncGenerator[Found, None]:
        """Search slice by slice, until nothing is left, nothing more is wanted, or the moment `until` has come."""
        stopped = threading.Event()
        found = Found([], stretch)
        try:
            while True:
                looking = self._thread(look.at, places.text(size), found.left, stopped)
                found, unknown = await self._turns.go_on(user, looking)
                look = look._replace(limit=look.limit - len(found.lines))
                yield found
                if not look.limit or found.is_all:
                    return
                has_begun = found.left != stretch  # each answer makes some progress, however long that takes
                if has_begun and time.monotonic() > until:
                    return
                if unknown is not None:
                    learning = places.learn(unknown.stretch, look.newest)
                    if not await within(until if has_begun else FOREVER, learning):
                        return
        finally:
            stopped.set()

    async def _end(self, user: str, places: Places, size: int, low: int) -> int:
        """Where the last whole line ends, or `low`."""
        while True:
            try:
                return await self._turns.go_on(user, self._thread(end_of_lines, places.text(size), low))
            except Unknown as error:
                await places.learn(error.stretch, True)

    def _thread(self, function: Callable[..., T], *given: Any) -> Callable[[], Awaitable[T]]:
        """A call as work for a thread, which begins when its turn comes."""
        return partial(asyncio.get_running_loop().run_in_executor, self._threads, partial(function, *given))
