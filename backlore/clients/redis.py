"""redis-py's own asyncio client over one shared connection, `Node`.

Every command has the name, the arguments and the results of redis-py (https://redis.readthedocs.io); replies
are str. A command is sent when it is called, and returns a future: `await` it, or `asyncio.gather` many.
(`create_task` takes coroutines only: with a future there is no need for it.)

Not on the shared connection, because they would stop the others or change it for them:

- pub/sub, monitor, transactions with `watch`, blocking commands: a connection of redis-py's pool, as ever.
- SELECT, SUBSCRIBE, CLIENT TRACKING and the like by `execute_command`: refused. `client()` gives a redis-py
  client with one connection of its own for them.
"""

from __future__ import annotations

import asyncio
import builtins
import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Self, cast

from redis.asyncio import ConnectionPool
from redis.asyncio import Redis as StockRedis
from redis.asyncio.client import Pipeline as StockPipeline
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.client import EMPTY_RESPONSE, NEVER_DECODE
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from backlore.clients.link import Arguments, Callback, Request, Unwritable
from backlore.clients.node import Interrupted, Node, Unavailable

__all__ = ["Interrupted", "Node", "Pipeline", "Redis", "Unavailable", "Unwritable"]

# Where the limit of a blocking command stands among its arguments, and its unit in seconds.
BLOCKING: Mapping[str, tuple[int, float]] = {
    "BLPOP": (-1, 1),
    "BRPOP": (-1, 1),
    "BLMOVE": (-1, 1),
    "BRPOPLPUSH": (-1, 1),
    "BZPOPMIN": (-1, 1),
    "BZPOPMAX": (-1, 1),
    "BLMPOP": (1, 1),
    "BZMPOP": (1, 1),
    "WAIT": (-1, 0.001),
    "WAITAOF": (-1, 0.001),
}
# Block only if asked to; redis-py wants a coroutine from these two.
STREAMS = frozenset({"XREAD", "XREADGROUP"})
# Their second word decides.
FAMILIES = frozenset({"CLIENT", "SCRIPT", "HIMPORT"})
# They change the connection they come through, or end it, or turn it into a stream. On a connection that all
# tasks share that would hit the others; on a random one of the pool, whoever takes it next.
REFUSED = frozenset(
    {"SELECT", "AUTH", "HELLO", "RESET", "QUIT", "MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH", "MONITOR"}
    | {"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE", "SYNC"}
    | {"PSYNC", "READONLY", "READWRITE", "ASKING", "SCRIPT DEBUG", "CLIENT REPLY", "CLIENT TRACKING"}
    | {"CLIENT CACHING"}
    | {"CLIENT SETNAME", "CLIENT SETINFO", "CLIENT NO-EVICT", "CLIENT NO-TOUCH"}
)
FOREVER = 1e8  # seconds
MULTI: Request = ("MULTI",), None, None, True
EXEC: Request = ("EXEC",), None, None, True


def full_name(args: Arguments) -> str:
    """The command's name in capitals, with the second word if it needs one: `CLIENT REPLY`."""
    words = args[0].decode() if isinstance(args[0], bytes) else str(args[0])
    name = " ".join(words.upper().split())
    if name in FAMILIES and len(args) > 1:
        second = args[1].decode() if isinstance(args[1], bytes) else str(args[1])
        return f"{name} {second.upper()}"
    return name


def split(args: Arguments) -> Arguments:
    """redis-py writes `CONFIG GET` as one argument; the server wants two."""
    first = args[0].split() if isinstance(args[0], str | bytes) else [args[0]]
    return (*first, *args[1:])


def patience(name: str, args: Arguments) -> float | None:
    """How many seconds the command may block; None if it doesn't."""
    if name in BLOCKING:
        place, unit = BLOCKING[name]
        return float(args[place]) * unit or FOREVER
    if name in STREAMS:
        words = [a.upper() if isinstance(a, bytes) else str(a).upper().encode() for a in args]
        before = words[: words.index(b"STREAMS")] if b"STREAMS" in words else words
        if b"BLOCK" in before[:-1]:
            return float(args[before.index(b"BLOCK") + 1]) / 1000 or FOREVER
    return None


