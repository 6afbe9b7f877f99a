"""Recovery codes: for who has lost the second factor.

    recovery:{k3f}…  set  hashes of the codes that are left; until they are used, or the factors are removed

Laws: a code is 120 random bits, so that its plain hash may be kept (ASVS 5.0, 6.5.2); it is taken by one command, so
that it serves once; it is shown once, when it is made.
"""

import hashlib
import re
from typing import Any

from backlore.core.crypto import random_text
from backlore.core.keys import key

COUNT = 10
BITS = 120


def recovery_key(user: str) -> str:
    """Of the codes that a user has left."""
    return key("recovery", user)


class RecoveryCodes:
    """Makes and takes them."""

    def __init__(self, redis: Any):
        self._redis = redis

    async def make(self, user: str) -> list[str]:
        """New codes, in the place of those that are left: `abcdef-ghijkl-mnopqr-stuvwx`."""
        codes = ["-".join(re.findall("......", random_text(BITS))) for _ in range(COUNT)]
        async with self._redis.pipeline() as pipe:
            pipe.delete(recovery_key(user)).sadd(recovery_key(user), *map(_hash, codes))
            await pipe.execute()
        return codes

    async def begin(self, user: str, is_first: bool) -> list[str]:
        """New codes for a user's first factor, or for who has none left: the means to do without it. Else [].

        Codes beside no factor are left from a removal that was cut: nobody knows who has them.
        """
        return await self.make(user) if is_first or not await self.left(user) else []

    async def left(self, user: str) -> int:
        """How many codes a user has left."""
        count: int = await self._redis.scard(recovery_key(user))
        return count

    async def take(self, user: str, code: str) -> bool:
        """Whether it is one of them; it has served then."""
        return bool(await self._redis.srem(recovery_key(user), _hash(code)))

    async def forget(self, user: str) -> None:
        """Erase them."""
        await self._redis.delete(recovery_key(user))


def _hash(code: str) -> str:
    """Of a code as people type it: with or without dashes and spaces, in any case."""
    return hashlib.blake2b(re.sub(r"[\s-]", "", code).lower().encode(), digest_size=16).hexdigest()
