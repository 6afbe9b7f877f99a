"""The life of an account: signup, verification, recovery, changes, destruction.

    signup:{r4n}…  string  JSON (email, password hash) of a signup that waits for its mail; a day
    verify:{r4n}…  string  JSON (email, and password hash or user) that a token verifies; an hour
    reset:{k3f}…   string  JSON (user, fingerprint of the password it replaces); ten minutes

Laws: a token is 130 random bits, kept as a hash, taken by one command, so that it serves once; it is made when its
mail leaves, and stands in no queue. Whether an address is known shows in no reply and in no time: who has it decides
when the mail is made, beside the requests. With verification on, no account is there before its address is proven.
"""

import functools
import hashlib
import importlib.util
import runpy
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec

from backlore.core.addresses import Email, normalize
from backlore.core.crypto import random_text
from backlore.core.keys import TAG, key
from backlore.core.notify import Notify
from backlore.core.payload import Invalid, Payload, length
from backlore.web.reply import Reply, reply
from backlore.web.request import Request
from backlore.web.routes import Route
from backlore.web.stages import auth, private

WAITING = 86_400  # seconds that a signup waits for its mail to leave
VERIFY = 3_600
RESET = 600

Password = Annotated[str, length(8, 128)]
Given = Annotated[str, length(1, 128)]  # a password to compare with
TokenText = Annotated[str, length(1, 100)]


class SignUp(Payload):
    email: Email
    password: Password


class Token(Payload):
    token: TokenText


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
    """What a token of a mail verifies: a new account's address, or an account's new one."""

    email: str
    password: str = ""
    user: str = ""


class Recovery(msgspec.Struct):
    """Whose password a token may replace, and which."""

    user: str
    fingerprint: str


def token_key(kind: str, token: str) -> str:
    """Of what a token opens; of the token itself only a hash is kept."""
    return key(kind, token[:TAG] + hashlib.blake2b(token.encode(), digest_size=16).hexdigest())


