"""The users, in our own redis.

    user:{k3f}…     hash        email, password (argon2id, PHC string), created, first (first login; seconds),
                                verified ("1"), admin ("1"), state ("disabled", or "destroying" while its data is
                                erased), totp (secret of the authenticator), version (counts changes); for ever
    devices:{k3f}…  sorted set  hash of a device in a browser's cookie → when somebody last logged in with it (seconds);
                                20 per user, 90 days; until a change of what lets the user in
    destroying      set         users whose erasure has begun; each until it has ended
    erased          sorted set  users who are erased → when the second pass is due (seconds); until it is made

The tag in braces is the first three characters of the user's id, so that one user's data lies in one partition.
Addresses lie elsewhere, in the directory.

Laws: a change compares the user in the same step that makes it. So a decision on a stale state changes nothing, and a
user who was erased meanwhile does not come back in part. Each change increments the user's version. The beginning of a
session, tickets, tokens and changes of factors are bound to the version that was read, so that none outlives a change.
The sessions that a change ends are ended in its step: between two steps they could still sign or request what is valid
after it. A user found by an address has that address: the directory alone proves nothing. After each change, even one
that only may have been made, the user gets a new stamp, so that no worker remembers an older state.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from backlore.clients.redis.script import Script
from backlore.core.addresses import normalize
from backlore.core.crypto import random_text
from backlore.core.keys import key
from backlore.core.notify import Notify
from backlore.core.stamps import Stamps
from backlore.services.identity.directory import CLAIM, Directory

DESTROYING = "destroying"  # covers all partitions, so it is written by itself, like the next one
ERASED = "erased"
AGAIN = 600  # seconds from an erasure to its second pass, for data that requests in flight have written since
ID = re.compile("[a-z2-7]{16}")  # the form of our users' ids; applications may have other owners of files

Step = tuple[str | int, ...]  # a writing command of redis, its key, its further arguments

# KEYS: user. ARGV: field, its old value ("" for none), its new value ("" for none).
CHANGE = Script("""
if redis.call('HEXISTS', KEYS[1], 'email') == 0 then return 0 end
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
redis.call('HINCRBY', KEYS[1], 'version', 1)
return 1
""")

# KEYS: user, devices, sessions, the key that must exist (the session that asks, or the user again), and the key of each
# step. ARGV: the user's version, the device that asks ("" for none), the session to keep ("" for none, "*" for all),
# and for each step its command, the number of its further arguments, and these.
ALTER = Script("""
local user = redis.call('HMGET', KEYS[1], 'email', 'version')
if not user[1] or (user[2] or '0') ~= ARGV[1] or redis.call('EXISTS', KEYS[4]) == 0 then return 0 end
local at = 4
for step = 5, #KEYS do
    local last = at + 1 + ARGV[at + 1]
    redis.call(ARGV[at], KEYS[step], unpack(ARGV, at + 2, last))
    at = last + 1
end
for _, device in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    if device ~= ARGV[2] then redis.call('ZREM', KEYS[2], device) end
end
for _, id in ipairs(ARGV[3] == '*' and {} or redis.call('HKEYS', KEYS[3])) do
    local is_read, known = pcall(cjson.decode, redis.call('HGET', KEYS[3], id))
    local name = is_read and type(known) == 'table' and known.session -- a session that we can't read expires by itself
    if type(name) == 'string' and name ~= ARGV[3] then
        redis.call('DEL', 'session:{' .. name:sub(1, 3) .. '}' .. name:sub(4))
        redis.call('HDEL', KEYS[3], id)
    end
end
return redis.call('HINCRBY', KEYS[1], 'version', 1)
""")


def user_key(user: str) -> str:
    """The key of the user's hash."""
    return key("user", user)


def sessions_key(user: str) -> str:
    """The key of the list of a user's sessions, see `sessions`."""
    return key("sessions", user)


def devices_key(user: str) -> str:
    """The key of the browsers that are known to be the user's."""
    return key("devices", user)


class Account(msgspec.Struct, frozen=True):
    """A user as stored, without the passkeys and links, which have hashes of their own."""

    id: str
    email: str
    password: str  # its hash; "" for a user who signed up by a provider and has none
    created: int
    first: int  # when the user first logged in (seconds), 0 for never
    verified: bool
    flagged: bool  # whether an admin by flag; the configuration makes others
    state: str
    totp: str
    version: int


