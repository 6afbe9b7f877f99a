"""Identity as one service: wires the parts of this package, and represents them to the outside."""

from typing import Any

from backlore.clients.oidc.provider import Provider
from backlore.core.config import Settings
from backlore.core.crypto import Passwords
from backlore.core.notify import Notify
from backlore.core.stamps import Stamps
from backlore.services.identity.accounts import Accounts
from backlore.services.identity.admins import Admins
from backlore.services.identity.ceremony import RelyingParty
from backlore.services.identity.erasure import Erasure
from backlore.services.identity.login import Login
from backlore.services.identity.needs import Limiter, Mailer
from backlore.services.identity.openid import OpenID
from backlore.services.identity.passkeys import Passkeys
from backlore.services.identity.recovery import RecoveryCodes
from backlore.services.identity.sessions import Sessions
from backlore.services.identity.tokens import Tokens
from backlore.services.identity.totp import Totp
from backlore.services.identity.users import Users
from backlore.services.identity.whitelist import Whitelist
from backlore.web.cookie import SignedCookie
from backlore.web.limits import SMALL
from backlore.web.routes import Route
from backlore.web.stages import Keeper


class Identity:
    """Users, sessions and the life of accounts, as the settings say. Users may sign in by the `providers`."""

    def __init__(
        self, redis: Any, notify: Notify, mail: Mailer, rates: Limiter, settings: Settings, providers: list[Provider]
    ):
        config, address, name = settings.config, settings.address, settings.config.name.capitalize()
        whitelist = Whitelist(config.whitelist)
        stamps = Stamps(settings.data / "stamps")

        def cookie(purpose: str) -> SignedCookie:
            return SignedCookie(f"{settings.cookie}-{purpose}", settings.secret.cookie, config.secure, purpose)

        passwords = Passwords()
        tokens, recovery = Tokens(redis), RecoveryCodes(redis)
        self.users = Users(redis, notify, stamps, config.admins)
        self.sessions = Sessions(
            redis,
            self.users,
            device=cookie("device"),  # it recognizes a browser
            idle=config.session_idle,
            limit=config.session_limit,
            memory=settings.session_memory,
        )
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
            verify_email=settings.verify_email,
            whitelist=whitelist,
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
            cookie=cookie("openid"),  # it binds a sign-in to a browser
            providers=providers,
            whitelist=whitelist,
        )
        self.erasure.attached.append(self.openid)
        self.totp = Totp(redis, self.users, self.sessions, self.login, recovery, mail, rates, issuer=name)
        self.login.factors.append(self.totp)
        self.login.codes = self.totp
        self.erasure.attached.append(self.totp)
        self.admins = Admins(notify, self.users, self.sessions, self.login, self.erasure, mail)
        self.on_destroy = self.erasure.on_destroy  # erase what the application keeps of a user

    def keep(self, keeper: Keeper) -> None:
        """Set the keeper, which itself needs `sessions.load`."""
        self.sessions.keeper = keeper

    def routes(self) -> list[Route]:
        """For the route table."""
        parts = (self.login, self.sessions, self.accounts, self.passkeys, self.totp, self.openid, self.admins)
        routes = [route for part in parts for route in part.routes()]
        for route in routes:
            route.most = SMALL
        return routes
