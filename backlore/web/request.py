"""One request: what the client sent, and who it is once the gatekeeper has passed it."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from functools import lru_cache
from pathlib import Path
from types import coroutine
from typing import Any, Protocol

import msgspec

from backlore.core.origins import UNKNOWN, Network, read_address
from backlore.web.fields import join
from backlore.web.reply import Reply

AGAIN = 5.0  # seconds after which the session of what lasts is looked at again
BLIND = 60.0  # seconds in which it need not be seen
LONGEST = 100  # characters of an address in X-Forwarded-For
UNASKED = 64 << 10  # bytes of a body that nobody takes

SIGNED = "signed-"  # what a part of a path begins with that is a signature: whoever reads it can use it

Receive = Callable[[], Awaitable[dict[str, Any]]]
Scope = dict[str, Any]
Check = Callable[[], Awaitable[Reply | None]]  # a refusal, or None


class Proxies:
    """Whom X-Forwarded-For is believed."""

    def __init__(self, networks: Sequence[Network] = ()):
        self._networks = networks
        # every request asks; those who ask are few, or strangers of whom the cache need not know
        self._known = lru_cache(1000)(self._look)

    def read(self, hop: str) -> tuple[str, bool]:
        """An address in its one form, or UNKNOWN; and whether it is a proxy's."""
        return self._known(hop) if len(hop) <= LONGEST else (UNKNOWN, False)

    def _look(self, hop: str) -> tuple[str, bool]:
        address = read_address(hop)
        if address is None:
            return UNKNOWN, False
        return str(address), any(address in network for network in self._networks)


class User(msgspec.Struct, frozen=True):
    """Whose session a request carries."""

    id: str
    email: str
    admin: bool


@coroutine
def become_task() -> Generator[None, None, None]:
    """Go on as a task of asyncio, which what waits, or asks for its task, needs.

    Our door begins a request without one, for most need none; a server that has made one loses nothing here.
    """
    if asyncio.current_task() is None:
        yield


class Disconnected(OSError):
    """The client went away before its request was complete: nobody is left to reply to."""


class Refused(Exception):
    """A gate that had let the request pass refuses it now; `answer` is the gate's."""

    def __init__(self, answer: Reply):
        super().__init__(answer.error)
        self.answer = answer


class Gated(Protocol):
    """A route, as far as a request needs it."""

    async def look_again(self, request: "Request") -> None:
        """See Request."""


def forget(work: asyncio.Future[Any]) -> None:
    """What becomes of work that was given up, nobody asks: else the loop would tell it as lost."""
    if not work.cancelled():
        work.exception()


