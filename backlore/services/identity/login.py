"""Logging in: a password, then a second factor if the user has one.

    pending:{x0z}ADDR  string  password hash of the last signup that waits for its verification; an hour

Laws: known and unknown addresses get the same reply in the same time. Guesses are limited per account and origin, so
that nobody can lock another user out. The browsers in which a user has logged in before share a limit of their own, so
that the owner gets in while somebody guesses from the same address (device cookies, OWASP Authentication Cheat Sheet).
If a user has a second factor the password alone gives only a ticket.
"""

from typing import Annotated, Protocol

import msgspec

from backlore.core.addresses import normalize
from backlore.core.crypto import random_text
from backlore.core.keys import key
from backlore.core.payload import Payload, length
from backlore.services.identity.directory import tag_of
from backlore.services.identity.needs import Limit
from backlore.services.identity.shared import Shared
from backlore.services.identity.users import Account
from backlore.web.reply import Reply, reply
from backlore.web.request import Request
from backlore.web.routes import Route
from backlore.web.stages import auth

TICKET = 600  # seconds between the password and the second factor, at most

Given = Annotated[str, length(1, 128)]  # a password to compare with
TokenText = Annotated[str, length(1, 100)]


def pending_key(email: str) -> str:
    """The key of the signup that waits for this address to be verified."""
    return key("pending", tag_of(email) + email)


class LogIn(Payload):
    email: Annotated[str, length(1, 254)]
    password: Given


class SecondFactor(Payload):
    """`code`: of the authenticator, or a recovery code."""

    ticket: TokenText
    code: Annotated[str, length(6, 40)]


class Ticket(msgspec.Struct):
    """The user who has shown the first factor, and the version that the user had then."""

    user: str
    version: int


class Factor(Protocol):
    """A kind of second factor that a user may have."""

    name: str

    async def has(self, account: Account) -> bool:
        """Whether the user has one of this kind."""


class Codes(Protocol):
    """Checks codes of a second factor."""

    async def check(self, request: Request, account: Account, code: str) -> bool:
        """Whether the code is valid now. A valid code is used up."""


