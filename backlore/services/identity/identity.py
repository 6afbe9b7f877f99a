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
from backlore.services.identity.shared import Shared
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
        config, name = settings.config, settings.config.name.capitalize()
        whitelist = Whitelist(config.whitelist)
        stamps = Stamps(settings.data / "stamps")

        def cookie(purpose: str) -> SignedCookie:
            return SignedCookie(f"{settings.cookie}-{purpose}", settings.secret.cookie, config.secure, purpose)

        self.users = Users(redis, notify, stamps, config.admins)
        self.sessions = Sessions(
            redis,
            self.users,
            device=cookie("device"),  # it recognizes a browser
            idle=config.session_idle,
            limit=config.session_limit,
            memory=settings.session_memory,
        )
        shared = Shared(redis, notify, self.users, self.sessions, Tokens(redis), Passwords(), mail, rates)
        recovery = RecoveryCodes(redis)
        self.login = Login(shared)
        self.erasure = Erasure(shared)
        self.accounts = Accounts(shared, self.login, self.erasure, settings, whitelist)
        self.passkeys = Passkeys(shared, self.login, recovery, RelyingParty(settings.address, name))
        self.openid = OpenID(
            shared,
            self.login,
            self.accounts,
            cookie=cookie("openid"),  # it binds a sign-in to a browser
            providers=providers,
            whitelist=whitelist,
        )
        self.totp = Totp(shared, self.login, recovery, issuer=name)
        self.login.factors += [self.passkeys, self.totp]
        self.login.codes = self.totp
        self.erasure.attached += [self.passkeys, self.openid, self.totp]
        self.admins = Admins(shared, self.login, self.erasure)
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
