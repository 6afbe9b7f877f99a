"""The life of an account: signup, verification, recovery, changes, destruction.

    signup:{r4n}…  string  JSON (email, password hash) of a signup that waits for its mail; a day

Laws: a token is made when its mail leaves, and is never queued. Neither replies nor their timing reveal whether an
address is known: that is looked up when the mail is made, outside of requests. With verification on, no account exists
before its address is proven, and the proof needs the password of the signup, too: a signup by a stranger with somebody
else's address comes to nothing. The first user who proves an address owns it: whatever an earlier claimant attached to
the account (sessions, factors, sign-ins) ends, and requests made under another password are void. An account moves to
another address only in a browser that has both the link of the mail and a session of the account.
"""

from typing import Annotated

import msgspec

from backlore.core.addresses import Email, normalize
from backlore.core.config import Settings
from backlore.core.crypto import random_text
from backlore.core.keys import key
from backlore.core.payload import Invalid, Payload, length
from backlore.services.identity.erasure import Erasure
from backlore.services.identity.login import Given, Login, TokenText
from backlore.services.identity.sessions import Known, session_key
from backlore.services.identity.shared import Shared
from backlore.services.identity.strength import check_password
from backlore.services.identity.users import Account, Step, user_key
from backlore.services.identity.whitelist import Whitelist
from backlore.services.identity.words import now, printable
from backlore.web.reply import Reply, reply
from backlore.web.request import Request
from backlore.web.routes import Route
from backlore.web.stages import auth, private

WAITING = 86_400  # seconds that a signup waits for its mail to leave
VERIFY = 3_600
RESET = 600

Password = Annotated[str, length(8, 128)]


class SignUp(Payload):
    email: Email
    password: Password


class Verify(Payload):
    """`password`: that of a signup; a change of address asked for it before."""

    token: TokenText
    password: Given | None = None


class Recover(Payload):
    email: Email


class Reset(Payload):
    token: TokenText
    password: Password


class ChangePassword(Payload):
    old: Given
    new: Password


class ChangeEmail(Payload):
    email: Email
    password: Given


class Destroy(Payload):
    password: Given


class Verification(msgspec.Struct):
    """What a mailed token verifies: the address of a new account, or the new address of an account."""

    email: str
    password: str = ""
    user: str = ""
    version: int = 0  # of the user, at the request


class Recovery(msgspec.Struct):
    """The user whose password a token may replace, and the version that the user had at the request."""

    user: str
    version: int


