"""Passkeys: credentials that a device keeps for its user (WebAuthn), for a login by themselves or as second factor.

    passkeys:{k3f}…  hash  of a user: id of a credential (base64url) → JSON (public key, count of signatures, name,
                           created, used, transports, backed up); until removed

Laws: a challenge can be used once, for one purpose and, if it was made for a user, by that user. A passkey that has
verified its user counts as both factors; one that has not is a second factor only. Every failed verification gets the
same reply, `passkey`, without a reason. If the count of signatures goes back the passkey was copied: it is refused, and
notify is told. Redis compares the count in the step that stores it. A passkey is added only to the user who showed the
password for it, and only if that user has not changed since.

The passkeys' site is the configured address; for an IP address, as in dev, see `RelyingParty`.
"""

import asyncio
import time
from typing import Annotated, Any, Literal

import msgspec

from backlore.clients.redis.script import Script
from backlore.core.kept import read as read_kept
from backlore.core.kept import read_all
from backlore.core.keys import key
from backlore.core.payload import Payload, length
from backlore.services.identity.ceremony import (
    LASTS,
    Id,
    KnownCredential,
    NewCredential,
    Passkey,
    RelyingParty,
    challenge_of,
    read,
    user_of,
)
from backlore.services.identity.login import Given, Login, TokenText
from backlore.services.identity.recovery import RecoveryCodes
from backlore.services.identity.shared import Shared
from backlore.services.identity.users import Account
from backlore.services.identity.words import now
from backlore.web.reply import Reply, reply
from backlore.web.request import Request
from backlore.web.routes import Route
from backlore.web.stages import auth, private

MOST = 20  # passkeys per user

# Stores what the use of a passkey has changed. Returns 1; 0 if it was removed, -1 if its count went back. Passkeys that
# several devices share don't count: theirs stays 0. KEYS: passkeys. ARGV: id, count, JSON.
USE = Script("""
local kept = redis.call('HGET', KEYS[1], ARGV[1])
if not kept then return 0 end
local before, count = cjson.decode(kept).count, tonumber(ARGV[2])
if (before > 0 or count > 0) and count <= before then return -1 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
""")


def passkeys_key(user: str) -> str:
    """The key of a user's passkeys."""
    return key("passkeys", user)


# the result of `toJSON()` in any browser
Sent = Annotated[dict[str, Any], length(0, 30)]


class Ask(Payload):
    """With the `ticket` of a login the options are for its second factor."""

    ticket: TokenText | None = None


class Answer(Payload):
    credential: Sent
    ticket: TokenText | None = None


class BeginPasskey(Payload):
    password: Given


class Add(Payload):
    credential: Sent
    name: Annotated[str, length(1, 60)]


class Remove(Payload):
    id: Id
    password: Given


class Challenge(msgspec.Struct):
    """The purpose of a challenge, and the user who may answer it; "" for any user."""

    purpose: Literal["login", "second", "register"]
    user: str = ""
    version: int = 0  # of the user, when the password was shown