class Login:
    """The ways in. `rates` is the service of that name."""

    def __init__(self, shared: Shared):
        self.factors: list[Factor] = []  # both set by the identity
        self.codes: Codes
        self._redis = shared.redis
        self._users = shared.users
        self._sessions = shared.sessions
        self._tokens = shared.tokens
        self._passwords = shared.passwords
        self._rates = shared.rates

    def routes(self) -> list[Route]:
        """For the route table."""
        # the body names the account; the limits for accounts are taken after it was read
        knock = self._rates.by_origin("knock")
        return [
            auth.post("/auth/login", self._login, limit=knock),
            auth.post("/auth/second", self._second, limit=knock),
        ]

    # What the other ways in share

    async def admit(self, request: Request, account: Account) -> Reply:
        """Let a user in who has shown the first factor, or ask for the second one.

        200 {"csrf"} and the cookies; 403 `second` {"ticket", "factors"}; 403 `auth` if the user may not log in.
        """
        if factors := await self.factors_of(account):
            ticket = await self._tokens.make("ticket", Ticket(account.id, account.version), TICKET, account.id)
            return reply(403, {"ticket": ticket, "factors": factors}, error="second")
        return await self.let_in(request, account)

    async def factors_of(self, account: Account) -> list[str]:
        """The kinds of second factors that a user has."""
        return [factor.name for factor in self.factors if await factor.has(account)]

    async def let_in(self, request: Request, account: Account) -> Reply:
        """Begin a session for a user who has shown all factors. 200 {"csrf"} and the cookies; 403 `auth`.

        The browser's previous session ends: nothing else would end it.
        """
        browser, device = request.header("user-agent") or "", self._sessions.device_of(request)
        is_known = await self._sessions.knows(account.id, device)
        if not is_known:
            device = random_text(130)
        session = await self._sessions.begin(account, request.origin, browser, device, is_known=is_known)
        if session is None:
            return reply(403, error="auth")
        if brought := await self._sessions.of_browser(request):
            await self._sessions.end(brought[1].id, brought[0])
        keeper = self._sessions.keeper
        cookies = [keeper.cookie.give(session)]
        if not is_known:
            cookies.append(self._sessions.device.give(device))
        return reply(200, {"csrf": keeper.token_of(session)}, headers=cookies)

    async def holder(self, ticket: str) -> Account | None:
        """The user of a ticket; None if it is void, or the user has changed since the first factor was shown."""
        found = await self._tokens.look("ticket", ticket, Ticket)
        account = await self._users.read(found.user) if found else None
        return account if found and account and not account.state and account.version == found.version else None

    async def redeem(self, request: Request, ticket: str) -> Reply:
        """Let a user in who has shown the second factor, too. As `let_in`; 403 `token` if the ticket is used up."""
        account = await self.holder(ticket)
        if account is None or await self._tokens.take("ticket", ticket, Ticket) is None:
            return reply(403, error="token")
        return await self.let_in(request, account)

    async def limit(
        self, request: Request, email: str, device_kind: str, *limits: Limit
    ) -> tuple[Reply | None, tuple[Limit, ...]]:
        """Take from the limits, or else from that of known browsers. The refusal or None, and what was taken."""
        refused = await self._rates.refuse(*limits)
        user = await self._known_user(request, email) if refused else ""
        if user:
            limits = ((device_kind, user),)
            refused = await self._rates.refuse(*limits)
        return refused, limits

    async def _known_user(self, request: Request, email: str) -> str:
        """The user who has an address, if that user has logged in from this browser before; else ""."""
        device = self._sessions.device_of(request)
        account = await self._users.find(email) if device else None
        return account.id if account and await self._sessions.knows(account.id, device) else ""

    async def hold_pending(self, email: str, hashed: str, seconds: int) -> None:
        """Remember a signup that waits for its verification, so that a login can reply `verify`."""
        await self._redis.set(pending_key(email), hashed, ex=seconds)

    async def drop_pending(self, email: str, hashed: str) -> None:
        """Drop a signup that was verified. One by somebody else stays, so that its login doesn't reveal this."""
        if await self._redis.get(pending_key(email)) == hashed:
            await self._redis.delete(pending_key(email))

    async def prove(self, request: Request, password: str) -> Account | Reply:
        """Check the password again, before a change of credentials. Returns the current user, for `Sessions.alter`.

        Else 403 `auth`; 429 `rate`.
        """
        tries = ("password", request.user.id)
        if refused := await self._rates.refuse(tries):
            return refused
        account = await self._users.read(request.user.id)
        if account is None or account.state:
            return reply(403, error="auth")
        checking = self._passwords.verify(account.password, password, account.id)
        if not await self._rates.unless_busy(checking, tries):
            return reply(403, error="auth")
        await self._rates.forgive(tries)
        return account

    # Routes

    async def _login(self, request: Request, body: LogIn) -> Reply:
        """Begin a session. A user with a second factor gets a ticket for it.

        200 {"csrf"} and the cookie; 403 `auth`, `verify` (a signup not yet verified), `second` {ticket, factors}; 429.
        """
        rates, email = self._rates, normalize(body.email)
        tries = (rates.of_origin("login", request.origin), rates.of_attempt("login-account", request.origin, email))
        refused, taken = await self.limit(request, email, "login-device", *tries)
        if refused:
            return refused
        account, pending = await self._users.find(email), await self._redis.get(pending_key(email))
        hashed, whose = account.password if account and not account.state else "", taken[0][1]
        fits = await rates.unless_busy(self._passwords.verify(hashed, body.password, whose), *taken)
        # the password of a pending signup always gets `verify`, even if somebody else has an account for the address
        waits = pending and not fits
        if waits:
            waits = await rates.unless_busy(self._passwords.verify(pending, body.password, whose), *taken)
        if not fits and not waits:
            return reply(403, error="auth")
        await rates.forgive(*taken)
        if account is None or not fits:
            return reply(403, error="verify")
        return await self.admit(request, await self._renewed(account, body.password))

    async def _renewed(self, account: Account, password: str) -> Account:
        """The user whose password was right. An outdated hash is made anew with today's parameters."""
        if not self._passwords.is_outdated(account.password):
            return account
        hashed = await self._passwords.hash(password, account.id)
        await self._users.change(account.id, "password", account.password, hashed)
        # another login at the same time may have done it instead
        renewed = await self._users.read(account.id)
        return renewed if renewed and await self._passwords.verify(renewed.password, password, account.id) else account

    async def _second(self, request: Request, body: SecondFactor) -> Reply:
        """Show the second factor by a code of the authenticator, or a recovery code.

        200 {"csrf": str} and the cookie; 403 `code`, `token` (the ticket has ended); 429 `rate`.
        """
        account = await self.holder(body.ticket)
        if account is None:
            return reply(403, error="token")
        refused, taken = await self.limit(request, account.email, "code-device", ("code", account.id))
        if refused:
            return refused
        if not await self.codes.check(request, account, body.code):
            return reply(403, error="code")
        await self._rates.forgive(*taken)
        return await self.redeem(request, body.ticket)
