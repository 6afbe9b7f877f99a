"""An agenda: what is due when, a sorted set in redis: member → µs since the epoch, by redis' clock.

Whoever claims a member moves it on by `LASTS`, and renews that while it works; so what a killed process had claimed is
due again by itself. Law: the moment until which a member is claimed shows who has claimed it, for nobody else has
claimed it until the same microsecond.
"""

import contextlib
from collections.abc import AsyncIterator, Collection
from typing import Any

from backlore.clients.redis.lease import LASTS, renewing
from backlore.clients.redis.script import CLOCK, Script

CLAIMED = int(LASTS * 1e6)  # µs

# ARGV: delay (µs), member, "XX" or nothing
SET = Script(CLOCK + "return redis.call('ZADD', KEYS[1], unpack({ARGV[3] or 'CH', later(ARGV[1]), ARGV[2]}))")

# ARGV: how many
DUE = Script(CLOCK + "return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[1])")

# Members that are claimed until a moment are so for longer, all of them or none: until when, or 0.
# ARGV: that moment, for how long (µs), members
RENEW = Script(
    CLOCK
    + """
for place = 3, #ARGV do
    if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[place]) or 0) ~= tonumber(ARGV[1]) then return 0 end
end
for place = 3, #ARGV do redis.call('ZADD', KEYS[1], later(ARGV[2]), ARGV[place]) end
return later(ARGV[2])
"""
)


class Agenda:
    """What is due by one key."""

    def __init__(self, redis: Any, place: str):
        self._redis = redis
        self._place = place

    async def add(self, member: str, delay: float = 0) -> None:
        """It is due in `delay` seconds. Raises RedisError, as the others do."""
        await SET(self._redis, [self._place], int(delay * 1e6), member)

    async def move(self, member: str, delay: float) -> None:
        """The same, if it is there."""
        await SET(self._redis, [self._place], int(delay * 1e6), member, "XX")

    async def due(self, limit: int) -> list[tuple[str, str]]:
        """What is due now, first what has been for longest, each with its moment."""
        found = await DUE(self._redis, [self._place], limit)
        return list(zip(found[::2], found[1::2], strict=True))

    @contextlib.asynccontextmanager
    async def holding(self, members: Collection[str], until: str) -> AsyncIterator[None]:
        """Keep what was claimed `until` a moment, as far as it is left in `members`. Raises LeaseLost."""

        async def renew() -> bool:
            nonlocal until
            if members:
                until = await RENEW(self._redis, [self._place], until, CLAIMED, *members)
            return bool(until)

        async with renewing(renew, LASTS):
            yield