class Passkeys:
    """Registers, verifies and removes passkeys."""

    name = "passkey"

    def __init__(self, shared: Shared, login: Login, recovery: RecoveryCodes, party: RelyingParty):
        self._redis = shared.redis
        self._notify = shared.notify
        self._users = shared.users
        self._sessions = shared.sessions
        self._login = login
        self._tokens = shared.tokens
        self._recovery = recovery
        self._mail = shared.mail
        self._rates = shared.rates
        self._party = party

    async def has(self, account: Account) -> bool:
        """Whether the user has a passkey."""
        return bool(await self._redis.hlen(passkeys_key(account.id)))

    async def release(self, user: str) -> list[str]:
        """The key of all passkeys of a user."""
        return [passkeys_key(user)]

    def routes(self) -> list[Route]:
        """For the route table."""
        return [
            auth.post("/auth/passkey/options", self._options, limit=self._rates.by_origin("passkey")),
            auth.post("/auth/passkey", self._log_in, limit=self._rates.by_origin("passkey")),
            private.get("/auth/passkeys", self._list),
            private.post("/auth/passkeys/begin", self._begin),
            private.post("/auth/passkeys/add", self._add),
            private.post("/auth/passkeys/remove", self._remove),
        ]

    # Logging in

    async def _options(self, request: Request, body: Ask) -> Reply:
        """For navigator.credentials.get(). With the ticket of a login, the passkey is to be its second factor.

        200 {"options"}; 403 `token`, `passkey` if the user has none; 429 `rate`.
        """
        if body.ticket is None:
            return reply(200, {"options": self._party.request(await self._challenge("login"))})
        account = await self._login.holder(body.ticket)
        if account is None:
            return reply(403, error="token")
        known = await self._of(account.id)
        if not known:
            return reply(403, error="passkey")
        return reply(200, {"options": self._party.request(await self._challenge("second", account.id), known)})

    async def _log_in(self, request: Request, body: Answer) -> Reply:
        """Show a passkey. Without a ticket it is both factors in one, and must verify its user.

        200 {"csrf"} and the cookie; 403 `passkey`, `token`; 429.
        """
        credential = read(KnownCredential, body.credential)
        if credential is None:
            return reply(403, error="passkey")
        served = await self._take(credential)
        if body.ticket is None:
            account, asked = await self._users.read(user_of(credential)), Challenge("login")
        else:
            account = await self._login.holder(body.ticket)
            if account is None:
                return reply(403, error="token")
            asked = Challenge("second", account.id)
        if (
            account is None
            or account.state
            or served != asked
            or not await self._verify(account, credential, with_user=body.ticket is None)
        ):
            return reply(403, error="passkey")
        tries = self._rates.of_origin("passkey", request.origin)
        await self._rates.forgive(tries, tries)  # the challenge took one as well
        if body.ticket is None:
            return await self._login.let_in(request, account)
        return await self._login.redeem(request, body.ticket)

    async def _verify(self, account: Account, credential: KnownCredential, with_user: bool) -> bool:
        """Whether a credential is the user's and has signed its challenge. If so its use is recorded."""
        raw = await self._redis.hget(passkeys_key(account.id), credential.id)
        kept = read_kept(raw, Passkey)
        if kept is None or user_of(credential) not in ("", account.id):
            return False
        shown = await asyncio.to_thread(
            self._party.verify_known, credential, challenge_of(credential), kept.key, with_user
        )
        if shown is None:
            return False
        changed = {"count": shown.count, "backed_up": shown.backed_up, "used": int(time.time())}
        text = msgspec.json.encode(msgspec.structs.replace(kept, **changed)).decode()
        outcome = await USE(self._redis, [passkeys_key(account.id)], credential.id, shown.count, text)
        if outcome == -1:
            self._notify("warning", "passkey.cloned", user=account.id, passkey=credential.id)
        return bool(outcome == 1)

    # The user's own

    async def _list(self, request: Request) -> Reply:
        """The user's passkeys, oldest first; `used` is 0 for never. 200 {"passkeys": [{id, name, created, used}]}."""
        known = sorted((await self._of(request.user.id)).items(), key=lambda pair: pair[1].created)
        shown = [{"id": id, "name": each.name, "created": each.created, "used": each.used} for id, each in known]
        return reply(200, {"passkeys": shown})

    async def _begin(self, request: Request, body: BeginPasskey) -> Reply:
        """For navigator.credentials.create(). 200 {"options"}; 403 `auth`; 409 `passkeys` beyond 20; 429 `rate`."""
        proven = await self._login.prove(request, body.password)
        if isinstance(proven, Reply):
            return proven
        known = await self._of(proven.id)
        if len(known) >= MOST:
            return reply(409, error="passkeys")
        challenge = await self._challenge("register", proven.id, proven.version)
        return reply(200, {"options": self._party.creation(challenge, proven.id, proven.email, known)})

    async def _add(self, request: Request, body: Add) -> Reply:
        """Keep a new passkey. If it is the first factor, the other sessions end.

        The password was asked for at the beginning; if the user has changed since, the challenge is void.
        200 {"recoveryCodes": [...]}, ten, or none if some are left; 403 `passkey`.
        """
        user, credential = request.user.id, read(NewCredential, body.credential)
        served = await self._take(credential) if credential else None
        account = await self._users.read(user)
        if credential is None or account is None or served != Challenge("register", user, account.version):
            return reply(403, error="passkey")
        made = await asyncio.to_thread(self._party.verify_new, credential, challenge_of(credential))
        if made is None or credential.id in await self._of(user):
            return reply(403, error="passkey")
        is_first = not await self._login.factors_of(account)
        transports, born = credential.response.transports, int(time.time())
        passkey = Passkey(made.key, made.count, body.name, born, 0, transports, made.backed_up)
        text = msgspec.json.encode(passkey).decode()
        codes, kept = await self._recovery.begin(user, is_first)
        steps = (("HSET", passkeys_key(user), credential.id, text), *kept)
        # the other sessions were made without a second factor, if it is the first
        if not await self._sessions.alter(request, account, *steps, alone=is_first):
            return reply(403, error="passkey")
        await self._tell(request, f'the passkey "{body.name}" was added.')
        return reply(200, {"recoveryCodes": codes})

    async def _remove(self, request: Request, body: Remove) -> Reply:
        """Remove a passkey. 200 {}; 403 `auth`; 404 `passkey`; 429 `rate`."""
        proven = await self._login.prove(request, body.password)
        if isinstance(proven, Reply):
            return proven
        known = await self._of(proven.id)
        if body.id not in known:
            return reply(404, error="passkey")
        is_last = len(known) == 1 and await self._login.factors_of(proven) == [self.name]
        taken = ("HDEL", passkeys_key(proven.id), body.id)
        if not await self._sessions.alter(request, proven, taken, *(self._recovery.drop(proven.id) if is_last else ())):
            return reply(403, error="auth")
        await self._tell(request, f'the passkey "{known[body.id].name}" was removed.')
        return reply(200)

    # Parts

    async def _of(self, user: str) -> dict[str, Passkey]:
        return read_all(await self._redis.hgetall(passkeys_key(user)), Passkey)

    async def _challenge(
        self, purpose: Literal["login", "second", "register"], user: str = "", version: int = 0
    ) -> str:
        return await self._tokens.make("challenge", Challenge(purpose, user, version), LASTS, user)

    async def _take(self, credential: NewCredential | KnownCredential) -> Challenge | None:
        """What the challenge of a credential was made for. The challenge is used up, whatever comes next."""
        return await self._tokens.take("challenge", challenge_of(credential), Challenge)

    async def _tell(self, request: Request, what: str) -> None:
        values = {"what": what, "when": now(), "origin": request.origin}
        await self._mail.send(request.user.email, "changed_factors", values)