class Redis(StockRedis):
    """A redis-py client whose commands share one connection.

    Takes `url` (redis://, rediss:// or unix://) or redis-py's `host`, `port`, `unix_socket_path`, `username`,
    `password`, `ssl`, `ssl_...`, `db`, `client_name`; `timeout`, the seconds that a command may take;
    `limit`, how many commands may wait at once; `notify`, called like core's `Notify` when the server is lost
    or back.

    Every command ends within `timeout` and a little: with its reply, redis-py's exception for the server's
    error, `Interrupted` (it may have run) or `Unavailable` (it did not).
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout: float = 0.8,
        limit: int = 10_000,
        notify: Callable[..., object] | None = None,
        **options: Any,
    ) -> None:
        self._plain: set[str] = set()  # commands in capitals, seen before, that need no second look
        options |= {
            "protocol": 3,
            "decode_responses": True,
            "encoding_errors": "surrogateescape",
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            # a command that may have run is never repeated behind the caller's back
            "retry": Retry(NoBackoff(), 0),
        }
        if url is None:
            super().__init__(**options)
        else:
            super().__init__(connection_pool=ConnectionPool.from_url(url, **options))
            self.auto_close_connection_pool = True
        # by dict.get: the keys are in capitals, and redis-py's own `get` is slower
        self._callbacks: dict[str, Callback] = self.response_callbacks  # type: ignore[assignment]  # it is a dict
        self._timeout = timeout
        self._node = Node(timeout=timeout, limit=limit, notify=notify, **self._address())
        # subscribing again does no harm
        self._listeners = self._pool(retry=Retry(ExponentialWithJitterBackoff(base=0.02, cap=1), 10))

    @classmethod
    def from_url(cls, url: str, *_: Any, **options: Any) -> Self:
        """`Redis(url, **options)`, under redis-py's name."""
        return cls(url, **options)

    def _pool(self, **changes: Any) -> ConnectionPool:
        """Another pool of connections to the same server."""
        pool = self.connection_pool
        return ConnectionPool(connection_class=pool.connection_class, **pool.connection_kwargs | changes)

    def _address(self) -> dict[str, Any]:
        """What the pool knows of the server, in the words of `Node`."""
        pool = self.connection_pool
        known = pool.connection_kwargs
        connection = pool.connection_class(**known)
        context = getattr(connection, "ssl_context", None)
        return {
            "path": known.get("path"),
            "host": known.get("host", "localhost"),
            "port": known.get("port", 6379),
            "username": known.get("username"),
            "password": known.get("password"),
            "db": int(known.get("db") or 0),
            "name": known.get("client_name") or "backlore",
            "ssl": context.get() if context else None,
        }

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command now; returns an awaitable of its result, as all commands of redis-py do."""
        name = args[0]
        if name not in self._plain:
            return self._uncommon(args, options)
        callback = dict.get(self._callbacks, name)
        if options:
            options.pop("keys", None)
            if NEVER_DECODE in options:
                del options[NEVER_DECODE]
                return self._node.send(args, callback, options, False)
        return self._node.send(args, callback, options)

    def _uncommon(self, args: Arguments, options: dict[str, Any]) -> Awaitable[Any]:
        """A command seen for the first time, or one with a way of its own."""
        name = full_name(args)
        if name in REFUSED:
            raise RedisError(
                f"{name} changes the connection, which all tasks share here: use pipeline(), pubsub(), "
                "monitor() or the client's options; client() gives a connection of your own"
            )
        wait = patience(name, args)
        if wait is not None:
            return self._block(wait, args, options)
        if name.startswith("HIMPORT") or EMPTY_RESPONSE in options:
            stock: Any = super()
            return cast(Awaitable[Any], stock.execute_command(*args, **options))
        request = self.request(args, dict(options))
        if name in STREAMS or inspect.iscoroutinefunction(request[1]):
            (future,) = self._node.send_many([(request[0], None, None, request[3])])
            return finish(future, request)
        if name == args[0] and " " not in name and name not in FAMILIES:
            self._plain.add(name)
        return self._node.send(*request)

    def request(self, args: Arguments, options: dict[str, Any]) -> Request:
        """A command of redis-py as `Node` takes it. Takes out of `options` what isn't for the callback."""
        options.pop("keys", None)
        decode = options.pop(NEVER_DECODE, None) is None
        callback = dict.get(self._callbacks, args[0].upper())
        return split(args), callback, options, decode

    async def _block(self, wait: float, args: Arguments, options: dict[str, Any]) -> Any:
        """Run a blocking command on a connection of the pool, for as long as it blocks and `timeout` more."""
        pool: Any = self.connection_pool
        request = self.request(args, options)
        try:
            connection = await pool.get_connection()
        except AuthenticationError:
            raise
        except (ConnectionError, TimeoutError) as error:
            raise Unavailable(f"{args[0]} did not run: {error}") from error
        try:
            await connection.send_command(*args)
            async with asyncio.timeout(wait + self._timeout):  # redis-py's own would pass for an empty reply
                reply = await connection.read_response(disable_decoding=not request[3], timeout=FOREVER)
        except (ConnectionError, TimeoutError, builtins.TimeoutError) as error:
            why = str(error) or "no reply in time"
            raise Interrupted(f"{args[0]} may or may not have run: {why}") from error
        finally:  # redis-py has disconnected it, if its reply may still come
            await pool.release(connection)
        return await finish(reply, request)

    def set_response_callback(self, command: str, callback: Callable[..., Any]) -> None:
        """redis-py's: what makes the result of the command of a reply."""
        self._plain.discard(command.upper())
        super().set_response_callback(command, callback)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """redis-py's pipeline: commands are collected, and `await execute()` sends them in one write."""
        return Pipeline(self, transaction, shard_hint)

    def client(self) -> StockRedis:
        """A redis-py client with one connection of its own, for commands that change it. Close it."""
        client = StockRedis(connection_pool=self._pool(), single_connection_client=True)
        client.auto_close_connection_pool = True
        return client

    def pubsub(self, **options: Any) -> PubSub:
        """redis-py's pub/sub, on a connection of its own, which subscribes again when it was lost."""
        return PubSub(self._listeners, event_dispatcher=self._event_dispatcher, **options)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Wait for what is under way, at most `timeout`, and close all connections."""
        await self._node.close()
        await super().aclose(close_connection_pool)
        await self._listeners.disconnect()


async def finish(reply: Any, request: Request) -> Any:
    """The result of a reply, or of the future of one, by a callback that may have to be awaited."""
    _, callback, options, _ = request
    if asyncio.isfuture(reply):
        reply = await reply
    result = callback(reply, **options or {}) if callback else reply
    return await result if inspect.isawaitable(result) else result


class Pipeline(StockPipeline):
    """redis-py's pipeline over the shared connection.

    After `watch` it needs a connection of its own and is redis-py's altogether; so too with commands that
    change the connection, or block: those may block for less than `timeout`, and within MULTI not at all.
    """

    def __init__(self, client: Redis, transaction: bool, shard_hint: str | None) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, shard_hint)
        self._client = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send all commands in one write; returns their results, in order.

        Raises the first error, or with `raise_on_error` off leaves errors in their places; raises
        `Interrupted` if some may or may not have run, `Unavailable` if none did.
        """
        commands = self.command_stack
        transaction = self.is_transaction or self.explicit_transaction
        shared = all(shares(args, options, transaction) for args, options in commands)
        if not commands or self.connection or not shared:
            return await super().execute(raise_on_error)
        try:
            if self.scripts:
                await self.load_scripts()
            if transaction:
                return await self._transact(commands, raise_on_error)
            requests = [self._client.request(args, dict(options)) for args, options in commands]
            replies = await self._exchange([(r[0], None, None, r[3]) for r in requests])
            return await self._results(commands, requests, replies, raise_on_error)
        finally:
            await self.reset()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped

    async def load_scripts(self) -> None:
        """Load the scripts of this pipeline that the server doesn't know."""
        scripts = list(self.scripts)
        known = await self._client.script_exists(*(script.sha for script in scripts))
        for script, exists in zip(scripts, known, strict=True):
            if not exists:
                script.sha = await self._client.script_load(script.script)

    async def _exchange(self, requests: list[Request]) -> list[Any]:
        """Send requests side by side; returns replies and errors of the server, raises if one is missing."""
        futures = self._client._node.send_many(requests)
        try:
            with suppress(Exception):  # told below
                await futures[-1]  # the last reply is the last to come
        finally:
            for future in futures:
                future.cancel()
        errors = [future.exception() for future in futures]
        for error in errors:
            if error and not isinstance(error, ResponseError):
                raise error
        return [error or future.result() for error, future in zip(errors, futures, strict=True)]

    async def _transact(self, commands: Any, raise_on_error: bool) -> list[Any]:
        """Send the commands between MULTI and EXEC."""
        requests = [self._client.request(args, dict(options)) for args, options in commands]
        plain: list[Request] = [(args, None, None, True) for args, *_ in requests]
        replies = await self._exchange([MULTI, *plain, EXEC])
        outcome = replies.pop()
        if isinstance(outcome, ResponseError):
            for number, reply in enumerate(replies):
                if isinstance(reply, ResponseError):
                    if number:
                        self.annotate_exception(reply, number, commands[number - 1][0])
                    raise reply from outcome
            raise outcome
        return await self._results(commands, requests, outcome, raise_on_error)

    async def _results(
        self, commands: Any, requests: list[Request], replies: list[Any], raise_on_error: bool
    ) -> list[Any]:
        if raise_on_error:
            self.raise_first_error(commands, replies)
        return [
            reply if isinstance(reply, Exception) else await finish(reply, request)
            for reply, request in zip(replies, requests, strict=True)
        ]


def shares(args: Arguments, options: Mapping[str, Any], transaction: bool) -> bool:
    """May this command of a pipeline go over the shared connection? Within MULTI nothing blocks."""
    name = full_name(args)
    if name in REFUSED or name.startswith("HIMPORT") or EMPTY_RESPONSE in options:
        return False
    return transaction or patience(name, args) is None
