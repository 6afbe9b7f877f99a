"""Identity: users and sessions in our own redis.

    user:{k3f}…        hash    email, password (argon2id, PHC string), created (seconds), admin ("1"),
                               state ("destroying" while its data is erased); for ever
    email:{x0z}ADDR    string  the id of the user who has the address; for ever, 60 s while it is being taken
    pending:{x0z}ADDR  string  password hash of the last signup that waits for its verification; an hour
    session:{k3f}…     string  "USER CREATED"; ends after `idle` seconds without use
    sessions:{k3f}…    hash    of a user: public id of a session -> JSON (session, created, origin, browser)
    destroying         set     users whose erasure has begun; each until it has ended

The tag in braces is the first three characters of the user's id, and a session begins with it, so that one user's
data lies together. An address has a tag of its own: its place must be known before its user is.
"""

import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from redis.exceptions import NoScriptError

from backlore.core.addresses import normalize
from backlore.core.crypto import Passwords, random_text
from backlore.core.keys import TAG, key
from backlore.core.notify import Notify
from backlore.core.payload import Payload, length
from backlore.web.reply import Reply, reply
from backlore.web.request import Request, User
from backlore.web.routes import Route
from backlore.web.stages import Keeper, auth, private

DESTROYING = "destroying"  # set of the users whose erasure has begun; it spans partitions, so it is written alone
CLAIM = 60  # seconds that a signup has, from claiming the address to the account's being there

# One round trip for a session: read and renew it, check its limit, read its user.
# KEYS: session. ARGV: idle seconds, now, limit in seconds, tag of the user.
LOAD = """
local found = redis.call('GETEX', KEYS[1], 'EX', ARGV[1])
if not found then return false end
local id, created = found:sub(1, 16), tonumber(found:sub(18))
local user = redis.call('HMGET', 'user:' .. ARGV[4] .. id:sub(4), 'email', 'admin')
if not user[1] or ARGV[2] - created > tonumber(ARGV[3]) then
    redis.call('DEL', KEYS[1])
    return false
end
return {id, user[1], user[2]}
"""


def user_key(user: str) -> str:
    """Of the user's hash."""
    return key("user", user)


def email_key(email: str) -> str:
    """Of the index from an address to its user."""
    tag = hashlib.blake2b(email.encode(), digest_size=8).hexdigest()[:TAG]
    return key("email", tag + email)


def pending_key(email: str) -> str:
    """Of the signup that waits for the address to be verified."""
    tag = hashlib.blake2b(email.encode(), digest_size=8).hexdigest()[:TAG]
    return key("pending", tag + email)


def sessions_key(user: str) -> str:
    """Of the list of a user's sessions."""
    return key("sessions", user)


def session_key(session: str) -> str:
    """Of a session."""
    return key("session", session)


class LogIn(Payload):
    email: Annotated[str, length(1, 254)]
    password: Annotated[str, length(1, 128)]


class EndSession(Payload):
    """One session by its public id, or all but this one."""

    id: Annotated[str, length(1, 64)] | None = None
    others: bool = False


class Known(msgspec.Struct):
    """What is kept of a session for its owner to see."""

    session: str
    created: int
    origin: str
    browser: str


class NotVerified(Exception):
    """The password fits a signup whose address is not verified yet."""


