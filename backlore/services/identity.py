"""Identity: accounts and sessions in our own redis.

    user:{k3f}…      hash    email, password (argon2id, PHC string), created (seconds), admin ("1"); for ever
    email:{x0z}ADDR  string  the id of the user who has the address; for ever, 60 s while a signup is under way
    session:{k3f}…   string  "USER CREATED"; ends after `idle` seconds without use

The tag in braces is the first three characters of the user's id, and a session begins with it, so that one user's
data lies together. An address has a tag of its own: its place must be known before its user is.
"""

import hashlib
import time
import unicodedata
from typing import Annotated, Any

from redis.exceptions import NoScriptError

from backlore.core.crypto import Passwords, random_text
from backlore.core.keys import TAG, key
from backlore.core.notify import Notify
from backlore.core.payload import Payload, length, matching
from backlore.web.reply import Reply, reply
from backlore.web.request import Request, User
from backlore.web.routes import Route
from backlore.web.stages import Keeper, auth, private

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


def session_key(session: str) -> str:
    """Of a session."""
    return key("session", session)


WORD = r"[^@\s\x00-\x1f\x7f.]+"
Email = Annotated[str, length(3, 254), matching(rf"[^@\s\x00-\x1f\x7f]+@{WORD}(\.{WORD})*", "an e-mail address")]


class SignUp(Payload):
    """Every character of the password counts; it is compared in the Unicode form NFC."""

    email: Email
    password: Annotated[str, length(8, 128)]


class LogIn(Payload):
    email: Annotated[str, length(1, 254)]
    password: Annotated[str, length(1, 128)]


def normalize(email: str) -> str:
    """The one form in which an address is kept and looked up."""
    return unicodedata.normalize("NFC", email).lower()


class Identity:
    """Accounts and sessions. `load` is the gatekeeper's look-up; `routes` are what clients call."""

    def __init__(
        self,
        redis: Any,  # redis-py's types don't know that replies are str here
        notify: Notify,
        *,
        idle: float,
        limit: float,
        whitelist: list[str] | None = None,
        admins: list[str] | None = None,
        passwords: Passwords | None = None,
    ):
        self.keeper: Keeper  # given by the app: it needs `load` first
        self._redis = redis
        self._notify = notify
        self._idle = int(idle)
        self._limit = int(limit)
        self._whitelist = None if whitelist is None else {normalize(email) for email in whitelist}
        self._admins = {normalize(email) for email in admins or []}
        self._passwords = passwords or Passwords()
        self._sha = hashlib.sha1(LOAD.encode()).hexdigest()

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

    async def sign_up(self, email: str, password: str) -> str | None:
        """Make an account; its id, or None when the address is taken.

        The address is claimed first, for a minute: a signup that is cut by a crash frees it by itself.
        """
        email = normalize(email)
        id = random_text(80)
        if not await self._redis.set(email_key(email), id, nx=True, ex=CLAIM):
            return None
        hashed = await self._passwords.hash(unicodedata.normalize("NFC", password))
        fields = {"email": email, "password": hashed, "created": int(time.time())}
        await self._redis.hset(user_key(id), mapping=fields)
        await self._redis.set(email_key(email), id)
        return id

    async def log_in(self, email: str, password: str) -> str | None:
        """A new session, or None when address and password don't fit; both take as long."""
        id = await self._redis.get(email_key(normalize(email)))
        hashed = await self._redis.hget(user_key(id), "password") if id else None
        if not await self._passwords.verify(hashed, unicodedata.normalize("NFC", password)):
            return None
        session: str = id[:TAG] + random_text(130)
        await self._redis.set(session_key(session), f"{id} {int(time.time())}", ex=self._idle)
        return session

    async def end_session(self, session: str) -> None:
        """End a session; nothing happens if it has ended."""
        await self._redis.delete(session_key(session))

    async def mend(self) -> None:
        """The consistency check: every user is found by its address.

        A signup cut between its steps leaves a user without its index: it is written again. An address that leads
        to another user is reported.
        """
        async for name in self._redis.scan_iter("user:*", count=500):
            email, created = await self._redis.hmget(name, "email", "created")
            if not email or time.time() - float(created) < 2 * CLAIM:
                continue
            id = name.replace("user:{", "").replace("}", "")
            if await self._redis.set(email_key(email), id, nx=True):
                self._notify("warning", "identity.mended", user=id)
            elif (owner := await self._redis.get(email_key(email))) != id:
                self._notify("error", "identity.conflict", user=id, owner=owner)

    def routes(self) -> list[Route]:
        """What clients call."""
        return [
            auth.post("/auth/signup", self._signup),
            auth.post("/auth/login", self._login),
            private.get("/auth/csrf", self._csrf),
            private.post("/auth/logout", self._logout),
        ]

    async def _signup(self, request: Request, body: SignUp) -> Reply:
        """Make an account. 200 {}; 403 `whitelist`; 403 `email` when the address is taken."""
        if self._whitelist is not None and normalize(body.email) not in self._whitelist:
            return reply(403, error="whitelist")
        made = await self.sign_up(body.email, body.password)
        return reply(200) if made else reply(403, error="email")

    async def _login(self, request: Request, body: LogIn) -> Reply:
        """Begin a session. 200 {"csrf": str} and the cookie; 403 `auth`."""
        session = await self.log_in(body.email, body.password)
        if session is None:
            return reply(403, error="auth")
        return reply(200, {"csrf": self.keeper.csrf.sign(session)}, headers=[self.keeper.cookie.give(session)])

    async def _csrf(self, request: Request) -> Reply:
        """Am I logged in? 200 {"csrf": str, "user": {"id", "email", "admin"}}; else the gatekeeper's 403."""
        return reply(200, {"csrf": self.keeper.csrf.sign(request.session), "user": request.user})

    async def _logout(self, request: Request) -> Reply:
        """End the session. 200 {}, and the cookie is deleted."""
        await self.end_session(request.session)
        return reply(200, headers=[self.keeper.cookie.take()])
