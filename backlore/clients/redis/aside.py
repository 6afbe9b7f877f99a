"""Lists the work that was set aside because this version can't read it: an older or newer version has written it.

    aside:{all}   sorted set   "KIND NAME" → when it was last seen (µs); for two hours from then, the latest 1,000

Law: nothing is thrown away. Work that is set aside stays where it is, delays no other work, and is tried again every
hour: a version that can read it then does it.
"""

from typing import Any, NamedTuple

from backlore.clients.redis.script import CLOCK, Script
from backlore.core.keys import key
from backlore.core.notify import Notify

AGAIN = 3600.0  # seconds until the next try
SHOWN = int(2 * AGAIN * 1e6)  # µs
MOST = 1000
PLACE = key("aside", "all")

# Note an entry. Returns 1 if it is new. ARGV: the entry, how long entries are shown (µs), how many are kept
ADD = Script(
    CLOCK
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', later(-ARGV[2]))
local new = redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[3] - 1)
return new
"""
)
# The entries, oldest first. ARGV: how long entries are shown (µs)
SHOW = Script(CLOCK + "return redis.call('ZRANGEBYSCORE', KEYS[1], later(-ARGV[1]), '+inf')")


class SetAside(NamedTuple):
    """`kind` is "mail" or "move"; `name` names the letter, or the user and the content."""

    kind: str
    name: str


class Aside:
    """Notes work that is set aside, and reports it to notify."""

    def __init__(self, redis: Any, notify: Notify):
        self._redis = redis
        self._notify = notify

    async def add(self, kind: str, name: str) -> None:
        """Note that work was set aside; notify hears of it the first time. Raises RedisError."""
        if await ADD(self._redis, [PLACE], f"{kind} {name}", SHOWN, MOST):
            self._notify("error", "aside", kind=kind, name=name, why="this version can't read it: see backlore check")


async def set_aside(redis: Any) -> list[SetAside]:
    """The work that is set aside, the latest last. Raises RedisError."""
    return [SetAside(*each.split(" ", 1)) for each in await SHOW(redis, [PLACE], SHOWN)]
