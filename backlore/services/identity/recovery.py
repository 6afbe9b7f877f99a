"""Recovery codes: for users who have lost the second factor.

    recovery:{k3f}…  set  hashes of the codes that are left; until they are used, or the factors are removed

Laws: a code is 120 random bits, so a plain hash of it may be stored (ASVS 5.0, 6.5.2). It is taken by one command, so
that it can be used only once. It is shown once, when it is made. Codes change in the step that changes the factors.
"""

import hashlib
import re
from typing import Any

from backlore.core.crypto import random_text
from backlore.core.keys import key
from backlore.services.identity.users import Step

COUNT = 10
BITS = 120


def recovery_key(user: str) -> str:
    """The key of the codes that a user has left."""
    return key("recovery", user)


class RecoveryCodes:
    """Makes and takes recovery codes."""

    def __init__(self, redis: Any):
        self._redis = redis

    def make(self, user: str) -> tuple[list[str], list[Step]]:
        """New codes, like `abcdef-ghijkl-mnopqr-stuvwx`, and the steps that replace those that are left."""
        codes = ["-".join(re.findall("......", random_text(BITS))) for _ in range(COUNT)]
        return codes, [*self.drop(user), ("SADD", recovery_key(user), *map(_hash, codes))]

    async def begin(self, user: str, is_first: bool) -> tuple[list[str], list[Step]]:
        """As `make`, if this is the user's first factor or no codes are left; else no codes and no steps."""
        return self.make(user) if is_first or not await self.left(user) else ([], [])

    def drop(self, user: str) -> list[Step]:
        """The step that erases a user's codes."""
        return [("DEL", recovery_key(user))]

    async def left(self, user: str) -> int:
        """How many codes a user has left."""
        count: int = await self._redis.scard(recovery_key(user))
        return count

    async def take(self, user: str, code: str) -> bool:
        """Whether the code is one of the user's. It is used up then."""
        return bool(await self._redis.srem(recovery_key(user), _hash(code)))


def _hash(code: str) -> str:
    """The hash of a code as people type it: with or without dashes and spaces, in any case."""
    return hashlib.blake2b(re.sub(r"[\s-]", "", code).lower().encode(), digest_size=16).hexdigest()
