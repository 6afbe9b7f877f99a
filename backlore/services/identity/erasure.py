"""Removes the ways to log in that somebody has attached to an account, and erases whole accounts.

Laws: a user who is to be erased is marked first, and the user's own hash goes last. So an erasure that was interrupted
or failed in part continues by itself. Only one process at a time erases a user. A request in flight may still write
data of the user: that is erased in a second pass a while later.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from backlore.clients.redis.lease import lease
from backlore.services.identity.shared import Shared
from backlore.services.identity.users import Account, Step, user_key

Eraser = Callable[[str], Awaitable[None]]  # takes the id of a user


class Attached(Protocol):
    """A way to log in besides the password that is stored outside the user's hash."""

    async def release(self, user: str) -> list[str]:
        """Delete its data in other partitions. Returns its keys in the user's partition, which one step deletes."""


class Erasure:
    """Removes factors, and erases accounts. `mail` is the service of that name."""

    def __init__(self, shared: Shared):
        self.on_destroy: list[Eraser] = []  # erase what the application keeps of a user
        self.attached: list[Attached] = []  # given by the identity
        self._redis = shared.redis
        self._notify = shared.notify
        self._users = shared.users
        self._sessions = shared.sessions
        self._mail = shared.mail

    async def detach(self, account: Account, *steps: Step, keep: str | None = None) -> int:
        """Remove all that is attached, with more steps, in one step. Returns the new version or 0, as `Users.alter`.

        A login that has shown any of it before can no longer begin a session.
        """
        keys = await self._release(account.id)
        taken = ("HDEL", user_key(account.id), "totp")
        return await self._users.alter(account, taken, *(("DEL", each) for each in keys), *steps, keep=keep)

    async def destroy(self, account: Account, asker: str = "") -> bool:
        """Erase a user and all their data. If interrupted, it continues by itself. False as `Users.mark_destroying`."""
        if not await self._users.mark_destroying(account, asker):
            return False
        await self._erase(account.id)
        return True

    async def resume(self) -> None:
        """The periodic task: finishes interrupted erasures, and makes the second pass over erased users."""
        for user in await self._users.cut_erasures():
            if await self._erase(user):
                self._notify("warning", "account.erased", user=user)
        for user in await self._users.erased():
            await self._erase(user)

    async def _erase(self, user: str) -> bool:
        """Erase a marked user, unless another process does. Returns whether nothing is left."""
        async with lease(self._redis, user, "erasing") as held:
            return held and await self._erase_all(user)

    async def _erase_all(self, user: str) -> bool:
        """Erase the sessions and the application's data first, the user last. An eraser that fails stops no other."""
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
