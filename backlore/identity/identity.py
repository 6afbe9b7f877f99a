"""Identity as one service: wires the parts of this room, and stands for them to the outside."""

from typing import Any

from backlore.core.crypto import Passwords
from backlore.core.notify import Notify
from backlore.identity.accounts import Accounts, Whitelist
from backlore.identity.admins import Admins
from backlore.identity.login import Login
from backlore.identity.sessions import Sessions
from backlore.identity.tokens import Tokens
from backlore.identity.users import Users
from backlore.web.cookie import SignedCookie
from backlore.web.routes import Route
from backlore.web.stages import Keeper


class Identity:
    """Users, sessions and the life of accounts. `mail` and `rates` are the services of those names.

    `address` is where users reach us; `device` the cookie that knows a browser again; seconds for `idle` and `limit`.
    """

    def __init__(
        self,
        redis: Any,
        notify: Notify,
        mail: Any,
        rates: Any,
        *,
        address: str,
        device: SignedCookie,
        idle: float,
        limit: float,
        verify_email: bool,
        whitelist: list[str] | None,
        admins: list[str],
    ):
        passwords = Passwords()
        tokens = Tokens(redis)
        self.users = Users(redis, notify, admins)
        self.sessions = Sessions(redis, self.users, idle=idle, limit=limit)
        self.login = Login(redis, self.users, self.sessions, tokens, passwords, rates, device=device)
        self.accounts = Accounts(
            redis,
            notify,
            self.users,
            self.sessions,
            self.login,
            tokens,
            passwords,
            mail,
            rates,
            address=address,
            verify_email=verify_email,
            whitelist=Whitelist(whitelist),
        )
        self.admins = Admins(notify, self.users, self.sessions, self.login, self.accounts, mail)
        self.on_destroy = self.accounts.on_destroy  # erase what the application keeps of a user

    def keep(self, keeper: Keeper) -> None:
        """Take the keeper, which needs `sessions.load` before."""
        self.sessions.keeper = keeper

    def routes(self) -> list[Route]:
        """What clients call."""
        parts = (self.login, self.sessions, self.accounts, self.admins)
        return [route for part in parts for route in part.routes()]
