"""The users, in our own redis.

    user:{k3f}…        hash    email, password (argon2id, PHC string), created, first (first login; seconds),
                               verified ("1"), admin ("1"), state ("disabled", or "destroying" while its data is
                               erased), totp (secret of the authenticator), version (counts changes); for ever
    email:{x0z}ADDR    string  the id of the user who has the address; for ever, 60 s while it is being taken
    users:{all}email   sorted set  "ADDR ID" of all users, in the order of these words; `mend` keeps it true
    users:{all}created sorted set  "CREATED ADDR ID" of all users, likewise
    destroying         set     users whose erasure has begun; each until it has ended

The tag in braces is the first three characters of the user's id, so that one user's data lies together. An address
has a tag of its own: its place must be known before its user is.

Law: what is changed of a user is compared first, in one step: who decided on an older state changes nothing, and a
user who was erased meanwhile does not come back as half of one. Each change counts the user's version up: a session
is begun, and a ticket or a token holds, for the version that was looked at, so that none outlives a change.
"""

import hashlib
import re
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import msgspec

from backlore.clients.script import Script
from backlore.core.addresses import normalize
from backlore.core.crypto import random_text
from backlore.core.keys import TAG, key
from backlore.core.notify import Notify

BY_EMAIL = key("users", "allemail")
BY_CREATED = key("users", "allcreated")
DESTROYING = "destroying"  # set of the users whose erasure has begun; it spans partitions, so it is written alone
ID = re.compile("[a-z2-7]{16}")  # of our users; applications may have other owners of files and the like
CLAIM = 60  # seconds that a signup has, from claiming the address to the account's being there
CHUNK = 500  # entries of the index that a search reads in one command

# KEYS: user. ARGV: field, what it has ("" for none), what it gets ("" for none).
CHANGE = Script("""
if redis.call('HEXISTS', KEYS[1], 'email') == 0 then return 0 end
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
redis.call('HINCRBY', KEYS[1], 'version', 1)
return 1
""")


def user_key(user: str) -> str:
    """Of the user's hash."""
    return key("user", user)


def tag_of(text: str) -> str:
    """The partition of what is found by a text of a stranger's: the first characters of its hash."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()[:TAG]


def email_key(email: str) -> str:
    """Of the index from an address to its user."""
    return key("email", tag_of(email) + email)


class Account(msgspec.Struct, frozen=True):
    """What is kept of a user, but for what the passkeys' own hash has."""

    id: str
    email: str
    password: str  # its hash; "" for who came in by a provider and has none
    created: int
    first: int  # when the user first logged in, 0 for never
    verified: bool
    flagged: bool  # an admin by flag, not by configuration
    state: str
    totp: str
    version: int


class Page(NamedTuple):
    """Some of the users, in order."""

    users: list[Account]
    after: str  # where the next page begins, "" at the end


