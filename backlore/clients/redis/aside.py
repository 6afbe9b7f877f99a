"""What was set aside, for people to see: work that we can't read, which an older or newer version has written.

    aside:{all}   sorted set   "KIND NAME" → when we last saw it (µs); two hours from then on, the latest 1,000

Law: nothing is thrown away. What is set aside stays where it is, holds up nothing else, and is looked at again every
hour: a version that can read it does the work then.
"""

from typing import Any, NamedTuple

from backlore.clients.redis.script import CLOCK, Script
from backlore.core.keys import key
from backlore.core.notify import Notify

AGAIN = 3600.0  # seconds until it is looked at again
SHOWN = int(2 * AGAIN * 1e6)  # µs
MOST = 1000
PLACE = key("aside", "all")

# 1 if it is new here. ARGV: what, how long it is shown, how many are kept
ADD = Script(
    CLOCK
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', later(-ARGV[2]))
local new = redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[3] - 1)
return new
"""
)
# ARGV: how long it is shown
SHOW = Script(CLOCK + "return redis.call('ZRANGEBYSCORE', KEYS[1], later(-ARGV[1]), '+inf')")


class SetAside(NamedTuple):
    """`kind` is "mail" or "move"; `name` the letter, or user and content."""

    kind: str
    name: str


class Aside:
    """Notes and tells what was set aside."""

    def __init__(self, redis: Any, notify: Notify):
        self._redis = redis
        self._notify = notify

    async def add(self, kind: str, name: str) -> None:
        """Something was set aside; it is told the first time. Raises RedisError."""
        if await ADD(self._redis, [PLACE], f"{kind} {name}", SHOWN, MOST):
            self._notify("error", "aside", kind=kind, name=name, why="this version can't read it: see backlore check")


async def set_aside(redis: Any) -> list[SetAside]:
    """What is set aside, the latest last. Raises RedisError."""
    return [SetAside(*each.split(" ", 1)) for each in await SHOW(redis, [PLACE], SHOWN)]
