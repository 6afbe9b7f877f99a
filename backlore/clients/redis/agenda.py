"""An agenda: work and when it is due, as a sorted set in redis: member → µs since the epoch, by redis' clock.

A worker claims a member by moving it into the future by `LASTS`, and renews the claim while it works. So work that a
killed process had claimed becomes due again by itself. Law: the moment at which a claim ends identifies its holder,
because no two workers claim a member until the same microsecond.
"""

import contextlib
from collections.abc import AsyncIterator, Collection
from typing import Any

from backlore.clients.redis.lease import LASTS, renewing
from backlore.clients.redis.script import CLOCK, Script

CLAIMED = int(LASTS * 1e6)  # µs

# Set when a member is due. ARGV: delay (µs), member, "XX" or nothing
SET = Script(CLOCK + "return redis.call('ZADD', KEYS[1], unpack({ARGV[3] or 'CH', later(ARGV[1]), ARGV[2]}))")

# The members that are due, and when they became so. ARGV: how many, at most
DUE = Script(CLOCK + "return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[1])")

# Renew the claims of members that are all claimed until the same moment: all or none. Returns the new moment, or 0.
# ARGV: the moment, for how long (µs), members
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
    """The agenda at one key. Methods raise RedisError."""

    def __init__(self, redis: Any, place: str):
        self._redis = redis
        self._place = place

    async def add(self, member: str, delay: float = 0) -> None:
        """Add a member, or move it: it is due in `delay` seconds."""
        await SET(self._redis, [self._place], int(delay * 1e6), member)

    async def move(self, member: str, delay: float) -> None:
        """Like `add`, but only if the member is there."""
        await SET(self._redis, [self._place], int(delay * 1e6), member, "XX")

    async def due(self, limit: int) -> list[tuple[str, str]]:
        """The members that are due now, longest overdue first, each with the moment at which it became due."""
        found = await DUE(self._redis, [self._place], limit)
        return list(zip(found[::2], found[1::2], strict=True))

    @contextlib.asynccontextmanager
    async def holding(self, members: Collection[str], until: str) -> AsyncIterator[None]:
        """Renew the claims of `members`, all claimed `until` the same moment, while the body runs.

        The caller may remove members meanwhile: only those left are renewed. Raises LeaseLost.
        """

        async def renew() -> bool:
            nonlocal until
            if members:
                until = await RENEW(self._redis, [self._place], until, CLAIMED, *members)
            return bool(until)

        async with renewing(renew, LASTS):
            yield