class Accounts:
    """The routes of an account's life. `identity`, `mail` and `rates` are the services of those names."""

    def __init__(
        self,
        redis: Any,
        notify: Notify,
        identity: Any,
        mail: Any,
        rates: Any,
        *,
        address: str,
        verify_email: bool,
        whitelist: list[str] | None,
    ):
        self.on_destroy: list[Callable[[str], Awaitable[None]]] = []  # erase what the application keeps of a user
        self._redis = redis
        self._notify = notify
        self._identity = identity
        self._mail = mail
        self._rates = rates
        self._address = address
        self._verify_email = verify_email
        self._whitelist = None if whitelist is None else {normalize(email) for email in whitelist}
        mail.makers |= {
            "verify": self._make_signup,
            "verify_email_change": self._make_change,
            "recover": self._make_recovery,
        }
        identity.on_new_place = self._tell_new_place

    def routes(self) -> list[Route]:
        """What clients call."""
        return [
            auth.post("/auth/signup", self._signup),
            auth.post("/auth/verifyEmail", self._verify),
            auth.post("/auth/recover", self._recover),
            auth.post("/auth/reset", self._reset),
            private.post("/auth/changePassword", self._change_password),
            private.post("/auth/changeEmail", self._change_email),
            private.post("/auth/destroy", self._destroy),
        ]

    # Signup and verification

    async def _signup(self, request: Request, body: SignUp) -> Reply:
        """Make an account. 200 {}; 403 `whitelist`; 403 `email` when taken, if addresses are not verified; 429."""
        if refused := await self._rates.refuse(self._rates.of_origin("signup", request.origin)):
            return refused  # type: ignore[no-any-return]
        email = normalize(body.email)
        if self._whitelist is not None and email not in self._whitelist:
            return reply(403, error="whitelist")
        check_password(body.password, email, "password")
        hashed = await self._identity.passwords.hash(body.password)
        if not self._verify_email:
            made = await self._identity.create(email, hashed)
            return reply(200) if made else reply(403, error="email")
        id = random_text(130)
        waiting = Verification(email, hashed)
        await self._redis.set(key("signup", id), msgspec.json.encode(waiting), ex=WAITING)
        await self._identity.hold_pending(email, hashed, VERIFY)
        await self._write_to(email, "verify", {"signup": id})
        return reply(200)

    async def _write_to(self, email: str, name: str, values: dict[str, str]) -> None:
        """Write to an address that a client has given; mail is stricter than its type."""
        try:
            await self._mail.send(email, name, values)
        except ValueError:
            raise Invalid("email", "Is no address that mail can reach.") from None

    async def _make_signup(self, email: str, values: dict[str, str]) -> dict[str, str] | None:
        """The link of a verification; the owner of a taken address gets another mail instead."""
        waiting = await self._redis.get(key("signup", values["signup"]))
        if waiting is None:
            return None
        if await self._identity.find(email):
            await self._mail.send(email, "taken", {"link": self._address})
            return None
        return {"link": await self._make_link("verify", random_text(130), waiting, VERIFY)}

    async def _make_link(self, kind: str, token: str, opens: str | bytes, seconds: int) -> str:
        await self._redis.set(token_key(kind, token), opens, ex=seconds)
        # in the fragment, which no browser sends: a token stands in no log and no Referer
        return f"{self._address}/#{kind}={token}"

    async def _verify(self, request: Request, body: Token) -> Reply:
        """Prove an address with the token of a mail. 200 {}; 403 `token`; 429 `rate`."""
        if refused := await self._rates.refuse(self._rates.of_origin("verify", request.origin)):
            return refused  # type: ignore[no-any-return]
        raw = await self._redis.getdel(token_key("verify", body.token))
        if raw is None:
            return reply(403, error="token")
        proven = msgspec.json.decode(raw, type=Verification)
        if not proven.user:
            made = await self._identity.create(proven.email, proven.password)
            return reply(200) if made else reply(403, error="token")
        old = await self._identity.move(proven.user, proven.email)
        if old is None:
            return reply(403, error="token")
        await self._mail.send(old, "changed_email_old", {"email": proven.email})
        return reply(200)

    # Recovery

    async def _recover(self, request: Request, body: Recover) -> Reply:
        """Send a link for a new password to who has the address. 200 {}, always; 429 `rate`."""
        rates = self._rates
        for limit in (rates.of_origin("recover", request.origin), rates.of_account("recover-account", body.email)):
            if refused := await rates.refuse(limit):
                return refused  # type: ignore[no-any-return]
        await self._write_to(normalize(body.email), "recover", {})
        return reply(200)

    async def _make_recovery(self, email: str, values: dict[str, str]) -> dict[str, str] | None:
        user = await self._identity.find(email)
        _, hashed = await self._identity.password_of(user) if user else (None, None)
        if user is None or hashed is None:
            return None
        opens = msgspec.json.encode(Recovery(user, fingerprint(hashed)))
        return {"link": await self._make_link("reset", user[:TAG] + random_text(130), opens, RESET)}

    async def _reset(self, request: Request, body: Reset) -> Reply:
        """Set a new password with the token of a mail; all sessions end. 200 {}; 403 `token`; 429 `rate`."""
        if refused := await self._rates.refuse(self._rates.of_origin("verify", request.origin)):
            return refused  # type: ignore[no-any-return]
        check_password(body.password, "", "password")
        raw = await self._redis.getdel(token_key("reset", body.token))
        if raw is None:
            return reply(403, error="token")
        recovery = msgspec.json.decode(raw, type=Recovery)
        email, hashed = await self._identity.password_of(recovery.user)
        # a password that was changed meanwhile has made the older tokens worthless
        if email is None or fingerprint(hashed or "") != recovery.fingerprint:
            return reply(403, error="token")
        await self._identity.set_password(recovery.user, await self._identity.passwords.hash(body.password))
        await self._tell_changed(email, request)
        return reply(200)

    # Changes

    async def _prove(self, request: Request, password: str) -> Reply | None:
        """The password again, before anything that changes credentials. 403 `auth`; 429 `rate`."""
        tries = ("password", request.user.id)
        if refused := await self._rates.refuse(tries):
            return refused  # type: ignore[no-any-return]
        _, hashed = await self._identity.password_of(request.user.id)
        if not await self._identity.passwords.verify(hashed, password):
            return reply(403, error="auth")
        await self._rates.forgive(tries)
        return None

    async def _change_password(self, request: Request, body: ChangePassword) -> Reply:
        """Another password; the user's other sessions end. 200 {}; 403 `auth`; 429 `rate`."""
        if refused := await self._prove(request, body.old):
            return refused
        check_password(body.new, request.user.email, "new")
        hashed = await self._identity.passwords.hash(body.new)
        await self._identity.set_password(request.user.id, hashed, keep=request.session)
        await self._tell_changed(request.user.email, request)
        return reply(200)

    async def _change_email(self, request: Request, body: ChangeEmail) -> Reply:
        """Another address, once it is verified. 200 {}; 403 `auth`; 429 `rate`."""
        if refused := await self._prove(request, body.password):
            return refused
        if refused := await self._rates.refuse(self._rates.of_account("mail", body.email)):
            return refused  # type: ignore[no-any-return]
        await self._write_to(normalize(body.email), "verify_email_change", {"user": request.user.id})
        return reply(200)

    async def _make_change(self, email: str, values: dict[str, str]) -> dict[str, str] | None:
        if await self._identity.find(email):
            await self._mail.send(email, "taken", {"link": self._address})
            return None
        opens = msgspec.json.encode(Verification(email, user=values["user"]))
        return {"link": await self._make_link("verify", random_text(130), opens, VERIFY)}

    async def _tell_changed(self, email: str, request: Request) -> None:
        await self._mail.send(email, "changed_password", {"when": now(), "origin": request.origin})

    async def _tell_new_place(self, user: str, known: Any) -> None:
        email, _ = await self._identity.password_of(user)
        if email:
            values = {"when": now(), "origin": known.origin, "browser": printable(known.browser)}
            await self._mail.send(email, "new_login", values)

    # Destruction

    async def _destroy(self, request: Request, body: Destroy) -> Reply:
        """Erase the account and all that is kept of it. 200 {}, the cookie is deleted; 403 `auth`; 429 `rate`."""
        if refused := await self._prove(request, body.password):
            return refused
        await self._identity.mark_destroying(request.user.id)
        await self._erase(request.user.id)
        await self._mail.send(request.user.email, "destroyed", {})
        return reply(200, headers=[self._identity.keeper.cookie.take()])

    async def _erase(self, user: str) -> None:
        """Erase a marked user: the application's data first, the user last, so that a cut erasure can go on."""
        await self._identity.end_sessions(user)
        for erase in self.on_destroy:
            await erase(user)
        await self._identity.forget(user)

    async def resume(self) -> None:
        """The task that ends erasures which were cut."""
        for user in await self._identity.destroying():
            await self._erase(user)
            self._notify("warning", "account.erased", user=user)


