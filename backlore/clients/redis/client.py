"""redis-py's own asyncio client over one shared connection, `Node`.

Every command has the name, the arguments and the results of redis-py (https://redis.readthedocs.io); replies
are str. Calling a command sends it and returns a future: `await` it, or `asyncio.gather` many.
(`create_task` takes coroutines only; a future doesn't need it.)

Some commands don't use the shared connection, because they would block it or change it for the other tasks:

- pub/sub, monitor, transactions with `watch`, blocking commands: they get a connection of redis-py's pool, as usual.
- SELECT, SUBSCRIBE, CLIENT TRACKING and the like by `execute_command`: refused. `client()` gives a redis-py
  client with one connection of its own for them.
- WAIT and WAITAOF: refused, because they wait for the writes of their own connection. Put them behind the writes in one
  `pipeline(transaction=False)`, which then gets a connection to itself, or use `client()`.
"""

from __future__ import annotations

import asyncio
import builtins
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, Self, cast

from redis.asyncio import ConnectionPool
from redis.asyncio import Redis as StockRedis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.client import EMPTY_RESPONSE, NEVER_DECODE
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    RedisError,
    TimeoutError,
)

from backlore.clients.redis.address import Address
from backlore.clients.redis.commands import FAMILIES, FOREVER, STREAMS, WAITS, full_name, patience, split, why_refused
from backlore.clients.redis.errors import Parser
from backlore.clients.redis.failures import Interrupted, Unavailable
from backlore.clients.redis.link import Arguments, Callback, Command
from backlore.clients.redis.node import Node
from backlore.clients.redis.pipeline import Pipeline, finish

__all__ = ["Interrupted", "Node", "Pipeline", "Redis", "Unavailable"]


class Redis(StockRedis):
    """A redis-py client whose commands share one connection.

    Takes `url` (redis://, rediss:// or unix://) or redis-py's `host`, `port`, `unix_socket_path`, `username`,
    `password`, `ssl`, `ssl_...`, `db`, `client_name`; `timeout`, the seconds that a command may take;
    `limit`, how many commands may wait at once; `notify`, called like core's `Notify` when the connection to the
    server is lost or restored.

    Every command ends within little more than `timeout`: with its reply, redis-py's exception for the server's
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
        self._plain: set[str] = set()  # commands seen before, in capitals, that need no further checks
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
        self.connection_pool.connection_kwargs["parser_class"] = Parser
        # read by dict.get: the keys are in capitals already, and redis-py's own `get` is slower
        self._callbacks: dict[str, Callback] = self.response_callbacks  # type: ignore[assignment]  # it is a dict
        self._timeout = timeout
        self.node = Node(self._address(), timeout=timeout, limit=limit, notify=notify)
        # with retries, because subscribing again does no harm
        self._listeners = self._pool(retry=Retry(ExponentialWithJitterBackoff(base=0.02, cap=1), 10))

    @classmethod
    def from_url(cls, url: str, *_: Any, **options: Any) -> Self:
        """`Redis(url, **options)`, under redis-py's name."""
        return cls(url, **options)

    def _pool(self, **changes: Any) -> ConnectionPool:
        """Another pool of connections to the same server."""
        pool = self.connection_pool
        return ConnectionPool(connection_class=pool.connection_class, **pool.connection_kwargs | changes)

    def _address(self) -> Address:
        """The server's address, from the options of the pool."""
        pool = self.connection_pool
        known = pool.connection_kwargs
        connection = pool.connection_class(**known)
        context = getattr(connection, "ssl_context", None)
        return Address(
            path=known.get("path"),
            host=known.get("host", "localhost"),
            port=known.get("port", 6379),
            username=known.get("username"),
            password=known.get("password"),
            ssl=context.get() if context else None,
            db=int(known.get("db") or 0),
            name=known.get("client_name") or "backlore",
        )

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command now. Returns an awaitable of its result, as every redis-py command does."""
        name = args[0]
        if name not in self._plain:
            return self._uncommon(args, options)
        callback = dict.get(self._callbacks, name)
        if options:
            options.pop("keys", None)
            if NEVER_DECODE in options:
                del options[NEVER_DECODE]
                return self.node.send(args, callback, options, False)
        return self.node.send(args, callback, options)

    def _uncommon(self, args: Arguments, options: dict[str, Any]) -> Awaitable[Any]:
        """Send a command that is seen for the first time, or needs special handling."""
        if why := why_refused(args):
            raise RedisError(why)
        name = full_name(args)
        if name in WAITS:
            raise RedisError(
                f"{name} waits for the writes of its own connection, which all tasks share here: put it behind them in "
                "one pipeline(transaction=False), or use client()"
            )
        wait = patience(name, args)
        if wait is not None:
            return self._block(wait, args, options)
        if name.startswith("HIMPORT") or EMPTY_RESPONSE in options:
            stock: Any = super()
            return cast(Awaitable[Any], stock.execute_command(*args, **options))
        request = self.request(args, dict(options))
        if name in STREAMS or inspect.iscoroutinefunction(request[1]):
            (future,) = self.node.send_many([(request[0], None, None, request[3])])
            return finish(future, request)
        if name == args[0] and " " not in name and name not in FAMILIES:
            self._plain.add(name)
        return self.node.send(*request)

    def request(self, args: Arguments, options: dict[str, Any]) -> Command:
        """A redis-py command as `Node` takes it. Removes from `options` whatever isn't for the callback."""
        options.pop("keys", None)
        decode = options.pop(NEVER_DECODE, None) is None
        callback = dict.get(self._callbacks, args[0].upper())
        return split(args), callback, options, decode

    async def _block(self, wait: float, args: Arguments, options: dict[str, Any]) -> Any:
        """Run a blocking command on a connection of the pool; it may take as long as it blocks plus `timeout`."""
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
            async with asyncio.timeout(wait + self._timeout):  # redis-py's own timeout looks like an empty reply
                reply = await connection.read_response(disable_decoding=not request[3], timeout=FOREVER)
        except (ConnectionError, TimeoutError, builtins.TimeoutError) as error:
            why = str(error) or "no reply in time"
            raise Interrupted(f"{args[0]} may or may not have run: {why}") from error
        finally:  # redis-py has disconnected it, if its reply may still come
            await pool.release(connection)
        return await finish(reply, request)

    def set_response_callback(self, command: str, callback: Callable[..., Any]) -> None:
        """redis-py's: set the function that turns a command's reply into its result."""
        self._plain.discard(command.upper())
        super().set_response_callback(command, callback)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """redis-py's pipeline: commands are collected, and `await execute()` sends them in one write."""
        return Pipeline(self, transaction, shard_hint)

    def watch(self, *names: Any) -> NoReturn:
        """Refused: redis-py's own only warns that it does nothing."""
        raise RedisError("WATCH belongs to a transaction: use pipeline().watch() or transaction()")

    unwatch = watch

    def client(self) -> StockRedis:
        """A redis-py client with one connection of its own, for commands that change it. Close it."""
        client = StockRedis(connection_pool=self._pool(), single_connection_client=True)
        client.auto_close_connection_pool = True
        return client

    def pubsub(self, **options: Any) -> PubSub:
        """redis-py's pub/sub, on a connection of its own. After a loss it reconnects and subscribes again."""
        return PubSub(self._listeners, event_dispatcher=self._event_dispatcher, **options)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Wait for commands in flight, at most `timeout`, and close all connections."""
        await self.node.close()
        await super().aclose(close_connection_pool)
        await self._listeners.disconnect()
