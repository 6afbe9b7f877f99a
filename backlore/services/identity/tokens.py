"""Tokens: what somebody shows once to go on with something, and what it opens.

    verify:{r4n}…     string  an address to verify; an hour
    reset:{k3f}…      string  whose password may be replaced; ten minutes
    ticket:{k3f}…     string  who has shown a password and not yet a second factor; ten minutes
    challenge:{r4n}…  string  what a passkey is asked to sign; five minutes
    openid:{r4n}…     string  a sign-in under way at a provider; ten minutes

Laws: a token is 130 random bits; only its hash is kept, as JSON of what it opens; it is taken by one command, so that
it serves once, also when it is shown twice at once. In an address it stands behind the #, which no browser sends.
"""

import hashlib
from typing import Any, TypeVar

import msgspec

from backlore.core.crypto import random_text
from backlore.core.kept import read
from backlore.core.keys import TAG, key

T = TypeVar("T")


def token_key(kind: str, token: str) -> str:
    """Of what a token opens; of the token itself only a hash is kept."""
    return key(kind, token[:TAG] + hashlib.blake2b(token.encode(), digest_size=16).hexdigest())


class Tokens:
    """Makes and takes tokens."""

    def __init__(self, redis: Any):
        self._redis = redis

    async def make(self, kind: str, opens: msgspec.Struct, seconds: int, user: str = "") -> str:
        """A token that opens this for so long; it lies with the data of `user`, if it is about one."""
        token = user[:TAG] + random_text(130)
        await self._redis.set(token_key(kind, token), msgspec.json.encode(opens), ex=seconds)
        return token

    async def look(self, kind: str, token: str, opens: type[T]) -> T | None:
        """What a token opens; None when it has served or run out."""
        return read(await self._redis.get(token_key(kind, token)), opens)

    async def take(self, kind: str, token: str, opens: type[T]) -> T | None:
        """The same, and the token has served."""
        return read(await self._redis.getdel(token_key(kind, token)), opens)
