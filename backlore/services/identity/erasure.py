"""What ends: the ways into an account that somebody else has made, and whole accounts.

Laws: a user who is to be erased is marked first; the user's own hash goes last, so that an erasure that is cut, or of
which a part has failed, goes on by itself; one process at a time is at it. What is still written by a request that was
under way is erased once more a while later.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from backlore.clients.redis.lease import lease
from backlore.core.notify import Notify
from backlore.services.identity.needs import Mailer
from backlore.services.identity.sessions import Sessions
from backlore.services.identity.users import Account, Step, Users, user_key

Eraser = Callable[[str], Awaitable[None]]  # takes the id of a user


class Attached(Protocol):
    """What lets a user in beside the password, and is kept apart from the user's hash."""

    async def release(self, user: str) -> list[str]:
        """Delete what of it lies elsewhere; the keys of what lies with the user, which one step deletes."""


class Erasure:
    """Takes off factors, and erases accounts. `mail` is the service of that name."""

    def __init__(self, redis: Any, notify: Notify, users: Users, sessions: Sessions, mail: Mailer):
        self.on_destroy: list[Eraser] = []  # erase what the application keeps of a user
        self.attached: list[Attached] = []  # given by the identity
        self._redis = redis
        self._notify = notify
        self._users = users
        self._sessions = sessions
        self._mail = mail

    async def detach(self, account: Account, *steps: Step, keep: str | None = None) -> int:
        """Take off all that is attached, with more steps, in one; the new version, or 0. As `Users.alter`.

        Whoever has shown any of it before begins no session any more.
        """
        keys = await self._release(account.id)
        taken = ("HDEL", user_key(account.id), "totp")
        return await self._users.alter(account, taken, *(("DEL", each) for each in keys), *steps, keep=keep)

    async def destroy(self, account: Account, asker: str = "") -> bool:
        """Erase a user and all that is kept of it; what is cut goes on by itself. False as `Users.mark_destroying`."""
        if not await self._users.mark_destroying(account, asker):
            return False
        await self._erase(account.id)
        return True

    async def resume(self) -> None:
        """The task that ends erasures which were cut, and erases what has come since."""
        for user in await self._users.cut_erasures():
            if await self._erase(user):
                self._notify("warning", "account.erased", user=user)
        for user in await self._users.erased():
            await self._erase(user)

    async def _erase(self, user: str) -> bool:
        """Erase a marked user, unless another process is at it; whether nothing is left."""
        async with lease(self._redis, user, "erasing") as held:
            return held and await self._erase_all(user)

    async def _erase_all(self, user: str) -> bool:
        """The application's data first, the user last. One eraser that fails stops no other."""
        is_whole = True
        for erase in (self._sessions.end_all, *self.on_destroy):
            try:
                await erase(user)
            except Exception as error:
                name = getattr(erase, "__qualname__", repr(erase))
                self._notify("error", "account.not_erased", user=user, eraser=name, error=error)
                is_whole = False
        if not is_whole:
            return False
        account = await self._users.read(user)
        await self._users.forget(user, await self._release(user))
        if account:
            await self._mail.send(account.email, "destroyed", {})
        return True

    async def _release(self, user: str) -> list[str]:
        return [key for each in self.attached for key in await each.release(user)]