class PageOfUsers(NamedTuple):
    """Some of the users, in order."""

    users: list[Account]
    after: str  # where the next page begins, "" at the end


class Users:
    """Makes, finds, changes and erases users. `admins` are the addresses of admins by configuration."""

    def __init__(self, redis: Any, notify: Notify, stamps: Stamps, admins: list[str] | None = None):
        self._redis = redis  # redis-py's types don't know that replies are str here
        self._notify = notify
        self.stamps = stamps
        self._admins = {normalize(email) for email in admins or []}
        self._directory = Directory(redis)

    def is_admin(self, email: str, flagged: bool) -> bool:
        """Whether a user is an admin, by flag or by configuration."""
        return flagged or email in self._admins

    async def find(self, email: str) -> Account | None:
        """The user who has an address, in whatever state."""
        email = normalize(email)
        user = await self._directory.owner(email)
        account = await self.read(user) if user else None
        return account if account and account.email == email else None

    async def read(self, user: str) -> Account | None:
        """A user by its id, in whatever state."""
        return _account(user, await self._redis.hgetall(user_key(user)))

    def key(self, user: str) -> str | None:
        """The key of the user's hash, for services that keep data of owners; None if the id can't be a user's."""
        return user_key(user) if ID.fullmatch(user) else None

    async def standing(self, user: str) -> str:
        """A word that changes with each change of the user; "" if the user may not log in."""
        email, state, version = await self._redis.hmget(user_key(user), "email", "state", "version")
        return "" if email is None or state else version or "0"

    async def create(self, email: str, hashed: str, verified: bool) -> str | None:
        """Make a user. Returns the id, or None if the address is taken. `hashed` is "" for users without a password."""
        email, id, now = normalize(email), random_text(80), await self._now()
        if not await self._claim(email, id):
            return None
        fields = {"email": email, "password": hashed, "created": now, "verified": "1" if verified else ""}
        kept = {name: value for name, value in fields.items() if value != ""}
        await self._redis.hset(user_key(id), mapping=kept)
        if not await self._directory.keep(email, id):
            with self.changing(id):
                await self._redis.delete(user_key(id))  # it took more than a minute
            return None
        await self._directory.enlist(id, email, now)
        return id

    async def move(self, account: Account, email: str, asker: str) -> bool:
        """Give a user another address, which is verified. False if it is taken, or where `alter` returns 0."""
        email, me = normalize(email), user_key(account.id)
        if not await self._claim(email, account.id):
            return False
        version = await self.alter(account, ("HSET", me, "email", email, "verified", "1"), asker=asker)
        if not version:
            return False
        if not await self._directory.keep(email, account.id):
            moved = msgspec.structs.replace(account, version=version)
            await self.alter(moved, ("HSET", me, "email", account.email))
            return False
        await self._directory.free(account.email, account.id)
        await self._directory.unlist(account.id, account.email, account.created)
        await self._directory.enlist(account.id, email, account.created)
        return True

    async def _claim(self, email: str, user: str) -> bool:
        """Claim an address for a minute, if nobody has it: an interrupted move or erasure may have left its entry."""
        if await self._directory.claim(email, user):
            return True
        owner = await self._directory.owner(email)
        if not owner or not await self._directory.is_settled(email):
            return False
        account = await self.read(owner)
        if account and account.email == email:
            return False
        return await self._directory.claim_from(email, owner, user)

    async def alter(
        self, account: Account, *steps: Step, asker: str = "", device: str = "", keep: str | None = None
    ) -> int:
        """Change what lets a user in, in one step. Returns the new version, or 0 if nothing was changed.

        Nothing changes unless the user still has the version of `account`, and `asker`, the key of the session that
        asks, exists. All known browsers except the `device` that asks become unknown. All sessions end except the one
        to `keep`, "" for none; with None no session ends.
        """
        me, words = user_key(account.id), list[str | int]()
        for command, _, *behind in steps:
            words += [command, len(behind), *behind]
        keys = [me, devices_key(account.id), sessions_key(account.id), asker or me, *(str(step[1]) for step in steps)]
        going_on = "*" if keep is None else keep
        with self.changing(account.id):
            return int(await ALTER(self._redis, keys, account.version, device, going_on, *words))

    async def change(self, user: str, field: str, old: str, new: str) -> bool:
        """Replace one field; "" stands for no value. False if it is no longer `old`, or the user doesn't exist."""
        with self.changing(user):
            return bool(await CHANGE(self._redis, [user_key(user)], field, old, new))

    @contextlib.contextmanager
    def changing(self, user: str) -> Iterator[None]:
        """A context for everything that changes a user or ends a session: it renews the user's stamp afterwards."""
        try:
            yield
        finally:
            self.stamps.renew(user)

    # Erasure

    async def mark_destroying(self, account: Account, asker: str = "") -> bool:
        """Mark a user: logins are refused, and the erasure will be finished even if interrupted. As `alter`."""
        await self._redis.sadd(DESTROYING, account.id)  # first: nobody would erase a marked user outside of this set
        return bool(await self.alter(account, ("HSET", user_key(account.id), "state", "destroying"), asker=asker))

    async def cut_erasures(self) -> list[str]:
        """The users whose erasure has begun."""
        found: list[str] = []
        for user in await self._redis.smembers(DESTROYING):
            with self._telling(user):
                account = await self.read(user)
                found += [user] if account is None or account.state == "destroying" else []
        return found

    async def erased(self) -> list[str]:
        """The users who were erased a while ago, and for whom the second pass is due."""
        users: list[str] = await self._redis.zrangebyscore(ERASED, 0, await self._now())
        return users

    async def is_gone(self, id: str) -> bool:
        """Whether an id has the form of a user's, and there is no such user, not even one whose erasure goes on."""
        if not ID.fullmatch(id) or await self._redis.exists(user_key(id)):
            return False
        return not await self._redis.sismember(DESTROYING, id)

    async def forget(self, user: str, keys: Sequence[str]) -> None:
        """Erase a user, the address, and the further `keys` in the user's partition; all else was erased before."""
        account = await self.read(user)
        if account:
            await self._directory.free(account.email, user)
            await self._directory.unlist(user, account.email, account.created)
            await self._redis.zadd(ERASED, {user: await self._now() + AGAIN})
        else:
            await self._redis.zrem(ERASED, user)
        with self.changing(user):
            await self._redis.delete(user_key(user), devices_key(user), *keys)
        await self._redis.srem(DESTROYING, user)

    # All of them

    async def count(self) -> int:
        """How many users there are."""
        return await self._directory.count()

    async def list(self, sort: str, search: str, after: str, limit: int) -> PageOfUsers:
        """A page of users in the order `sort`, "email" or "created" (newest first), behind `after`.

        `search` is a part of the address. Rows whose user is gone are dropped on the way.
        """
        rows: list[str] = []
        async for row in self._directory.rows(sort, after):
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
            with self._telling(id):
                account = _account(id, fields)
                if account is None or account.email != email:
                    await self._directory.drop(sort, row)
                else:
                    users.append(account)
        return PageOfUsers(users, rows[limit - 1] if len(rows) > limit else "")

    async def mend(self) -> None:
        """The periodic task: sees that every user can be found by their address, and is in the lists of all users.

        A signup that was interrupted between its steps leaves a user without these entries: they are written again. If
        the address leads to another user who has it, notify is told.
        """
        now = await self._now()
        async for name in self._redis.scan_iter("user:*", count=500):
            id = name.replace("user:{", "").replace("}", "")
            with self._telling(id):
                account = await self.read(id)
                if not account or account.state == "destroying" or now - account.created < 2 * CLAIM:
                    continue
                listed = (id, account.email, account.created)
                if await self._is_led_to(account) and not await self._directory.is_listed(*listed):
                    await self._directory.enlist(*listed)

    async def _is_led_to(self, account: Account) -> bool:
        """Whether the user's address leads to the user, now or after a repair."""
        owner = await self._directory.owner(account.email)
        if owner == account.id:
            return True
        if not await self._claim(account.email, account.id):
            self._notify("error", "identity.conflict", user=account.id, owner=owner)
            return False
        again = await self.read(account.id)
        if again is None or again.email != account.email or again.state == "destroying":
            return False  # the claim ends by itself
        self._notify("warning", "identity.mended", user=account.id)
        return await self._directory.keep(account.email, account.id)

    @contextlib.contextmanager
    def _telling(self, user: str) -> Iterator[None]:
        """Notify of a user that another version wrote and this one can't read. Others are not affected."""
        try:
            yield
        except ValueError as error:
            self._notify("error", "identity.unread", user=user, error=error)

    async def _now(self) -> int:
        """Seconds by redis' clock: the clocks of the nodes differ."""
        return int((await self._redis.time())[0])


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
