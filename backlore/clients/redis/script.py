"""A Lua script that redis runs atomically, and redis' clock, on which nodes agree even if their own clocks differ."""

import hashlib
from typing import Any

from redis.exceptions import NoScriptError

# `now`, µs since the epoch, and `later(µs)`, as text: Lua itself would write 1.8e+15.
CLOCK = """
local clock = redis.call('TIME')
local now = clock[1] .. ('%06d'):format(clock[2])
local function later(delay) return ('%.0f'):format(now + delay) end
"""


class Script:
    """Call it with a client, the keys and the arguments. Its hash is sent, or all of it if redis lacks it."""

    __slots__ = ("_sha", "_text")

    def __init__(self, text: str):
        self._text = text
        self._sha = hashlib.sha1(text.encode()).hexdigest()

    async def __call__(self, redis: Any, keys: list[str], *arguments: str | int | float) -> Any:
        """Run the script; returns its result. Raises RedisError."""
        try:
            return await redis.execute_command("EVALSHA", self._sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return await redis.execute_command("EVAL", self._text, len(keys), *keys, *arguments)


async def read_clock(redis: Any) -> int:
    """µs since the epoch, by redis' clock. Raises RedisError."""
    seconds, micros = await redis.time()
    return int(seconds) * 1_000_000 + int(micros)