class Users:
    """Makes, finds, changes and forgets users. `admins` are the addresses of those by configuration."""

    def __init__(self, redis: Any, notify: Notify, admins: list[str] | None = None):
        self._redis = redis  # redis-py's types don't know that replies are str here
        self._notify = notify
        self._admins = {normalize(email) for email in admins or []}

    def is_admin(self, email: str, flagged: bool) -> bool:
        """Whether a user is an admin, by flag or by configuration."""
        return flagged or email in self._admins

    async def find(self, email: str) -> Account | None:
        """The user who has an address, in whatever state."""
        user: str | None = await self._redis.get(email_key(normalize(email)))
        return await self.read(user) if user else None

    async def read(self, user: str) -> Account | None:
        """A user by its id, in whatever state."""
        return _account(user, await self._redis.hgetall(user_key(user)))

    def key(self, user: str) -> str | None:
        """Of the user's hash, for whoever keeps something of owners; None for an id that is of no user's form."""
        return user_key(user) if ID.fullmatch(user) else None

    async def standing(self, user: str) -> str:
        """A word that is another one after each change of the user; "" for one who may not log in."""
        email, state, version = await self._redis.hmget(user_key(user), "email", "state", "version")
        return "" if email is None or state else version or "0"

    async def create(self, email: str, hashed: str, verified: bool) -> str | None:
        """Make a user; its id, or None when the address is taken. `hashed` is "" for who has no password.

        The address is claimed first, for a minute: what is cut by a crash frees it by itself.
        """
        email, id, now = normalize(email), random_text(80), int(time.time())
        if not await self._redis.set(email_key(email), id, nx=True, ex=CLAIM):
            return None
        fields = {"email": email, "password": hashed, "created": now, "verified": "1" if verified else ""}
        kept = {name: value for name, value in fields.items() if value != ""}
        await self._redis.hset(user_key(id), mapping=kept)
        await self._redis.set(email_key(email), id)
        account = await self.read(id)
        if account is None:
            return None
        await self._enlist(account)
        return id

    async def move(self, user: str, email: str) -> str | None:
        """Give a user another address, which is verified; the old one, or None when the new one is taken."""
        email = normalize(email)
        account = await self.read(user)
        if account is None or not await self._redis.set(email_key(email), user, nx=True, ex=CLAIM):
            return None
        if not await self.change(user, "email", account.email, email):
            return None
        await self._redis.set(email_key(email), user)
        await self._redis.delete(email_key(account.email))
        await self._unlist(account)
        await self._enlist(msgspec.structs.replace(account, email=email))
        await self.change(user, "verified", "", "1")
        return account.email

    async def change(self, user: str, field: str, old: str, new: str) -> bool:
        """Replace one field, "" being none; False when it is not `old` any more, or the user not there."""
        return bool(await CHANGE(self._redis, [user_key(user)], field, old, new))

    async def mark_destroying(self, user: str) -> None:
        """From now on nobody logs in as this user, and its erasure will be finished, whatever is cut."""
        await self._redis.sadd(DESTROYING, user)
        for state in ("", "disabled"):
            await self.change(user, "state", state, "destroying")

    async def destroying(self) -> set[str]:
        """The users whose erasure has begun."""
        users: set[str] = await self._redis.smembers(DESTROYING)
        return users

    async def is_gone(self, id: str) -> bool:
        """Whether an id is a user's, by its form, and there is no such user, also none whose erasure goes on."""
        if not ID.fullmatch(id) or await self._redis.exists(user_key(id)):
            return False
        return not await self._redis.sismember(DESTROYING, id)

    async def forget(self, user: str) -> None:
        """Erase a user and its address; what else is kept of it is erased before."""
        account = await self.read(user)
        if account:
            if await self._redis.get(email_key(account.email)) == user:
                await self._redis.delete(email_key(account.email))
            await self._unlist(account)
        await self._redis.delete(user_key(user))
        await self._redis.srem(DESTROYING, user)

    # All of them

    async def count(self) -> int:
        """How many there are."""
        number: int = await self._redis.zcard(BY_EMAIL)
        return number

    async def list(self, sort: str, search: str, after: str, limit: int) -> Page:
        """A page of users in the order `sort`, "email" or "created" (newest first), behind `after`.

        `search` is a part of the address. An entry of the index whose user has gone is dropped on the way.
        """
        rows: list[str] = []
        async for row in self._rows(sort, after):
            if search in row.split(" ")[-2]:
                rows.append(row)
            if len(rows) > limit:
                break
        async with self._redis.pipeline(transaction=False) as pipe:
            for row in rows[:limit]:
                pipe.hgetall(user_key(row.rpartition(" ")[2]))
            hashes = await pipe.execute()
        users = []
        for row, fields in zip(rows, hashes, strict=False):
            *_, email, id = row.split(" ")
            account = _account(id, fields)
            if account is None or account.email != email:
                await self._redis.zrem(BY_EMAIL if sort == "email" else BY_CREATED, row)
            else:
                users.append(account)
        return Page(users, rows[limit - 1] if len(rows) > limit else "")

    async def _rows(self, sort: str, after: str) -> AsyncIterator[str]:
        """The entries of an index behind `after`, chunk by chunk, so that a long search delays nobody."""
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

    async def _enlist(self, account: Account) -> None:
        async with self._redis.pipeline() as pipe:
            pipe.zadd(BY_EMAIL, {_email_row(account): 0}).zadd(BY_CREATED, {_created_row(account): 0})
            await pipe.execute()

    async def _unlist(self, account: Account) -> None:
        async with self._redis.pipeline() as pipe:
            pipe.zrem(BY_EMAIL, _email_row(account)).zrem(BY_CREATED, _created_row(account))
            await pipe.execute()

    async def mend(self) -> None:
        """The consistency check: every user is found by its address, and in the index of all.

        A signup cut between its steps leaves a user without its index: it is written again. An address that leads
        to another user is reported.
        """
        async for name in self._redis.scan_iter("user:*", count=500):
            id = name.replace("user:{", "").replace("}", "")
            account = await self.read(id)
            if not account or account.state == "destroying" or time.time() - account.created < 2 * CLAIM:
                continue
            if await self._redis.set(email_key(account.email), id, nx=True):
                self._notify("warning", "identity.mended", user=id)
            elif (owner := await self._redis.get(email_key(account.email))) != id:
                self._notify("error", "identity.conflict", user=id, owner=owner)
                continue
            if await self._redis.zscore(BY_CREATED, _created_row(account)) is None:
                await self._enlist(account)


def _email_row(account: Account) -> str:
    return f"{account.email} {account.id}"


def _created_row(account: Account) -> str:
    return f"{account.created:012} {account.email} {account.id}"


def _account(user: str, fields: dict[str, str]) -> Account | None:
    if "email" not in fields:
        return None
    return Account(
        id=user,
        email=fields["email"],
        password=fields.get("password", ""),
        created=int(fields.get("created", 0)),
        first=int(fields.get("first", 0)),
        verified="verified" in fields,
        flagged="admin" in fields,
        state=fields.get("state", ""),
        totp=fields.get("totp", ""),
        version=int(fields.get("version", 0)),
    )