class Request:
    """What handlers take first. `user` and `session` are set behind the gatekeeper, `parameters` by the route.

    `is_late`: bytes of the body have come after the session was looked at.
    """

    __slots__ = (
        "_also", "_first", "_is_here", "_proxies", "_receive", "_received", "_seen", "content", "exchange", "headers",
        "is_late", "method", "parameters", "path", "raw", "route", "scope", "session", "started", "uploads", "user",
    )  # fmt: skip

    user: User
    route: Gated  # whose gates it has passed

    def __init__(self, scope: Scope, receive: Receive, proxies: Proxies):
        self.started = time.time()  # seconds since the epoch
        self.scope = scope
        self._receive = receive
        self.exchange = scope.get("exchange")  # of our own door: it tells what is here
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.session = ""  # until the gatekeeper has passed it
        self.parameters: dict[str, str] = {}
        self.raw: Any = None  # the body as sent, once it was read
        self.content: Any = None  # the body as the csrf gate decoded it, and by which type
        self.uploads: list[Path] = []  # files of this request, deleted with it
        self.is_late = False
        self._first: asyncio.Future[dict[str, Any]] | None = None  # the first part of the body, once asked for
        self._received = 0  # bytes
        self._also: Check | None = None  # what else must hold
        self._is_here = False  # the whole body, when the session was looked at
        self._seen = time.monotonic()  # when the session was seen to hold
        self._proxies = proxies

    def header(self, name: str) -> str | None:
        """A header by its name in any case; lines of one name are one, joined by commas."""
        value = self.headers.get(name.lower().encode("latin-1"))
        return None if value is None else value.decode("latin-1")

    @property
    def told_path(self) -> str:
        """The path for notify: without signatures, and not of any length."""
        return re.sub(f"{SIGNED}[^/]*", f"{SIGNED}…", self.path[:500])

    @property
    def query_string(self) -> bytes:
        """The query as sent, without the question mark."""
        query: bytes = self.scope["query_string"]
        return query

    @property
    def origin(self) -> str:
        """The client's address in its one form, or `unknown`.

        From the connection; or, when that comes from a configured proxy, the last address in X-Forwarded-For
        that is no such proxy: whatever stands before it, the client can have made up.
        """
        address, is_proxy = self._peer
        forwarded = self.headers.get(b"x-forwarded-for") if is_proxy else None
        for hop in reversed(forwarded.decode("latin-1").split(",") if forwarded else ()):
            if hop.strip(" \t"):
                address, is_proxy = self._proxies.read(hop)
                if not is_proxy:
                    break
        return address

    @property
    def by_proxy(self) -> bool:
        """Whether it came through a configured proxy."""
        return self._peer[1]

    @property
    def _peer(self) -> tuple[str, bool]:
        client = self.scope.get("client")
        return self._proxies.read(client[0] if client else "")

    @property
    def declared(self) -> int:
        """The length of the body as its header says it, in bytes; -1 when it doesn't."""
        return int(self.headers.get(b"content-length", -1))

    def join_headers(self) -> None:
        """Make one of header lines of one name. Raises Repeated."""
        if len(self.headers) < len(self.scope["headers"]):
            self.headers = join(self.scope["headers"])

    async def look_again(self) -> None:
        """See that the session still holds; where none is needed, nothing happens. One command to redis.

        Call it after whatever takes long, before what must not be done for somebody who has been logged out
        meanwhile. It is done for you after a body that came late, and every few seconds while a body or a reply
        lasts. Raises Refused, which the application answers.
        """
        self.is_late = False
        if self.exchange:
            self._is_here = self.exchange.has_arrived()
        await self.route.look_again(self)
        if self._also and (refusal := await self._also()):
            raise Refused(refusal)

    def hold_to(self, check: Check) -> None:
        """This request lasts only as long as `check` gives no refusal: for what is allowed by no session."""
        self._also = check

    async def glance(self) -> None:
        """Look again in the middle of what lasts. Redis may be away for a minute: nobody can be logged out then."""
        try:
            await self.look_again()
            self._seen = time.monotonic()
        except Refused:
            raise
        except Exception:
            if time.monotonic() - self._seen > BLIND:
                raise

    def ask_for_body(self) -> None:
        """Before the session is looked at: what has come by now was there, what comes later is late."""
        if self.exchange:
            self._is_here = self.exchange.has_arrived()
            return
        headers = self.headers
        if self._first is None and headers.get(b"content-length", b"0") != b"0" and b"expect" not in headers:
            self._first = asyncio.ensure_future(self._receive())

    def was_looked_at(self) -> None:
        """The session holds: from now on what has not come of the body is late, however long it takes to ask for it."""
        if self.exchange:
            self.is_late = not self._is_here
        else:
            self.is_late = self._first is not None and not self._first.done()

    def end(self) -> None:
        """It was answered: nobody waits for its body any more."""
        if self._first is not None:
            self._first.add_done_callback(forget)
            self._first.cancel()
        for path in self.uploads:
            path.unlink(missing_ok=True)

    def take_body(self) -> bytes | None:
        """The whole body, if it was all here before the session was looked at; None if it may have to be waited for."""
        exchange = self.exchange
        if not exchange or self.is_late or self._received or not exchange.has_arrived():
            return None
        body: bytes = exchange.take_all()
        self._received = len(body)
        return body

    async def chunk(self) -> tuple[bytes, bool]:
        """The next part of the body, and whether more may come. Raises Disconnected when the client has gone."""
        message = await self.message()
        if message["type"] == "http.disconnect":
            raise Disconnected
        return message.get("body", b""), message.get("more_body", False)

    async def message(self) -> dict[str, Any]:
        """What ASGI's receive gives."""
        first, self._first = self._first, None
        if not self._is_here and first is None and self._received != self.declared:
            self.is_late = True
        message = await (first or self._receive())
        self._received += len(message.get("body", b""))
        return message

    async def wait_until_gone(self) -> Disconnected:
        """Until the client has gone away; one that goes on sending what nobody takes counts as gone."""
        before = self._received
        while (await self.message())["type"] != "http.disconnect" and self._received - before < UNASKED:
            pass
        return Disconnected()
