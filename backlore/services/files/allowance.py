"""How many bytes and entries each existing user may keep, and how many bytes all users together.

    usage:{all}  hash  {bytes} of all users, with those that unfinished uploads await; for ever, recounted every hour

Law: the sum of all users lies in another partition than the sum of each, so no step sees both. Room is therefore
reserved in the common sum first, in one step that also compares. Then the user's step runs, and what it did not need is
given back. A crash between the two leaves too much counted, never too little, until the next recount.
"""

import contextlib
from typing import Any, Protocol

from redis.exceptions import RedisError

from backlore.clients.redis.script import Script
from backlore.core.keys import key

OF_ALL = key("usage", "all")
ENTRIES = 100_000  # per user
ENDLESS = 1 << 53  # bytes: the largest number that Lua counts exactly

# ARGV: bytes wanted, bytes that all users may have. Returns the bytes taken: those wanted, or what is left.
TAKE_ROOM = Script(
    """
local used = tonumber(redis.call('HGET', KEYS[1], 'bytes')) or 0
local taken = math.max(0, math.min(tonumber(ARGV[1]), ARGV[2] - used))
redis.call('HINCRBY', KEYS[1], 'bytes', taken)
return taken
"""
)


class Owners(Protocol):
    """The owners of files, as the file service needs to know them."""

    def key(self, user: str) -> str | None:
        """The key of the owner's hash. It has an `email` while the owner exists, and the `state` "destroying" from the
        start of an erasure. None for an owner whose existence nobody records."""

    async def standing(self, user: str) -> str:
        """A word that changes with every change of what lets this owner in; "" for an owner who may not log in."""


class Allowance:
    """Limits: per user `quota` bytes, trash included, and `entries`; for all users `total` bytes, None for no limit."""

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
        """For steps: the key of the hash of the user who must exist; that of the files where no user has to."""
        return (self._owners and self._owners.key(user)) or key("files", user)

    async def standing(self, user: str) -> str:
        """The same as `Owners.standing`; constant where there are no owners."""
        return await self._owners.standing(user) if self._owners else "0"

    async def take(self, size: int) -> tuple[int, int]:
        """Reserve room for `size` bytes, or for what is left. Returns how many bytes a step may add, and how many of
        them are counted already. Raises RedisError."""
        if self._total is None or size <= 0:
            return ENDLESS, 0
        taken = await TAKE_ROOM(self._redis, [OF_ALL], size, self._total)
        return taken, taken

    async def count(self, size: int) -> None:
        """Add `size` bytes, perhaps negative, to the sum of all users. If redis fails, the next recount mends it."""
        if size:
            with contextlib.suppress(RedisError):
                await self._redis.hincrby(OF_ALL, "bytes", size)

    async def used(self) -> int:
        """The bytes of all users together. Raises RedisError."""
        return int(await self._redis.hget(OF_ALL, "bytes") or 0)
