"""The directory of users: the user of each address, and lists of all users in order.

    email:{x0z}ADDR    string  the id of the user who has the address; for ever, 60 s while it is being claimed
    users:{all}email   sorted set  "ADDR ID" of all users, in the order of these words; `Users.mend` repairs it
    users:{all}created sorted set  "CREATED ADDR ID" of all users, likewise

An address has its own tag, since its entry must be found before its user is known. So the entry and the user are never
written in one step, and an interruption can leave one without the other.

Law: the entry of an address changes only while it leads to the user that the change expects.
"""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

from backlore.clients.redis.script import Script
from backlore.core.keys import TAG, key

BY_EMAIL = key("users", "allemail")
BY_CREATED = key("users", "allcreated")
CLAIM = 60  # seconds that a signup has from claiming the address to creating the account
CHUNK = 500  # entries of the index that a search reads in one command

# KEYS: email. ARGV: the user it leads to, the user it should lead to ("" for none), seconds (0 for ever).
LEAD = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[2])
if ARGV[3] ~= '0' then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
return 1
""")


def tag_of(text: str) -> str:
    """The tag of data that is found by a text from a stranger: the first characters of the text's hash."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()[:TAG]


def email_key(email: str) -> str:
    """The key of an address's entry."""
    return key("email", tag_of(email) + email)


class Directory:
    """Keeps the entries of normalized addresses, and the rows of the two lists."""

    def __init__(self, redis: Any):
        self._redis = redis  # redis-py's types don't know that replies are str here

    async def owner(self, email: str) -> str:
        """The user that an address leads to, or "". Only the user's hash says whether they have the address."""
        return await self._redis.get(email_key(email)) or ""

    async def claim(self, email: str, user: str) -> bool:
        """Claim a free address for a minute: after a crash it becomes free by itself."""
        return bool(await self._redis.set(email_key(email), user, nx=True, ex=CLAIM))

    async def is_settled(self, email: str) -> bool:
        """Whether an address leads to a user for good, and is not just claimed."""
        return bool(await self._redis.ttl(email_key(email)) == -1)

    async def claim_from(self, email: str, owner: str, user: str) -> bool:
        """Claim an address that leads to a user who doesn't have it."""
        return bool(await LEAD(self._redis, [email_key(email)], owner, user, CLAIM))

    async def keep(self, email: str, user: str) -> bool:
        """Make a claim permanent; False if its minute has passed."""
        return bool(await LEAD(self._redis, [email_key(email)], user, user, 0))

    async def free(self, email: str, user: str) -> None:
        """Free an address, if it leads to this user."""
        await LEAD(self._redis, [email_key(email)], user, "", 0)

    async def enlist(self, id: str, email: str, created: int) -> None:
        """Add a user to both lists."""
        async with self._redis.pipeline() as pipe:
            pipe.zadd(BY_EMAIL, {_email_row(id, email): 0}).zadd(BY_CREATED, {_created_row(id, email, created): 0})
            await pipe.execute()

    async def unlist(self, id: str, email: str, created: int) -> None:
        """Remove a user from both lists."""
        async with self._redis.pipeline() as pipe:
            pipe.zrem(BY_EMAIL, _email_row(id, email)).zrem(BY_CREATED, _created_row(id, email, created))
            await pipe.execute()

    async def is_listed(self, id: str, email: str, created: int) -> bool:
        """Whether a user is in the lists."""
        return await self._redis.zscore(BY_CREATED, _created_row(id, email, created)) is not None

    async def count(self) -> int:
        """How many users there are."""
        number: int = await self._redis.zcard(BY_EMAIL)
        return number

    async def rows(self, sort: str, after: str) -> AsyncIterator[str]:
        """The rows of a list behind `after`, read in chunks, so that a long search delays no other command."""
        while True:
            if sort == "email":
                rows = await self._redis.zrangebylex(BY_EMAIL, f"({after}" if after else "-", "+", 0, CHUNK)
            else:
                rows = await self._redis.zrevrangebylex(BY_CREATED, f"({after}" if after else "+", "-", 0, CHUNK)
            for row in rows:
                yield row
            if len(rows) < CHUNK:
                return
            after = rows[-1]

    async def drop(self, sort: str, row: str) -> None:
        """Remove a row whose user is gone, or has another address."""
        await self._redis.zrem(BY_EMAIL if sort == "email" else BY_CREATED, row)


def _email_row(id: str, email: str) -> str:
    return f"{email} {id}"


def _created_row(id: str, email: str, created: int) -> str:
    return f"{created:012} {email} {id}"
