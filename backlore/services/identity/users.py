"""The users, in our own redis.

    user:{k3f}…     hash        email, password (argon2id, PHC string), created, first (first login; seconds),
                                verified ("1"), admin ("1"), state ("disabled", or "destroying" while its data is
                                erased), totp (secret of the authenticator), version (counts changes); for ever
    devices:{k3f}…  sorted set  hash of what a browser's cookie holds → when somebody last logged in with it (seconds);
                                20 of a user, 90 days; until a change of what lets the user in
    destroying      set         users whose erasure has begun; each until it has ended
    erased          sorted set  users who are erased → when it is done once more (seconds); until then

The tag in braces is the first three characters of the user's id, so that one user's data lies together. Addresses lie
elsewhere, in the directory.

Laws: what is changed of a user is compared first, in one step: who decided on an older state changes nothing, and a
user who was erased meanwhile does not come back as half of one. Each change counts the user's version up: a session
is begun, a ticket or a token holds, and a factor is added or taken off for the version that was looked at, so that
none outlives a change. The sessions that a change ends are ended by its step: between the two they would sign and ask
for what holds afterwards. Who is found by an address has it: the directory alone says nothing. After each change, also
one that may have been made, the user's stamp is a new one, so that no worker remembers what was before.
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

DESTROYING = "destroying"  # spans partitions, so it is written alone; as the next one
ERASED = "erased"
AGAIN = 600  # seconds after an erasure: what a request that was under way has written since goes, too
ID = re.compile("[a-z2-7]{16}")  # of our users; applications may have other owners of files and the like

Step = tuple[str | int, ...]  # a command of redis that writes, its key, the words behind it

# KEYS: user. ARGV: field, what it has ("" for none), what it gets ("" for none).
CHANGE = Script("""
if redis.call('HEXISTS', KEYS[1], 'email') == 0 then return 0 end
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
redis.call('HINCRBY', KEYS[1], 'version', 1)
return 1
""")

# KEYS: user, devices, sessions, what has to be there (the session that asks, or the user again), and the key of each
# step. ARGV: the user's version, the device that asks ("" for none), the session that goes on ("" for none, "*" for
# all), and of each step its command, the number of words behind the key, and these.
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
    local name = is_read and type(known) == 'table' and known.session -- what we can't read ends by itself
    if type(name) == 'string' and name ~= ARGV[3] then
        redis.call('DEL', 'session:{' .. name:sub(1, 3) .. '}' .. name:sub(4))
        redis.call('HDEL', KEYS[3], id)
    end
end
return redis.call('HINCRBY', KEYS[1], 'version', 1)
""")


def user_key(user: str) -> str:
    """Of the user's hash."""
    return key("user", user)


def sessions_key(user: str) -> str:
    """Of the list of a user's sessions, see there."""
    return key("sessions", user)


def devices_key(user: str) -> str:
    """Of the browsers that are known to be the user's."""
    return key("devices", user)


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


class PageOfUsers(NamedTuple):
    """Some of the users, in order."""

    users: list[Account]
    after: str  # where the next page begins, "" at the end


class Users:
    """Makes, finds, changes and forgets users. `admins` are the addresses of those by configuration."""

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
        """Of the user's hash, for whoever keeps something of owners; None for an id that is of no user's form."""
        return user_key(user) if ID.fullmatch(user) else None

    async def standing(self, user: str) -> str:
        """A word that is another one after each change of the user; "" for one who may not log in."""
        email, state, version = await self._redis.hmget(user_key(user), "email", "state", "version")
        return "" if email is None or state else version or "0"

    async def create(self, email: str, hashed: str, verified: bool) -> str | None:
        """Make a user; its id, or None when the address is taken. `hashed` is "" for who has no password."""
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
        """Give a user another address, which is verified; False when it is taken, or as `alter`."""
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
        """Take an address for a minute, if nobody has it: a move or an erasure that was cut may have left a place."""
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
        """Change what lets a user in, all of it in one step; the new version, or 0 when nothing was changed.

        It is only while the user is still the one that was looked at, and `asker`, the key of the session that asks
        for it, is there. The browsers that were known are strangers again, but for the `device` that asks. All sessions
        end but the one to `keep`, "" for none; None: none ends.
        """
        me, words = user_key(account.id), list[str | int]()
        for command, _, *behind in steps:
            words += [command, len(behind), *behind]
        keys = [me, devices_key(account.id), sessions_key(account.id), asker or me, *(str(step[1]) for step in steps)]
        going_on = "*" if keep is None else keep
        with self.changing(account.id):
            return int(await ALTER(self._redis, keys, account.version, device, going_on, *words))

    async def change(self, user: str, field: str, old: str, new: str) -> bool:
        """Replace one field, "" being none; False when it is not `old` any more, or the user not there."""
        with self.changing(user):
            return bool(await CHANGE(self._redis, [user_key(user)], field, old, new))

    @contextlib.contextmanager
    def changing(self, user: str) -> Iterator[None]:
        """Around whatever ends a session of a user, or changes the user."""
        try:
            yield
        finally:
            self.stamps.renew(user)

    # Erasure

    async def mark_destroying(self, account: Account, asker: str = "") -> bool:
        """From now on nobody logs in as this user, and its erasure will be finished, whatever is cut. As `alter`."""
        await self._redis.sadd(DESTROYING, account.id)  # first: who is marked and not in there, nobody would erase
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
        """The users who were erased a while ago, and whose data is to be erased once more."""
        users: list[str] = await self._redis.zrangebyscore(ERASED, 0, await self._now())
        return users

    async def is_gone(self, id: str) -> bool:
        """Whether an id is a user's, by its form, and there is no such user, also none whose erasure goes on."""
        if not ID.fullmatch(id) or await self._redis.exists(user_key(id)):
            return False
        return not await self._redis.sismember(DESTROYING, id)

    async def forget(self, user: str, keys: Sequence[str]) -> None:
        """Erase a user, its address and what lies at `keys` beside it; all else was erased before."""
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
        """How many there are."""
        return await self._directory.count()

    async def list(self, sort: str, search: str, after: str, limit: int) -> PageOfUsers:
        """A page of users in the order `sort`, "email" or "created" (newest first), behind `after`.

        `search` is a part of the address. An entry of the index whose user has gone is dropped on the way.
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
        """The consistency check: every user is found by its address, and in the index of all.

        A signup cut between its steps leaves a user without its index: it is written again. An address that leads
        to another user who has it is reported.
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
        """Whether the user's address leads there, now or again."""
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
        """A user whom another version has written so that we can't read it is told, and holds up no other."""
        try:
            yield
        except ValueError as error:
            self._notify("error", "identity.unread", user=user, error=error)

    async def _now(self) -> int:
        """Seconds by redis' clock: those of the nodes differ."""
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
