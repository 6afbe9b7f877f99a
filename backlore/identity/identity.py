"""Identity as one service: wires the parts of this room, and stands for them to the outside."""

from typing import Any

from backlore.clients.oidc import Provider
from backlore.core.crypto import Passwords
from backlore.core.notify import Notify
from backlore.core.stamps import Stamps
from backlore.identity.accounts import Accounts
from backlore.identity.admins import Admins
from backlore.identity.ceremony import RelyingParty
from backlore.identity.erasure import Erasure
from backlore.identity.login import Login
from backlore.identity.openid import OpenID
from backlore.identity.passkeys import Passkeys
from backlore.identity.recovery import RecoveryCodes
from backlore.identity.sessions import Sessions
from backlore.identity.tokens import Tokens
from backlore.identity.totp import Totp
from backlore.identity.users import Users
from backlore.identity.whitelist import Whitelist
from backlore.web.cookie import SignedCookie
from backlore.web.limits import SMALL
from backlore.web.routes import Route
from backlore.web.stages import Keeper


class Identity:
    """Users, sessions and the life of accounts. `mail` and `rates` are the services of those names.

    `name` is ours to users; `address` where they reach us; `device` the cookie that knows a browser again;
    `openid` the one that binds a sign-in by one of the `providers` to it; seconds for `idle`, `limit`
    and `memory`.
    """

    def __init__(
        self,
        redis: Any,
        notify: Notify,
        mail: Any,
        rates: Any,
        *,
        name: str,
        address: str,
        device: SignedCookie,
        openid: SignedCookie,
        providers: list[Provider],
        idle: float,
        limit: float,
        memory: float,
        stamps: Stamps,
        verify_email: bool,
        whitelist: list[str] | None,
        admins: list[str],
    ):
        passwords = Passwords()
        tokens, recovery = Tokens(redis), RecoveryCodes(redis)
        self.users = Users(redis, notify, stamps, admins)
        self.sessions = Sessions(redis, self.users, device=device, idle=idle, limit=limit, memory=memory)
        self.login = Login(redis, self.users, self.sessions, tokens, passwords, rates)
        self.erasure = Erasure(redis, notify, self.users, self.sessions, mail)
        self.accounts = Accounts(
            redis,
            self.users,
            self.sessions,
            self.login,
            self.erasure,
            tokens,
            passwords,
            mail,
            rates,
            name=name,
            address=address,
            verify_email=verify_email,
            whitelist=Whitelist(whitelist),
        )
        self.passkeys = Passkeys(
            redis,
            notify,
            self.users,
            self.sessions,
            self.login,
            tokens,
            recovery,
            mail,
            rates,
            RelyingParty(address, name),
        )
        self.login.factors.append(self.passkeys)
        self.erasure.attached.append(self.passkeys)
        self.openid = OpenID(
            redis,
            notify,
            self.users,
            self.sessions,
            tokens,
            self.login,
            self.accounts,
            mail,
            rates,
            cookie=openid,
            providers=providers,
            whitelist=Whitelist(whitelist),
        )
        self.erasure.attached.append(self.openid)
        self.totp = Totp(redis, self.users, self.sessions, self.login, recovery, mail, rates, issuer=name)
        self.login.factors.append(self.totp)
        self.login.codes = self.totp
        self.erasure.attached.append(self.totp)
        self.admins = Admins(notify, self.users, self.sessions, self.login, self.erasure, mail)
        self.on_destroy = self.erasure.on_destroy  # erase what the application keeps of a user

    def keep(self, keeper: Keeper) -> None:
        """Take the keeper, which needs `sessions.load` before."""
        self.sessions.keeper = keeper

    def routes(self) -> list[Route]:
        """What clients call."""
        parts = (self.login, self.sessions, self.accounts, self.passkeys, self.totp, self.openid, self.admins)
        routes = [route for part in parts for route in part.routes()]
        for route in routes:
            route.most = SMALL
        return routes
