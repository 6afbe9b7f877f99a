"""What identity needs of the mail and rates services, which it doesn't import."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

from backlore.web.reply import Reply
from backlore.web.request import Request

T = TypeVar("T")
Limit = tuple[str, str]  # a kind, and whom it limits


Maker = Callable[[str, dict[str, str]], Awaitable[dict[str, str] | None]]


class Mailer(Protocol):
    """Sends letters. `makers`, by the letter's name, make the values when it leaves; None drops it."""

    makers: dict[str, Maker]

    async def send(self, to: str, name: str, values: Mapping[str, str] | None = None) -> None:
        """Send the letter of this name, with these values. Returns once it can't be lost."""


class Limiter(Protocol):
    """Limits attempts. `Rates` describes the methods."""

    def of_origin(self, kind: str, address: str) -> Limit: ...

    def of_account(self, kind: str, email: str) -> Limit: ...

    def of_attempt(self, kind: str, address: str, email: str) -> Limit: ...

    def by_origin(self, kind: str) -> Callable[[Request], Awaitable[Reply | None]]: ...

    async def refuse(self, *limits: Limit) -> Reply | None: ...

    async def forgive(self, *limits: Limit) -> None: ...

    async def unless_busy(self, work: Awaitable[T], *taken: Limit) -> T: ...
