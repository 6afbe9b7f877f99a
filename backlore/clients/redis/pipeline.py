"""redis-py's pipeline, including transactions, over the connection that all tasks share."""

import asyncio
import inspect
from contextlib import suppress
from typing import Any

from redis.asyncio.client import Pipeline as StockPipeline
from redis.exceptions import RedisError, ResponseError

from backlore.clients.redis.commands import WAITS, full_name, shares, why_refused
from backlore.clients.redis.link import Command

MULTI: Command = ("MULTI",), None, None, True
EXEC: Command = ("EXEC",), None, None, True


async def finish(reply: Any, request: Command) -> Any:
    """The result of a reply, or of the future of one. The request's callback makes it, and may be a coroutine."""
    _, callback, options, _ = request
    if asyncio.isfuture(reply):
        reply = await reply
    result = callback(reply, **options or {}) if callback else reply
    return await result if inspect.isawaitable(result) else result


class Pipeline(StockPipeline):
    """redis-py's pipeline over the shared connection. `client` is the `Redis` that makes it.

    After `watch`, or with commands that block, it needs a connection of its own and works as redis-py's. Such commands
    may block for less than `timeout`, and within MULTI not at all.
    """

    def __init__(self, client: Any, transaction: bool, shard_hint: str | None) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, shard_hint)
        self._client = client

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """redis-py's. Raises RedisError for a command that would change the connection for its next user."""
        watches = args[0] == "WATCH" or (args[0] == "UNWATCH" and self.watching)
        if not watches and (why := why_refused(args)):
            raise RedisError(why)
        return super().execute_command(*args, **options)

    def pipeline_execute_command(self, *args: Any, **options: Any) -> Any:
        """redis-py's: collect a command."""
        if (self.is_transaction or self.explicit_transaction) and (name := full_name(args)) in WAITS:
            raise RedisError(f"{name} waits for nothing within a transaction: use pipeline(transaction=False)")
        return super().pipeline_execute_command(*args, **options)  # type: ignore[no-untyped-call]

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send all commands in one write. Returns their results, in order.

        Raises the first error of a command; without `raise_on_error` errors are among the results. Raises
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
        """Load those of this pipeline's scripts that the server doesn't know."""
        scripts = list(self.scripts)
        known = await self._client.script_exists(*(script.sha for script in scripts))
        for script, exists in zip(scripts, known, strict=True):
            if not exists:
                script.sha = await self._client.script_load(script.script)

    async def _exchange(self, requests: list[Command]) -> list[Any]:
        """Send requests together. Returns the server's replies and errors; raises if a reply is missing."""
        futures = self._client.node.send_many(requests)
        try:
            with suppress(Exception):  # raised below
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
        plain: list[Command] = [(args, None, None, True) for args, *_ in requests]
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
        self, commands: Any, requests: list[Command], replies: list[Any], raise_on_error: bool
    ) -> list[Any]:
        if raise_on_error:
            self.raise_first_error(commands, replies)
        return [
            reply if isinstance(reply, Exception) else await finish(reply, request)
            for reply, request in zip(replies, requests, strict=True)
        ]
