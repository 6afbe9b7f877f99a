"""Sessions: where a user is logged in, and for how long.

    session:{k3f}…     string  "USER CREATED"; ends after `idle` seconds without use
    sessions:{k3f}…    hash    of a user: public id of a session → JSON (session, created, origin, browser)

A session's name begins with the tag of its user, so that both lie in one partition: one round trip reads and renews it.
A worker remembers it for a few seconds, while the user's stamp (core/stamps.py) is the one from before redis was asked.

Laws: a session begins only if its user may log in and has not changed since the factors were shown. Redis compares both
in the step that makes it. A change of the user ends sessions in its own step, or they end by the user's state.
Time is redis' own. A session is renewed when a fiftieth of its time without use has passed, so that most GETs write
nothing. It is also renewed at its first use, so that if a user has too many sessions the unused ones end first.
"""

import contextlib
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, NamedTuple

import msgspec
from redis.exceptions import NoScriptError

from backlore.clients.redis.script import Script
from backlore.core.crypto import random_text
from backlore.core.kept import read_all
from backlore.core.keys import TAG, key
from backlore.core.payload import Payload, length
from backlore.services.identity.users import Account, Step, Users, devices_key, sessions_key, user_key
from backlore.web.cookie import SignedCookie
from backlore.web.reply import Reply, reply
from backlore.web.request import Request, User
from backlore.web.routes import Route
from backlore.web.stages import Keeper, private

MOST = 100  # sessions per user; one more ends the least recently used
DEVICES = 20  # known devices per user: the most recently used
REMEMBERED = 50_000  # sessions per worker
FRESH = 0.02  # share of a session's limits after which a use renews it, and for which a worker remembers it at most
KNOWN_FOR = 90 * 86_400  # seconds that a device is known without use

# One round trip for a session: reads it, checks its limit, reads its user, and renews it if due.
# KEYS: session. ARGV: idle seconds, limit in seconds, tag of the user.
LOAD = """
local found = redis.call('GET', KEYS[1])
if not found then return false end
local id, created = found:sub(1, 16), tonumber(found:sub(18))
local user = redis.call('HMGET', 'user:' .. ARGV[3] .. id:sub(4), 'email', 'admin', 'state')
if not user[1] or user[3] or redis.call('TIME')[1] - created > tonumber(ARGV[2]) then
    redis.call('DEL', KEYS[1])
    return false
end
if redis.call('PTTL', KEYS[1]) < ARGV[1] * 980 then redis.pcall('EXPIRE', KEYS[1], ARGV[1]) end -- fails on a full disk
return {id, user[1], user[2]}
"""

# Begins a session. Returns 0 if the user may not, 1 for the user's first one ever, else 2. The device is known then.
# KEYS: user, session, sessions, devices. ARGV: version of the user, the user, idle seconds, public id, JSON of Known,
# device, most devices, seconds for which devices are known.
BEGIN = Script("""
local user = redis.call('HMGET', KEYS[1], 'email', 'state', 'version')
if not user[1] or user[2] or (user[3] or '0') ~= ARGV[1] then return 0 end
local now, known = redis.call('TIME')[1], cjson.decode(ARGV[5])
known.created = tonumber(now)
redis.call('SET', KEYS[2], ARGV[2] .. ' ' .. now, 'PX', ARGV[3] * 970) -- its first use renews it
redis.call('HSET', KEYS[3], ARGV[4], cjson.encode(known))
redis.call('ZADD', KEYS[4], now, ARGV[6])
redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -1 - ARGV[7])
redis.call('EXPIRE', KEYS[4], ARGV[8])
return 2 - redis.call('HSETNX', KEYS[1], 'first', now)
""")

# Whether a device is known. KEYS: devices. ARGV: device, seconds for which devices are known.
KNOWS = Script("""
local seen = redis.call('ZSCORE', KEYS[1], ARGV[1])
return seen and redis.call('TIME')[1] - seen < tonumber(ARGV[2]) and 1 or 0
""")


def session_key(session: str) -> str:
    """The key of a session."""
    return key("session", session)


def public_id(session: str) -> str:
    """The id of a session for its owner, which gives no access."""
    return hashlib.blake2b(session.encode(), digest_size=9).hexdigest()


class EndSession(Payload):
    """One session by its public id, or all except the current one."""

    id: Annotated[str, length(1, 64)] | None = None
    others: bool = False


