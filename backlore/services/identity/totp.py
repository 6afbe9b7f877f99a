"""The second factor of an authenticator app: time-based codes (TOTP, RFC 6238: SHA-1, 6 digits, 30 seconds).

    totp:{k3f}…         string  "VERSION SECRET": the user's version, a secret that awaits its first code; ten minutes
    served:{k3f}…:STEP  string  the code of this step of 30 seconds was used by the user; two minutes

The active secret is the field `totp` of the user's hash.

Laws: the code of a step can be used only once, even on concurrent connections (RFC 6238, §5.2). A secret becomes active
when its first code is shown, in one step that also ends its waiting, and only if the user has not changed since the
password was shown. Secrets and codes appear in no log, no notification and no mail.
"""

import asyncio
import hmac
import io
import re
import time
from typing import Annotated

import pyotp

from backlore.core.keys import key
from backlore.core.payload import Payload, length
from backlore.services.identity.login import Given, Login
from backlore.services.identity.recovery import RecoveryCodes, recovery_key
from backlore.services.identity.shared import Shared
from backlore.services.identity.users import Account, Step, user_key
from backlore.services.identity.words import now
from backlore.web.reply import Reply, reply
from backlore.web.request import Request
from backlore.web.routes import Route
from backlore.web.stages import private

STEP = 30  # seconds
NEAR = 1  # steps that a clock may be off in either direction
WAITING = 600  # seconds that a secret waits for its first code
SERVED = 120  # seconds: longer than a step is accepted, and the nodes' clocks differ


def waiting_key(user: str) -> str:
    """The key of the secret that waits for its first code."""
    return key("totp", user)


def served_key(user: str, step: int) -> str:
    """The key of a step whose code was used."""
    return key("served", user, step)


class PasswordAgain(Payload):
    """`password`: the user's own, again."""

    password: Given


class FirstCode(Payload):
    code: Annotated[str, length(6, 40)]


