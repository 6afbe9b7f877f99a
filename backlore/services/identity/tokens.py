"""Tokens: a client shows one once, to continue something that was begun.

    verify:{r4n}…     string  an address to verify; an hour
    reset:{k3f}…      string  the user whose password may be replaced; ten minutes
    ticket:{k3f}…     string  a user who has shown a password and not yet a second factor; ten minutes
    challenge:{r4n}…  string  the purpose of a challenge that a passkey signs; five minutes
    openid:{r4n}…     string  a sign-in in flight at a provider; ten minutes

Laws: a token is 130 random bits. Only its hash is stored, as the key of the JSON of what it opens. It is taken by one
command, so that it can be used only once, even if it is shown twice concurrently. In a URL it stands behind the #,
which browsers don't send.
"""

import hashlib
from typing import Any, TypeVar

import msgspec

from backlore.core.crypto import random_text
from backlore.core.kept import read
from backlore.core.keys import TAG, key

T = TypeVar("T")


def token_key(kind: str, token: str) -> str:
    """The key of what a token opens, made of the token's hash."""
    return key(kind, token[:TAG] + hashlib.blake2b(token.encode(), digest_size=16).hexdigest())


class Tokens:
    """Makes and takes tokens."""

    def __init__(self, redis: Any):
        self._redis = redis

    async def make(self, kind: str, opens: msgspec.Struct, seconds: int, user: str = "") -> str:
        """A token that opens `opens` for `seconds`. A token about a `user` lies in the user's partition."""
        token = user[:TAG] + random_text(130)
        await self._redis.set(token_key(kind, token), msgspec.json.encode(opens), ex=seconds)
        return token

    async def look(self, kind: str, token: str, opens: type[T]) -> T | None:
        """What a token opens; None if it is used up or has expired."""
        return read(await self._redis.get(token_key(kind, token)), opens)

    async def take(self, kind: str, token: str, opens: type[T]) -> T | None:
        """The same as `look`; the token is used up then."""
        return read(await self._redis.getdel(token_key(kind, token)), opens)