class Accounts:
    """The routes for signup, recovery, changes and destruction."""

    def __init__(self, shared: Shared, login: Login, erasure: Erasure, settings: Settings, whitelist: Whitelist):
        self._redis = shared.redis
        self._users = shared.users
        self._sessions = shared.sessions
        self._login = login
        self._erasure = erasure
        self._tokens = shared.tokens
        self._passwords = shared.passwords
        self._mail = shared.mail
        self._rates = shared.rates
        self._name = settings.config.name.capitalize()
        self._address = settings.address
        self._verify_email = settings.verify_email
        self._whitelist = whitelist
        shared.mail.makers |= {
            "verify": self._make_signup,
            "verify_email_change": self._make_change,
            "recover": self._make_recovery,
        }
        shared.sessions.on_new_place = self._tell_new_place

    def routes(self) -> list[Route]:
        """For the route table."""
        by_origin = self._rates.by_origin
        return [
            auth.post("/auth/signup", self._signup, limit=by_origin("signup")),
            auth.post("/auth/verifyEmail", self._verify, limit=by_origin("verify")),
            auth.post("/auth/recover", self._recover, limit=by_origin("recover")),
            auth.post("/auth/reset", self._reset, limit=by_origin("verify")),
            private.post("/auth/changePassword", self._change_password),
            private.post("/auth/changeEmail", self._change_email),
            private.post("/auth/destroy", self._destroy),
        ]

    # Signup and verification

    async def _signup(self, request: Request, body: SignUp) -> Reply:
        """Make an account. 200 {}; 400 `payload` also for a common password; 403 `whitelist`, `email` (taken); 429."""
        email, rates = normalize(body.email), self._rates
        if not self._whitelist.admits(email):
            return reply(403, error="whitelist")
        by_origin, by_account = rates.of_origin("signup", request.origin), rates.of_account("mail", email)
        if refused := await rates.refuse(by_account):
            return refused
        await check_password(body.password, "password", email, self._name)
        hashed = await rates.unless_busy(self._passwords.hash(body.password, by_origin[1]), by_origin, by_account)
        if not self._verify_email:
            made = await self._users.create(email, hashed, verified=False)
            return reply(200) if made else reply(403, error="email")
        id = random_text(130)
        waiting = Verification(email, hashed)
        await self._redis.set(key("signup", id), msgspec.json.encode(waiting), ex=WAITING)
        await self._login.hold_pending(email, hashed, VERIFY)
        await self._write_to(email, "verify", {"signup": id})
        return reply(200)

    async def _write_to(self, email: str, name: str, values: dict[str, str]) -> None:
        """Send a mail to an address that a client has given. Raises Invalid: mail is stricter than the type Email."""
        try:
            await self._mail.send(email, name, values)
        except ValueError:
            raise Invalid("email", "Is not an address that mail can reach.") from None

    async def _make_signup(self, email: str, values: dict[str, str]) -> dict[str, str] | None:
        """The link that verifies an address; the owner of a taken address gets another mail instead."""
        waiting = await self._redis.get(key("signup", values["signup"]))
        if waiting is None:
            return None
        if await self._users.find(email):
            await self._mail.send(email, "taken", {"link": self._address})
            return None
        return await self._link("verify", msgspec.json.decode(waiting, type=Verification), VERIFY)

    async def _link(self, kind: str, opens: msgspec.Struct, seconds: int, user: str = "") -> dict[str, str]:
        # in the fragment, which browsers don't send: the token appears in no log and no Referer
        return {"link": f"{self._address}/#{kind}={await self._tokens.make(kind, opens, seconds, user)}"}

    async def _verify(self, request: Request, body: Verify) -> Reply:
        """Prove an address with the token of a mail. A signup needs its password, a change a session of the account.

        The token works once, for an hour. 200 {}; 403 `token`, `auth` (the password), `session` (none); 429 `rate`.
        """
        proven = await self._tokens.look("verify", body.token, Verification)
        if proven is None:
            return reply(403, error="token")
        if proven.user:
            return await self._verify_change(request, body.token, proven)
        tries = self._rates.of_account("verify-account", proven.email)
        if refused := await self._rates.refuse(tries):
            return refused
        checking = self._passwords.verify(proven.password, body.password or "", tries[1])
        if not await self._rates.unless_busy(checking, tries):
            return reply(403, error="auth")
        await self._rates.forgive(tries)
        taken = await self._tokens.take("verify", body.token, Verification)
        if taken is None or not await self._users.create(proven.email, proven.password, verified=True):
            return reply(403, error="token")
        await self._login.drop_pending(proven.email, proven.password)
        return reply(200)

    async def _verify_change(self, request: Request, token: str, proven: Verification) -> Reply:
        """Move an account to the address that a token proves, if the request has a session of that account."""
        mine = await self._sessions.of_browser(request)
        if mine is None:
            return reply(403, error="session")
        session, user = mine
        account = await self._unchanged(proven)
        if account is None or account.id != user.id or await self._tokens.take("verify", token, Verification) is None:
            return reply(403, error="token")
        if not await self._users.move(account, proven.email, session_key(session)):
            return reply(403, error="token")
        await self._mail.send(account.email, "changed_email_old", {"email": proven.email})
        return reply(200)

    async def _unchanged(self, asked: Verification | Recovery) -> Account | None:
        """The user of a token, or None if the user has changed since: then the request no longer holds."""
        account = await self._users.read(asked.user)
        return account if account and not account.state and account.version == asked.version else None

    async def claim(self, account: Account) -> Account | None:
        """Give the account to a user who has proven its address. The first to do so owns it, and nobody else gets in.

        Whatever an earlier claimant attached ends, their password too. Returns the account as it is then, unchanged if
        it was verified before; None if it has changed meanwhile.
        """
        if account.verified:
            return account
        me = user_key(account.id)
        version = await self._erasure.detach(account, ("HDEL", me, "password"), ("HSET", me, "verified", "1"), keep="")
        proven = msgspec.structs.replace(account, password="", totp="", verified=True, version=version)
        return proven if version else None

    # Recovery

    async def _recover(self, request: Request, body: Recover) -> Reply:
        """Mail a link for a new password. 200 {}, known or not; 400 `payload`, also for an invalid address; 429."""
        if refused := await self._rates.refuse(self._rates.of_account("recover-account", body.email)):
            return refused
        await self._write_to(normalize(body.email), "recover", {})
        return reply(200)

    async def _make_recovery(self, email: str, values: dict[str, str]) -> dict[str, str] | None:
        account = await self._users.find(email)
        if account is None or account.state:
            return None
        return await self._link("reset", Recovery(account.id, account.version), RESET, account.id)

    async def _reset(self, request: Request, body: Reset) -> Reply:
        """Set a new password by a token; all sessions end.

        The token works once, for ten minutes, and not after the password was changed in another way.
        200 {}; 400 `payload`: a common one; 403 `token`; 429.
        """
        recovery = await self._tokens.look("reset", body.token, Recovery)
        account = await self._unchanged(recovery) if recovery else None
        await check_password(body.password, "password", account.email if account else "", self._name)
        if account is None:
            return reply(403, error="token")
        hashed = await self._passwords.hash(body.password, account.id)  # Busy is raised before the token is taken
        if await self._tokens.take("reset", body.token, Recovery) is None:
            return reply(403, error="token")
        account = await self.claim(account)
        if account is None or not await self._users.alter(account, self._set_password(account, hashed), keep=""):
            return reply(403, error="token")
        await self._tell_changed(account.email, request)
        return reply(200)

    # Changes

    async def _change_password(self, request: Request, body: ChangePassword) -> Reply:
        """Set a new password; other sessions end. 200 {}; 400 `payload` also for a common password; 403 `auth`; 429."""
        account = await self._login.prove(request, body.old)
        if isinstance(account, Reply):
            return account
        await check_password(body.new, "new", account.email, self._name)
        hashed = await self._passwords.hash(body.new, account.id)
        # of two concurrent changes the second finds another version than was proven
        if not await self._sessions.alter(request, account, self._set_password(account, hashed), alone=True):
            return reply(403, error="auth")
        await self._tell_changed(account.email, request)
        return reply(200)

    async def _change_email(self, request: Request, body: ChangeEmail) -> Reply:
        """Change the address, as soon as its link is opened with a session of the account.

        200 {}; 400 `payload` also for an invalid address; 403 `auth`, `whitelist`; 429 `rate`.
        """
        account, email = await self._login.prove(request, body.password), normalize(body.email)
        if isinstance(account, Reply):
            return account
        if not self._whitelist.admits(email):
            return reply(403, error="whitelist")
        if refused := await self._rates.refuse(self._rates.of_account("mail", email)):
            return refused
        await self._write_to(email, "verify_email_change", {"user": account.id, "version": str(account.version)})
        return reply(200)

    async def _make_change(self, email: str, values: dict[str, str]) -> dict[str, str] | None:
        if await self._users.find(email):
            await self._mail.send(email, "taken", {"link": self._address})
            return None
        opens = Verification(email, user=values["user"], version=int(values["version"]))
        return await self._link("verify", opens, VERIFY)

    @staticmethod
    def _set_password(account: Account, hashed: str) -> Step:
        return "HSET", user_key(account.id), "password", hashed

    async def _tell_changed(self, email: str, request: Request) -> None:
        await self._mail.send(email, "changed_password", {"when": now(), "origin": request.origin})

    async def _tell_new_place(self, account: Account, known: Known) -> None:
        values = {"when": now(), "origin": known.origin, "browser": printable(known.browser)}
        await self._mail.send(account.email, "new_login", values)

    # Destruction

    async def _destroy(self, request: Request, body: Destroy) -> Reply:
        """Erase the account and all its data. 200 {}, the cookie is deleted; 403 `auth`; 429 `rate`."""
        account = await self._login.prove(request, body.password)
        if isinstance(account, Reply):
            return account
        if not await self._erasure.destroy(account, session_key(request.session)):
            return reply(403, error="auth")
        return reply(200, headers=[self._sessions.keeper.cookie.take()])