class Totp:
    """The routes of an authenticator, and the check of codes. `issuer` is our application's name in the app."""

    name = "totp"

    def __init__(self, shared: Shared, login: Login, recovery: RecoveryCodes, issuer: str):
        self._redis = shared.redis
        self._users = shared.users
        self._sessions = shared.sessions
        self._login = login
        self._recovery = recovery
        self._mail = shared.mail
        self._rates = shared.rates
        self._issuer = issuer

    def routes(self) -> list[Route]:
        """For the route table."""
        return [
            private.get("/auth/factors", self._factors),
            private.post("/auth/totp/begin", self._begin),
            private.post("/auth/totp/confirm", self._confirm),
            private.post("/auth/totp/remove", self._remove),
            private.post("/auth/recoveryCodes", self._renew_codes),
        ]

    # For the login

    async def has(self, account: Account) -> bool:
        """Whether the user has an authenticator."""
        return account.totp != ""

    async def check(self, request: Request, account: Account, code: str) -> bool:
        """Whether a code is valid now, of the authenticator or for recovery. A valid code is used up."""
        if digits := digits_of(code):
            step = step_of(account.totp, digits)
            return step is not None and await self._serve(account.id, step)
        if not await self._recovery.take(account.id, code):
            return False
        left = await self._recovery.left(account.id)
        await self._tell(account, request, f"a recovery code was used. Recovery codes left: {left}.")
        return True

    async def _serve(self, user: str, step: int) -> bool:
        return bool(await self._redis.set(served_key(user, step), "1", nx=True, ex=SERVED))

    async def release(self, user: str) -> list[str]:
        """The keys of the waiting secret, the used steps and the recovery codes."""
        last = step_at(time.time()) + NEAR
        served = [served_key(user, step) for step in range(last - SERVED // STEP - 2 * NEAR, last + 1)]
        return [waiting_key(user), recovery_key(user), *served]

    # Routes

    async def _factors(self, request: Request) -> Reply:
        """Whether the user has a password and an authenticator, and how many recovery codes are left.

        200 {"password": bool, "totp": bool, "recoveryCodes": int}.
        """
        account = await self._users.read(request.user.id)
        if account is None:
            return reply(403, error="session")
        left = await self._recovery.left(account.id)
        return reply(200, {"password": bool(account.password), "totp": await self.has(account), "recoveryCodes": left})

    async def _begin(self, request: Request, body: PasswordAgain) -> Reply:
        """A new secret for the authenticator app, in base32, as an otpauth URI, and as a QR code in SVG.

        It waits ten minutes for its first code. 200 {"secret", "uri", "qr"}; 403 `auth`; 429 `rate`.
        """
        proven = await self._login.prove(request, body.password)
        if isinstance(proven, Reply):
            return proven
        secret = pyotp.random_base32(32)  # 160 bits (RFC 4226, §4, R6)
        await self._redis.set(waiting_key(proven.id), f"{proven.version} {secret}", ex=WAITING)
        uri = pyotp.TOTP(secret).provisioning_uri(name=request.user.email, issuer_name=self._issuer)
        return reply(200, {"secret": secret, "uri": uri, "qr": await asyncio.to_thread(qr_of, uri)})

    async def _confirm(self, request: Request, body: FirstCode) -> Reply:
        """Activate the secret with a code of it; the other sessions end.

        200 {"recoveryCodes": [...]}, ten, or none if some are left; 403 `code` or `token` (nothing begun); 429 `rate`.
        """
        account = await self._users.read(request.user.id)
        waiting = await self._redis.get(waiting_key(request.user.id)) or ""
        version, _, secret = waiting.partition(" ")
        if account is None or version != str(account.version):
            return reply(403, error="token")
        refused, taken = await self._login.limit(request, account.email, "code-device", ("code", account.id))
        if refused:
            return refused
        step = step_of(secret, digits_of(body.code))
        if step is None:
            return reply(403, error="code")
        await self._rates.forgive(*taken)
        is_first = not await self._login.factors_of(account)
        codes, kept = await self._recovery.begin(account.id, is_first)
        steps: list[Step] = [
            ("HSET", user_key(account.id), "totp", secret),
            ("DEL", waiting_key(account.id)),
            ("SET", served_key(account.id, step), "1", "EX", SERVED),
        ]
        # the other sessions were made without the factor
        if not await self._sessions.alter(request, account, *steps, *kept, alone=True):
            return reply(403, error="token")
        await self._tell(account, request, "an authenticator app was set up as your second factor.")
        return reply(200, {"recoveryCodes": codes})

    async def _remove(self, request: Request, body: PasswordAgain) -> Reply:
        """Remove the authenticator. 200 {}; 403 `auth`; 429 `rate`."""
        proven = await self._login.prove(request, body.password)
        if isinstance(proven, Reply):
            return proven
        is_last = await self._login.factors_of(proven) == [self.name]
        steps: list[Step] = [("HDEL", user_key(proven.id), "totp"), ("DEL", waiting_key(proven.id))]
        if not await self._sessions.alter(
            request, proven, *steps, *(self._recovery.drop(proven.id) if is_last else ())
        ):
            return reply(403, error="auth")
        if proven.totp:
            await self._tell(proven, request, "your authenticator app was removed.")
        return reply(200)

    async def _renew_codes(self, request: Request, body: PasswordAgain) -> Reply:
        """New recovery codes; the old ones are void.

        200 {"recoveryCodes": [...]}; 403 `auth`, `factor` (the user has no second factor); 429.
        """
        account = await self._login.prove(request, body.password)
        if isinstance(account, Reply):
            return account
        if not await self._login.factors_of(account):
            return reply(403, error="factor")
        codes, kept = self._recovery.make(account.id)
        if not await self._sessions.alter(request, account, *kept):
            return reply(403, error="auth")
        await self._tell(account, request, "new recovery codes were made; the old ones are worthless.")
        return reply(200, {"recoveryCodes": codes})

    async def _tell(self, account: Account, request: Request, what: str) -> None:
        values = {"what": what, "when": now(), "origin": request.origin}
        await self._mail.send(account.email, "changed_factors", values)


def digits_of(code: str) -> str:
    """The six digits of an authenticator's code, with or without spaces; "" for anything else."""
    close = re.sub(r"\s", "", code)
    return close if re.fullmatch("[0-9]{6}", close) else ""


def step_at(moment: float) -> int:
    """The number of the step at a time (seconds)."""
    return int(moment) // STEP


def step_of(secret: str, digits: str) -> int | None:
    """The step near now whose code this is, or None. Always None without a secret: even an empty one has codes."""
    if not secret:
        return None
    codes, here = pyotp.TOTP(secret, interval=STEP), step_at(time.time())
    # all steps are compared, each in constant time
    steps = [
        step for step in range(here - NEAR, here + NEAR + 1) if hmac.compare_digest(codes.generate_otp(step), digits)
    ]
    return steps[0] if steps else None


def qr_of(text: str) -> str:
    """A QR code as SVG: one path, sized by its place in the page."""
    import segno  # not at the top: few processes ever draw a code

    drawn = io.BytesIO()
    segno.make_qr(text, error="m").save(
        drawn, kind="svg", xmldecl=False, svgclass=None, lineclass=None, omitsize=True, nl=False
    )
    return drawn.getvalue().decode()
