"""What a user may keep while they are there, and what all users may together.

    usage:{all}  hash  {bytes} of all users, with those that unfinished uploads await; for ever, counted anew every hour

Law: what all have together lies apart from what each has, so that no step sees both. So room is taken there before a
user's step, in the step that compares, and what was not needed is given back behind it: a crash between leaves too much
counted, never too little, until it is counted anew.
"""

import contextlib
from typing import Any, Protocol

from redis.exceptions import RedisError

from backlore.clients.redis.script import Script
from backlore.core.keys import key

OF_ALL = key("usage", "all")
ENTRIES = 100_000  # of a user
ENDLESS = 1 << 53  # bytes; Lua counts no further

# ARGV: bytes wanted, bytes that all may have. Gives what was taken: that, or what is left.
TAKE_ROOM = Script(
    """
local used = tonumber(redis.call('HGET', KEYS[1], 'bytes')) or 0
local taken = math.max(0, math.min(tonumber(ARGV[1]), ARGV[2] - used))
redis.call('HINCRBY', KEYS[1], 'bytes', taken)
return taken
"""
)


class Owners(Protocol):
    """Whose files these are."""

    def key(self, user: str) -> str | None:
        """Of the hash that has an `email` while this owner is there, and the `state` "destroying" from the moment when
        it is erased; None for one of whom nobody knows whether it is there."""

    async def standing(self, user: str) -> str:
        """A word that is another one whenever what lets this owner in has changed; "" for one who may not come in."""


class Allowance:
    """Of a user `quota` bytes, with the trash, and `entries`; of all together `total` bytes, None: no limit."""

    def __init__(
        self,
        redis: Any,
        quota: int,
        entries: int = ENTRIES,
        total: int | None = None,
        owners: Owners | None = None,
    ):
        self.quota = quota
        self.entries = entries
        self._owners = owners
        self._redis = redis
        self._total = total

    def owner(self, user: str) -> str:
        """For steps: the key of the hash of the user who must be there, or that of the files when nobody must."""
        return (self._owners and self._owners.key(user)) or key("files", user)

    async def standing(self, user: str) -> str:
        """As the owners say; of one of whom nobody knows always the same."""
        return await self._owners.standing(user) if self._owners else "0"

    async def take(self, size: int) -> tuple[int, int]:
        """Room for so many bytes, as far as there is some: how many a step may add, and how many of them are counted
        already. Raises RedisError."""
        if self._total is None or size <= 0:
            return ENDLESS, 0
        taken = await TAKE_ROOM(self._redis, [OF_ALL], size, self._total)
        return taken, taken

    async def count(self, size: int) -> None:
        """All together have so many bytes more, or less. What can't be told now is counted anew later."""
        if size:
            with contextlib.suppress(RedisError):
                await self._redis.hincrby(OF_ALL, "bytes", size)

    async def used(self) -> int:
        """Bytes of all together. Raises RedisError."""
        return int(await self._redis.hget(OF_ALL, "bytes") or 0)