class Identity:
    """Users and sessions. `load` is the gatekeeper's look-up; `routes` are what clients call."""

    def __init__(
        self,
        redis: Any,  # redis-py's types don't know that replies are str here
        notify: Notify,
        rates: Any,  # the service of that name
        *,
        idle: float,
        limit: float,
        admins: list[str] | None = None,
        passwords: Passwords | None = None,
    ):
        self.keeper: Keeper  # given by the app: it needs `load` first
        self.on_new_place: Callable[[str, Known], Awaitable[None]] | None = None  # given by the app
        self.passwords = passwords or Passwords()
        self._redis = redis
        self._notify = notify
        self._rates = rates
        self._idle = int(idle)
        self._limit = int(limit)
        self._admins = {normalize(email) for email in admins or []}
        self._sha = hashlib.sha1(LOAD.encode()).hexdigest()

    # Users

    async def load(self, session: str) -> User | None:
        """The user of a session, which is renewed; None when it has ended. One command to redis."""
        tag = f"{{{session[:TAG]}}}"
        arguments = (1, session_key(session), self._idle, int(time.time()), self._limit, tag)
        try:
            found = await self._redis.execute_command("EVALSHA", self._sha, *arguments)
        except NoScriptError:
            found = await self._redis.execute_command("EVAL", LOAD, *arguments)
        if found is None:
            return None
        id, email, flag = found
        return User(id, email, flag == "1" or email in self._admins)

    async def find(self, email: str) -> str | None:
        """The id of the user who has an address."""
        user: str | None = await self._redis.get(email_key(normalize(email)))
        return user if user and await self._redis.exists(user_key(user)) else None

    async def create(self, email: str, hashed: str) -> str | None:
        """Make a user; its id, or None when the address is taken.

        The address is claimed first, for a minute: what is cut by a crash frees it by itself.
        """
        email, id = normalize(email), random_text(80)
        if not await self._redis.set(email_key(email), id, nx=True, ex=CLAIM):
            return None
        await self._redis.hset(user_key(id), mapping={"email": email, "password": hashed, "created": int(time.time())})
        await self._redis.set(email_key(email), id)
        await self._redis.delete(pending_key(email))
        return id

    async def move(self, user: str, email: str) -> str | None:
        """Give a user another address; the old one, or None when the new one is taken."""
        email = normalize(email)
        if not await self._redis.set(email_key(email), user, nx=True, ex=CLAIM):
            return None
        old: str = await self._redis.hget(user_key(user), "email")
        await self._redis.hset(user_key(user), "email", email)
        await self._redis.set(email_key(email), user)
        await self._redis.delete(email_key(old))
        return old

    async def password_of(self, user: str) -> tuple[str | None, str | None]:
        """Address and password hash of a user; None for who is none, or is being erased."""
        email, hashed, state = await self._redis.hmget(user_key(user), "email", "password", "state")
        return (None, None) if state else (email, hashed)

    async def set_password(self, user: str, hashed: str, keep: str = "") -> None:
        """Another password; the user's sessions end, but for the one to keep."""
        await self._redis.hset(user_key(user), "password", hashed)
        await self.end_sessions(user, keep)

    async def mark_destroying(self, user: str) -> None:
        """From now on nobody logs in as this user, and its erasure will be finished, whatever is cut."""
        await self._redis.sadd(DESTROYING, user)
        await self._redis.hset(user_key(user), "state", "destroying")

    async def destroying(self) -> set[str]:
        """The users whose erasure has begun."""
        users: set[str] = await self._redis.smembers(DESTROYING)
        return users

    async def forget(self, user: str) -> None:
        """Erase a user and its address; what else is kept of it is erased before."""
        email = await self._redis.hget(user_key(user), "email")
        if email and await self._redis.get(email_key(email)) == user:
            await self._redis.delete(email_key(email))
        await self._redis.delete(user_key(user), sessions_key(user))
        await self._redis.srem(DESTROYING, user)

    async def hold_pending(self, email: str, hashed: str, seconds: int) -> None:
        """Remember a signup that waits for its verification, so that a login can say so."""
        await self._redis.set(pending_key(normalize(email)), hashed, ex=seconds)

    # Sessions

    async def log_in(self, email: str, password: str, origin: str = "", browser: str = "") -> str | None:
        """A new session, or None when address and password don't fit; both take as long. Raises NotVerified."""
        email = normalize(email)
        user: str | None = await self._redis.get(email_key(email))
        if user:
            _, hashed = await self.password_of(user)
        else:
            hashed = await self._redis.get(pending_key(email))
        if not await self.passwords.verify(hashed, password):
            return None
        if not user:
            raise NotVerified
        if hashed and self.passwords.is_outdated(hashed):
            await self._redis.hset(user_key(user), "password", await self.passwords.hash(password))
        return await self.begin_session(user, origin, browser)

    async def begin_session(self, user: str, origin: str, browser: str) -> str:
        """A session of its own for a user; never one that a client has brought along."""
        session = user[:TAG] + random_text(130)
        known = Known(session, int(time.time()), origin, browser[:200])
        earlier = await self.sessions_of(user)
        async with self._redis.pipeline() as pipe:
            pipe.set(session_key(session), f"{user} {known.created}", ex=self._idle)
            pipe.hset(sessions_key(user), public_id(session), msgspec.json.encode(known))
            await pipe.execute()
        seen = {(each.origin, each.browser) for _, each, _ in earlier}
        if earlier and (known.origin, known.browser) not in seen and self.on_new_place:
            await self.on_new_place(user, known)
        return session

    async def sessions_of(self, user: str) -> list[tuple[str, Known, int]]:
        """The living sessions: public id, what is known, when last used (seconds). Dead ones are forgotten."""
        kept = await self._redis.hgetall(sessions_key(user))
        known = {id: msgspec.json.decode(raw, type=Known) for id, raw in kept.items()}
        async with self._redis.pipeline(transaction=False) as pipe:
            for each in known.values():
                pipe.ttl(session_key(each.session))
            left = await pipe.execute()
        found, dead = [], []
        for (id, each), seconds in zip(known.items(), left, strict=True):
            if seconds < 0:
                dead.append(id)
            else:
                found.append((id, each, int(time.time()) - self._idle + seconds))
        if dead:
            await self._redis.hdel(sessions_key(user), *dead)
        return found

    async def end_session(self, user: str, session: str) -> None:
        """End a session; nothing happens if it has ended."""
        async with self._redis.pipeline() as pipe:
            pipe.delete(session_key(session)).hdel(sessions_key(user), public_id(session))
            await pipe.execute()

    async def end_sessions(self, user: str, keep: str = "") -> None:
        """End all sessions of a user but the one to keep."""
        for _, known, _ in await self.sessions_of(user):
            if known.session != keep:
                await self.end_session(user, known.session)

    async def mend(self) -> None:
        """The consistency check: every user is found by its address.

        A signup cut between its steps leaves a user without its index: it is written again. An address that leads
        to another user is reported.
        """
        async for name in self._redis.scan_iter("user:*", count=500):
            email, created, state = await self._redis.hmget(name, "email", "created", "state")
            if not email or state or time.time() - float(created) < 2 * CLAIM:
                continue
            id = name.replace("user:{", "").replace("}", "")
            if await self._redis.set(email_key(email), id, nx=True):
                self._notify("warning", "identity.mended", user=id)
            elif (owner := await self._redis.get(email_key(email))) != id:
                self._notify("error", "identity.conflict", user=id, owner=owner)

    # Routes

    def routes(self) -> list[Route]:
        """What clients call."""
        return [
            auth.post("/auth/login", self._login),
            private.get("/auth/csrf", self._csrf),
            private.post("/auth/logout", self._logout),
            private.get("/auth/sessions", self._sessions),
            private.post("/auth/sessions/end", self._end),
        ]

    async def _login(self, request: Request, body: LogIn) -> Reply:
        """Begin a session. 200 {"csrf": str} and the cookie; 403 `auth` or `verify`; 429 `rate`."""
        rates, origin = self._rates, request.origin
        tries = (rates.of_origin("login", origin), rates.of_attempt("login-account", origin, body.email))
        if refused := await rates.refuse(*tries):
            return refused  # type: ignore[no-any-return]
        try:
            session = await self.log_in(body.email, body.password, origin, request.header("user-agent") or "")
        except NotVerified:
            return reply(403, error="verify")
        if session is None:
            return reply(403, error="auth")
        await rates.forgive(*tries)
        return reply(200, {"csrf": self.keeper.csrf.sign(session)}, headers=[self.keeper.cookie.give(session)])

    async def _csrf(self, request: Request) -> Reply:
        """Am I logged in? 200 {"csrf": str, "user": {"id", "email", "admin"}}; else the gatekeeper's 403."""
        return reply(200, {"csrf": self.keeper.csrf.sign(request.session), "user": request.user})

    async def _logout(self, request: Request) -> Reply:
        """End the session. 200 {}, and the cookie is deleted."""
        await self.end_session(request.user.id, request.session)
        return reply(200, headers=[self.keeper.cookie.take()])

    async def _sessions(self, request: Request) -> Reply:
        """The user's sessions. 200 {"sessions": [{id, created, used, origin, browser, current}]}."""
        shown = [
            {
                "id": id,
                "created": known.created,
                "used": used,
                "origin": known.origin,
                "browser": known.browser,
                "current": known.session == request.session,
            }
            for id, known, used in await self.sessions_of(request.user.id)
        ]
        return reply(200, {"sessions": sorted(shown, key=lambda each: -int(each["used"]))})

    async def _end(self, request: Request, body: EndSession) -> Reply:
        """End one session, or all others. 200 {}; 404 `session`."""
        if body.others:
            await self.end_sessions(request.user.id, keep=request.session)
            return reply(200)
        for id, known, _ in await self.sessions_of(request.user.id):
            if id == body.id:
                await self.end_session(request.user.id, known.session)
                return reply(200)
        return reply(404, error="session")


def public_id(session: str) -> str:
    """What names a session to its owner, and opens nothing."""
    return hashlib.blake2b(session.encode(), digest_size=9).hexdigest()