class Known(msgspec.Struct):
    """What is stored of a session for its owner to see."""

    session: str
    origin: str
    browser: str
    created: int = 0


class Living(msgspec.Struct):
    """A session that has not ended, as its owner and admins see it."""

    id: str
    created: int
    used: int
    origin: str
    browser: str


class Memory(NamedTuple):
    """A session as a worker remembers it: `until` a time (of time.monotonic), and while the user has this `stamp`."""

    user: User
    until: float
    stamp: bytes


class Sessions:
    """Begins, loads and ends sessions. `device` is the cookie that recognizes a browser.

    A session ends after `idle` seconds without use, and after `limit` seconds in any case. A worker remembers it for
    `memory` seconds at most, 0 for never.
    """

    def __init__(self, redis: Any, users: Users, *, device: SignedCookie, idle: float, limit: float, memory: float):
        self.device = device
        self.keeper: Keeper  # set by the app: it needs `load` first
        self.on_new_place: Callable[[Account, Known], Awaitable[None]] | None = None  # set by the accounts
        self._redis = redis
        self._users = users
        self._idle = int(idle)
        self._limit = int(limit)
        self.remember_for = min(memory, idle * FRESH, limit * FRESH)
        self._memory: dict[str, Memory] = {}
        self._sha = hashlib.sha1(LOAD.encode()).hexdigest()

    def remembered(self, session: str) -> User | None:
        """The user of a session that was loaded a moment ago, if nothing of the user has changed since."""
        entry = self._memory.get(session)
        if entry is None:
            return None
        try:
            if entry.until > time.monotonic() and entry.stamp == self._users.stamps.read(session):
                return entry.user
        except OSError:  # without the stamp redis is asked
            pass
        del self._memory[session]
        return None

    async def load(self, session: str) -> User | None:
        """The user of a session, which is renewed; None if it has ended. One command to redis."""
        until, stamp = time.monotonic() + self.remember_for, self._take_stamp(session)  # before redis is asked
        user = await self._ask(session)
        if user is None:  # perhaps by its limit: no worker should still remember it
            with contextlib.suppress(OSError):
                self._users.stamps.renew(session)
        elif stamp:
            if len(self._memory) >= REMEMBERED:
                self._memory.clear()
            self._memory[session] = Memory(user, until, stamp)
        return user

    def _take_stamp(self, session: str) -> bytes:
        """The user's stamp; empty if nothing may be remembered, as when stamps can't be read or written."""
        with contextlib.suppress(OSError):
            return self._users.stamps.take(session) if self.remember_for else b""
        return b""

    async def _ask(self, session: str) -> User | None:
        # the hot path: the same as `Script`, with one call and one list less
        tag = f"{{{session[:TAG]}}}"
        arguments = (1, session_key(session), self._idle, self._limit, tag)
        try:
            found = await self._redis.execute_command("EVALSHA", self._sha, *arguments)
        except NoScriptError:
            found = await self._redis.execute_command("EVAL", LOAD, *arguments)
        if found is None:
            return None
        id, email, flag = found
        return User(id, email, self._users.is_admin(email, flag == "1"))

    async def of_browser(self, request: Request) -> tuple[str, User] | None:
        """The session of the browser that sent a request, and its user; for routes without a gatekeeper."""
        session = self.keeper.cookie.read(request.headers.get(b"cookie"))
        user = await self.load(session) if isinstance(session, str) else None
        return (str(session), user) if user else None

    async def alter(self, request: Request, account: Account, *steps: Step, alone: bool = False) -> int:
        """`Users.alter` for a request, if its session has not ended meanwhile. With `alone` all other sessions end."""
        device, keep = public_id(self.device_of(request)), request.session if alone else None
        return await self._users.alter(account, *steps, asker=session_key(request.session), device=device, keep=keep)

    def device_of(self, request: Request) -> str:
        """The device in the browser's cookie; "" if nobody has logged in there."""
        device = self.device.read(request.headers.get(b"cookie"))
        return device if isinstance(device, str) else ""

    async def knows(self, user: str, device: str) -> bool:
        """Whether somebody has logged in as this user with this device."""
        return device != "" and bool(await KNOWS(self._redis, [devices_key(user)], public_id(device), KNOWN_FOR))

    async def begin(
        self, account: Account, origin: str, browser: str, device: str, *, is_known: bool = False
    ) -> str | None:
        """Begin a new session for a user; never one that a client has proposed.

        `account` is the user as of the moment when the factors were shown. `is_known`: whether the `device` is known to
        be the user's. Returns None if the user may not log in, or has changed since.
        """
        session = account.id[:TAG] + random_text(130)
        known = Known(session, origin, browser[:200])
        earlier = await self._known(account.id)
        keys = [user_key(account.id), session_key(session), sessions_key(account.id), devices_key(account.id)]
        shown = msgspec.json.encode(known).decode()
        words = (account.version, account.id, self._idle, public_id(session), shown)
        begun = await BEGIN(self._redis, keys, *words, public_id(device), DEVICES, KNOWN_FOR)
        if not begun:
            return None
        if len(earlier) >= MOST:
            await self.end(account.id, *(each for each, _ in (await self.of(account.id))[MOST:]))
        places = {(each.origin, each.browser) for each in earlier.values()}
        if begun == 2 and not is_known and (known.origin, known.browser) not in places and self.on_new_place:
            await self.on_new_place(account, known)
        return session

    async def of(self, user: str) -> list[tuple[str, Living]]:
        """The living sessions by name and as shown, most recently used first. Records of dead ones are deleted."""
        known = await self._known(user)
        async with self._redis.pipeline(transaction=False) as pipe:
            for each in known.values():
                pipe.pttl(session_key(each.session))
            *left, (now, _) = await pipe.time().execute()
        found, dead = [], []
        for (id, each), milliseconds in zip(known.items(), left, strict=True):
            if milliseconds < 0 or now - each.created > self._limit:
                dead.append(id)
            else:
                used = max(int(now - self._idle + milliseconds / 1000), each.created)
                living = Living(id, each.created, used, each.origin, each.browser)
                found.append((milliseconds, each.session, living))
        if dead:
            await self._redis.hdel(sessions_key(user), *dead)
        found.sort(key=lambda each: -each[0])
        return [(session, living) for _, session, living in found]

    async def _known(self, user: str) -> dict[str, Known]:
        return read_all(await self._redis.hgetall(sessions_key(user)), Known)

    async def end(self, user: str, *sessions: str) -> None:
        """End sessions. Idempotent."""
        with self._users.changing(user):
            async with self._redis.pipeline() as pipe:
                for session in sessions:
                    pipe.delete(session_key(session)).hdel(sessions_key(user), public_id(session))
                await pipe.execute()

    async def end_all(self, user: str, keep: str = "") -> None:
        """End all sessions of a user except the one to keep."""
        await self.end(user, *(each.session for each in (await self._known(user)).values() if each.session != keep))

    # Routes

    def routes(self) -> list[Route]:
        """For the route table."""
        return [
            private.get("/auth/csrf", self._csrf),
            private.post("/auth/logout", self._logout),
            private.get("/auth/sessions", self._list),
            private.post("/auth/sessions/end", self._end),
        ]

    async def _csrf(self, request: Request) -> Reply:
        """Am I logged in? 200 {"csrf": str, "user": {"id", "email", "admin"}}; else the gatekeeper's 403."""
        return reply(200, {"csrf": self.keeper.token_of(request.session), "user": request.user})

    async def _logout(self, request: Request) -> Reply:
        """End the session. 200 {}, and the cookie is deleted."""
        await self.end(request.user.id, request.session)
        return reply(200, headers=[self.keeper.cookie.take()])

    async def _list(self, request: Request) -> Reply:
        """The user's sessions, 100 at most: one more ends the one that was unused for longest.

        200 {"sessions": [{id, created, used, origin, browser, current}]}.
        """
        shown = [
            msgspec.structs.asdict(living) | {"current": session == request.session}
            for session, living in await self.of(request.user.id)
        ]
        return reply(200, {"sessions": shown})

    async def _end(self, request: Request, body: EndSession) -> Reply:
        """End one session, or all except this one. 200 {}; 404 `session`."""
        if body.others:
            await self.end_all(request.user.id, keep=request.session)
            return reply(200)
        for session, living in await self.of(request.user.id):
            if living.id == body.id:
                await self.end(request.user.id, session)
                return reply(200)
        return reply(404, error="session")