def fingerprint(hashed: str) -> str:
    """Tells whether a password hash is still the same."""
    return hashlib.blake2b(hashed.encode(), digest_size=8).hexdigest()


def now() -> str:
    """For people, in universal time."""
    return time.strftime("%d %B %Y, %H:%M UTC", time.gmtime())


def printable(text: str) -> str:
    """What a client says of itself, safe in a mail."""
    return "".join(character for character in text[:200] if character.isprintable()) or "an unknown browser"


@functools.cache
def common_passwords() -> frozenset[str]:
    """The passwords that everybody guesses first, by zxcvbn's list."""
    package = importlib.util.find_spec("zxcvbn")
    assert package is not None and package.origin is not None  # it is a dependency of ours
    # the file alone, and not for good: imported, the package would keep some 7 MB more for all time
    lists = runpy.run_path(str(Path(package.origin).with_name("frequency_lists.py")))["FREQUENCY_LISTS"]
    return frozenset(word for word in lists["passwords"] if len(word) >= 8)


def check_password(password: str, email: str, where: str) -> None:
    """Refuse common passwords and the user's own address (NIST 800-63B rev. 4, §3.1.1.2). Raises Invalid."""
    small = password.lower()
    if small in common_passwords():
        raise Invalid(where, "Is one of the most common passwords: choose another.")
    if email and small in (email.lower(), email.lower().partition("@")[0]):
        raise Invalid(where, "Is your own address: choose another.")
