"""One connection to one redis server, shared by all tasks of an event loop.

Laws:

- All commands issued in one turn of the event loop leave in one write, or 12 at a time when there are many. Commands
  issued in one synchronous stretch stay together, in order, on one connection: nothing comes between MULTI and EXEC.
- Replies come in the order of the commands. An entry leaves the queue only with its reply or its connection,
  even if nobody waits for it any more.
- A command that has been written is never written again. If its reply doesn't come, it fails with `Interrupted`.
- A command that has not been written is kept until it can be sent, at most `timeout` seconds, then it fails with
  `Unavailable`. So every command ends within `timeout` plus a tick of the watchdog, whatever the server does.
- Only time in which the event loop runs counts. While the loop stands still the whole machine may, and the server is
  not to blame.

Wire format: RESP3 (https://github.com/redis/redis-specifications/blob/master/protocol/RESP3.md), server 6.0+.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hiredis import pack_command
from redis.exceptions import AuthenticationError, ResponseError

from backlore.clients.redis.address import Address
from backlore.clients.redis.failures import Interrupted, full, greeting_refused, interrupted, unavailable
from backlore.clients.redis.link import Arguments, Callback, Command, Entry, Future, Link, fail, pack

PART = 12  # commands that are written before their turn ends: server and worker then run in parallel (+30 %)
TICK = 0.1  # seconds between two checks of the watchdog
PAUSE = 0.02, 1.0  # seconds between two attempts to connect: the first pause, and the longest


class Node:
    """A server, reached through one connection that is opened by the first command and kept alive.

    `timeout`: the seconds that a command may take, and that connecting may take; `limit`: how many commands may
    wait at once; `notify` is called like core's `Notify` with `redis.lost` (why) and `redis.back`. Belongs to one
    event loop, the one of the first command.
    """

    def __init__(
        self,
        address: Address,
        *,
        timeout: float = 0.8,
        limit: int = 10_000,
        notify: Callable[..., object] | None = None,
    ) -> None:
        self.address = address
        self.timeout = timeout
        self.limit = limit
        self._notify = notify
        self._loop: asyncio.AbstractEventLoop | None = None
        self._link: Link | None = None
        self._unsent: list[Entry] = []
        self._packed: list[bytes] = []
        self._turn = False  # a flush is scheduled
        self._since = 0.0  # when this turn began
        self._room = 0  # how long _unsent may become in this turn
        self._mark = 0  # the length of _unsent at which to check for room, and whether a part can be written
        self._watchdog: asyncio.TimerHandle | None = None
        self._due = 0.0  # when the watchdog checks next
        self._late = False  # it checks a second time, because it was late the first time
        self._stood = 0.0  # seconds that the loop has stood still: the clock of commands leaves them out
        self._connecting: asyncio.Task[None] | None = None
        self._pause = 0.0
        self._attempt = 0.0  # the next one, not before this time
        self._trouble = ""  # why the server can't be reached
        self._create_future: Callable[[], Future] = self._first_future

    def send(
        self,
        args: Arguments,
        callback: Callback | None = None,
        options: Mapping[str, Any] | None = None,
        decode: bool = True,
    ) -> Future:
        """Send a command with this turn's others. Returns the future of its reply; never raises.

        `callback(reply, **options)` makes the result. `decode`: strings of the reply are str (UTF-8, other
        bytes escaped as surrogates), else bytes. The future fails with the server's error as redis-py's
        exception, with `DataError`, `Interrupted` or `Unavailable`, or with what the callback raised.
        """
        future = self._create_future()
        try:
            packed = pack_command(args)
        except (TypeError, UnicodeEncodeError):
            return self.send_many([(args, callback, options, decode)])[0]
        if not self._turn:
            self._begin()
        unsent = self._unsent
        if len(unsent) >= self._mark and not self._write_part():
            future.set_exception(full(self.address, self.limit))
            return future
        self._packed.append(packed)
        unsent.append((future, callback, options, decode, self._since))
        return future

    def send_many(self, requests: Sequence[Command]) -> list[Future]:
        """Send requests, each a tuple like the arguments of `send`: all of them together, or none.

        Returns their futures, in order. Fails like `send`.
        """
        futures = [self._create_future() for _ in requests]
        try:
            packed = [pack(request[0]) for request in requests]
            if not self._turn:
                self._begin()
            if len(self._unsent) + len(requests) > self._room:
                raise full(self.address, self.limit)
        except Exception as error:
            for future in futures:
                future.set_exception(error)
            return futures
        self._packed += packed
        for future, (_, callback, options, decode) in zip(futures, requests, strict=True):
            self._unsent.append((future, callback, options, decode, self._since))
        return futures

    async def close(self) -> None:
        """Wait for commands in flight, at most `timeout` seconds, and disconnect.

        The next command connects anew, on the event loop that it runs on.
        """
        if self._loop is None:
            return
        waiting = [entry[0] for entry in (*(self._link.pending if self._link else ()), *self._unsent)]
        if waiting:
            await asyncio.wait(waiting, timeout=self.timeout)
        if self._connecting:
            self._connecting.cancel()
            self._connecting = None
        if self._link:
            self._link.transport.close()
            self._drop("it was closed here")
        self._expire(float("inf"), "it was closed here")
        if self._watchdog:
            self._watchdog.cancel()
            self._watchdog = None
        self._turn = False
        self._loop, self._create_future = None, self._first_future

    # One turn of the loop

    def _first_future(self) -> Future:
        self._loop = asyncio.get_running_loop()
        self._create_future = self._loop.create_future
        return self._create_future()

    def _begin(self) -> None:
        """Begin a turn with its first command: read the clock and the room left, once for all commands of the turn."""
        assert self._loop
        self._since = self._loop.time() - self._stood
        self._room = self.limit - (len(self._link.pending) if self._link else 0)
        self._mark = min(PART, self._room)
        self._loop.call_soon(self.flush)
        self._turn = True
        if self._watchdog is None:
            self._look_again(TICK)

    def _write_part(self) -> bool:
        """Write waiting commands now: the server works while this turn goes on. Returns whether more have room."""
        link = self._link
        if link is not None and link.free():
            self._room -= len(self._unsent)
            self._write(link)
            self._mark = min(PART, self._room)
        else:
            self._mark = self._room
        return len(self._unsent) < self._room

    def _write(self, link: Link) -> None:
        link.write(b"".join(self._packed), self._unsent)
        self._unsent.clear()
        self._packed.clear()

    def flush(self) -> None:
        """Write all waiting commands if the link is free; connect if there is no link."""
        self._turn = False
        link = self._link
        if not self._unsent:
            return
        if link is None:
            self._connect()
        elif link.free():
            self._write(link)

    # The limits of waiting

    def _watch(self) -> None:
        """Fail commands that have waited too long; disconnect from a server that is silent for too long."""
        assert self._loop
        late = self._loop.time() - self._due
        if late > TICK:
            self._stood += late
            if not self._late:  # let the loop first read replies that have come
                self._look_again(TICK / 2, late=True)
                return
        now = self._loop.time() - self._stood
        link = self._link
        if link is not None:
            latest = now - self.timeout  # one value for both checks: computed twice, rounding could let one more pass
            for entry in link.pending:
                if entry[4] > latest:
                    break
                fail(entry, interrupted(self.address, f"no reply within {self.timeout:g} s"))
            age = link.age(now)
            link.stalled = bool(link.pending) and link.pending[0][4] <= latest
            if age > 3 * self.timeout:
                link.transport.abort()
                self.lost(link, TimeoutError(f"no reply within {age:.1f} s"))
            elif not link.stalled:
                self.flush()
        self._expire(now - self.timeout, "it doesn't answer" if self._link else self._trouble)
        if self._unsent or (self._link and self._link.pending):
            self._look_again(TICK)
        else:
            self._watchdog = None

    def _look_again(self, seconds: float, late: bool = False) -> None:
        assert self._loop
        self._late, self._due = late, self._loop.time() + seconds
        self._watchdog = self._loop.call_later(seconds, self._watch)

    def _expire(self, before: float, why: str) -> None:
        """Fail the unsent commands that were issued up to this time. Those of one turn share one time."""
        late = 0
        while late < len(self._unsent) and self._unsent[late][4] <= before:
            fail(self._unsent[late], unavailable(self.address, why))
            late += 1
        del self._unsent[:late], self._packed[:late]

    # Connecting

    def lost(self, link: Link, error: Exception | None) -> None:
        """The link broke: fail the commands in flight, and reconnect at once."""
        if link is not self._link:
            return
        assert self._loop
        now = self._loop.time()
        if now - link.since > TICK:  # a link that broke sooner keeps the pause
            self._pause = 0.0
        self._attempt = now + self._pause
        why = str(error or "the server closed the connection")
        self._worry(why)
        self._drop(why)
        if link.ready:
            self._connect()

    def _drop(self, why: str) -> None:
        """Forget the link, and fail the commands in flight on it."""
        link, self._link = self._link, None
        for entry in link.pending if link else ():
            fail(entry, interrupted(self.address, why))

    def _connect(self) -> None:
        if self._connecting is None:
            assert self._loop
            self._connecting = self._loop.create_task(self._keep_connecting())

    async def _keep_connecting(self) -> None:
        """Try until there is a link, or nothing waits for one."""
        assert self._loop
        try:
            while True:
                await asyncio.sleep(self._attempt - self._loop.time())
                self._pause = min(max(2 * self._pause, PAUSE[0]), PAUSE[1])
                try:
                    async with asyncio.timeout(self.timeout):
                        await self._open()
                    return
                except Exception as error:  # of many kinds: no route, no such host, a bad certificate
                    self._failed(error)
                if not self._unsent:
                    return
        finally:
            if self._connecting is asyncio.current_task():  # else `close` has cancelled this one
                self._connecting = None

    async def _open(self) -> None:
        """Connect, greet the server, and write waiting commands."""
        assert self._loop
        link = Link(self.flush, self.lost)
        await self.address.connect(link)
        link.since = self._loop.time()
        self._link = link
        greeting = self.address.greeting()
        since = link.since - self._stood
        greeted = [(self._loop.create_future(), None, None, True, since) for _ in greeting]
        link.write(b"".join(map(pack_command, greeting)), greeted)
        await asyncio.gather(*(entry[0] for entry in greeted))  # it also retrieves errors after the first
        link.ready = True
        if self._trouble and self._notify:
            self._notify("info", "redis.back", address=str(self.address))
        self._trouble = ""
        self.flush()

    def _failed(self, error: Exception) -> None:
        """An attempt to connect failed. Waiting commands fail if the server refused us, and else go on waiting."""
        assert self._loop
        self._attempt = self._loop.time() + self._pause * random.uniform(0.5, 1)
        link, self._link = self._link, None
        if link:
            link.transport.abort()
        if not isinstance(error, Interrupted):  # else `lost` has reported why
            self._worry(str(error) or f"no connection within {self.timeout:g} s")
        if isinstance(error, AuthenticationError | ResponseError):
            for entry in self._unsent:
                fail(entry, greeting_refused(self.address, error))
            self._unsent.clear()
            self._packed.clear()

    def _worry(self, why: str) -> None:
        if not self._trouble and self._notify:
            self._notify("error", "redis.lost", address=str(self.address), why=why)
        self._trouble = why
