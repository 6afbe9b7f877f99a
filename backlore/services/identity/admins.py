"""What admins can do with users: see, disable, enable, end their sessions, mail them a reset, destroy, make admins.

Laws: an admin never sees or sets a password, a factor or a session's secret. No admins act on their own accounts: the
last one can't lock everybody out. Each act is told to notify, with the admin and the user. Right before an act the
session is loaded again, to see that it has not ended and is still an admin's: the act can't be one step with that,
since it writes to another partition.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

import msgspec

from backlore.core.addresses import normalize
from backlore.core.payload import Payload, between, length
from backlore.services.identity.erasure import Erasure
from backlore.services.identity.login import Login
from backlore.services.identity.shared import Shared
from backlore.services.identity.users import Account
from backlore.services.identity.words import now
from backlore.web.reply import Reply, reply
from backlore.web.request import Request
from backlore.web.routes import Route
from backlore.web.stages import admin


class Listing(Payload):
    """Which users: `search` is a part of the address, `after` comes from the previous page."""

    search: Annotated[str, length(0, 254)] = ""
    sort: Literal["email", "created"] = "created"
    after: Annotated[str, length(0, 400)] = ""
    limit: Annotated[int, between(1, 100)] = 50


class Flag(Payload):
    admin: bool


class UserShown(msgspec.Struct):
    """A user as admins see them."""

    id: str
    email: str
    created: int
    admin: bool
    verified: bool
    state: str  # "active", "disabled" or "destroying"
    has_password: bool
    factors: list[str]


class Admins:
    """The routes for admins, and the same acts for the command line."""

    def __init__(self, shared: Shared, login: Login, erasure: Erasure):
        self._notify = shared.notify
        self._users = shared.users
        self._sessions = shared.sessions
        self._login = login
        self._erasure = erasure
        self._mail = shared.mail

    def routes(self) -> list[Route]:
        """For the route table."""
        return [
            admin.get("/admin/users", self._list),
            admin.get("/admin/users/{id}", self._show),
            admin.post("/admin/users/{id}/disable", self._disable),
            admin.post("/admin/users/{id}/enable", self._enable),
            admin.post("/admin/users/{id}/endSessions", self._end_sessions),
            admin.post("/admin/users/{id}/reset", self._reset),
            admin.post("/admin/users/{id}/removeFactors", self._remove_factors),
            admin.post("/admin/users/{id}/admin", self._flag),
            admin.post("/admin/users/{id}/destroy", self._destroy),
        ]

    # The acts

    async def show(self, account: Account) -> UserShown:
        """What an admin may know of a user."""
        return UserShown(
            id=account.id,
            email=account.email,
            created=account.created,
            admin=self._users.is_admin(account.email, account.flagged),
            verified=account.verified,
            state=account.state or "active",
            has_password=bool(account.password),
            factors=await self._login.factors_of(account),
        )

    async def disable(self, account: Account) -> None:
        """Refuse the user's logins, and end all their sessions."""
        await self._users.change(account.id, "state", "", "disabled")
        await self._sessions.end_all(account.id)

    async def enable(self, account: Account) -> None:
        """Let a disabled user log in again."""
        await self._users.change(account.id, "state", "disabled", "")

    async def end_sessions(self, account: Account) -> None:
        """End all sessions: the user must log in again everywhere."""
        await self._sessions.end_all(account.id)

    async def reset(self, account: Account) -> None:
        """Mail the user a link for a new password."""
        await self._mail.send(account.email, "recover", {})

    async def remove_factors(self, account: Account) -> None:
        """Remove all second factors and passkeys of a user who lost device and recovery codes, and mail the user.

        The password alone logs in then.
        """
        found: Account | None = account
        while found and not await self._erasure.detach(found):
            found = await self._users.read(account.id)  # it has changed meanwhile
        values = {"what": "an administrator has taken off your second factors and passkeys.", "when": now()}
        await self._mail.send(account.email, "changed_factors", values | {"origin": "our administration"})

    async def set_admin(self, account: Account, flag: bool) -> None:
        """Make the user an admin, or no longer one; addresses in the configuration stay admins."""
        await self._users.change(account.id, "admin", "1" if account.flagged else "", "1" if flag else "")

    async def destroy(self, account: Account) -> None:
        """Erase the user and all their data."""
        found: Account | None = account
        while found and not await self._erasure.destroy(found):
            found = await self._users.read(account.id)  # it has changed meanwhile

    # Routes

    async def _list(self, request: Request, query: Listing) -> Reply:
        """Users with `search` in their address, sorted by `created` (newest first) or `email`, a page at a time.

        `after` leads to the next page; it is "" at the end. 200 {"users": [{id, email, created, admin, verified, state,
        has_password, factors}], "after": str, "total": int}.
        """
        page = await self._users.list(query.sort, normalize(query.search), query.after, query.limit)
        shown = [await self.show(account) for account in page.users]
        return reply(200, {"users": shown, "after": page.after, "total": await self._users.count()})

    async def _show(self, request: Request, id: str) -> Reply:
        """One user. 200 {"user": {...}, "sessions": [{id, created, used, origin, browser}]}; 404 `user`."""
        account = await self._users.read(id)
        if account is None:
            return reply(404, error="user")
        sessions = [living for _, living in await self._sessions.of(id)]
        return reply(200, {"user": await self.show(account), "sessions": sessions})

    async def _disable(self, request: Request, id: str) -> Reply:
        """Refuse the user's logins and end their sessions. 200 {}; 403 `self`; 404 `user`."""
        return await self._act(request, id, self.disable)

    async def _enable(self, request: Request, id: str) -> Reply:
        """Let a disabled user log in again. 200 {}; 403 `self`; 404 `user`."""
        return await self._act(request, id, self.enable)

    async def _end_sessions(self, request: Request, id: str) -> Reply:
        """End all sessions of the user. 200 {}; 403 `self`; 404 `user`."""
        return await self._act(request, id, self.end_sessions)

    async def _reset(self, request: Request, id: str) -> Reply:
        """Mail the user a link for a new password. 200 {}; 403 `self`; 404 `user`."""
        return await self._act(request, id, self.reset)

    async def _remove_factors(self, request: Request, id: str) -> Reply:
        """Remove second factors and passkeys of a user who has lost device and recovery codes, and mail the user.

        200 {}; 403 `self`; 404 `user`.
        """
        return await self._act(request, id, self.remove_factors)

    async def _flag(self, request: Request, id: str, body: Flag) -> Reply:
        """Make the user an admin, or no longer one. 200 {}; 403 `self`; 404 `user`."""
        return await self._act(request, id, self.set_admin, body.admin)

    async def _destroy(self, request: Request, id: str) -> Reply:
        """Erase the user and all their data. 200 {}; 403 `self`; 404 `user`."""
        return await self._act(request, id, self.destroy)

    async def _act(self, request: Request, id: str, act: Callable[..., Awaitable[object]], *arguments: object) -> Reply:
        if id == request.user.id:
            return reply(403, error="self")
        account = await self._users.read(id)
        if account is None:
            return reply(404, error="user")
        asking = await self._sessions.load(request.session)
        if asking is None or not asking.admin:
            return reply(403, error="admin" if asking else "session")
        await act(account, *arguments)
        self._notify("warning", f"admin.{act.__name__}", admin=request.user.id, user=id, origin=request.origin)
        return reply(200)
