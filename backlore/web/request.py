"""One request: what the client sent, and whose it is once it has passed the gatekeeper."""

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

AGAIN = 5.0  # seconds between checks of the session during a long body or reply
BLIND = 60.0  # seconds for which such a check may fail because redis is away
LONGEST = 100  # characters of an address in X-Forwarded-For
UNASKED = 64 << 10  # bytes of a body that nobody reads, after which the client counts as gone

SIGNED = "signed-"  # the prefix of a path segment that is a signature: anybody who reads it could use it

Receive = Callable[[], Awaitable[dict[str, Any]]]
Scope = dict[str, Any]
Check = Callable[[], Awaitable[Reply | None]]  # a refusal, or None


class Proxies:
    """The proxies whose X-Forwarded-For is trusted."""

    def __init__(self, networks: Sequence[Network] = ()):
        self._networks = networks
        # every request calls `read`: mostly for the same few addresses, and a stranger's need not stay in the cache
        self._known = lru_cache(1000)(self._look)

    def read(self, hop: str) -> tuple[str, bool]:
        """The address in its one form, or UNKNOWN; and whether it is a configured proxy's."""
        return self._known(hop) if len(hop) <= LONGEST else (UNKNOWN, False)

    def _look(self, hop: str) -> tuple[str, bool]:
        address = read_address(hop)
        if address is None:
            return UNKNOWN, False
        return str(address), any(address in network for network in self._networks)


class User(msgspec.Struct, frozen=True):
    """The user whose session a request carries."""

    id: str
    email: str
    admin: bool


@coroutine
def become_task() -> Generator[None, None, None]:
    """Continue as an asyncio task: code that waits, or asks for the current task, needs one.

    Our door starts a request without a task, because most need none. Under a server that made one this does nothing.
    """
    if asyncio.current_task() is None:
        yield


class Disconnected(OSError):
    """The client went away before its request was complete: there is nobody to reply to."""


class Refused(Exception):
    """A gate that had let the request pass refuses it now; `answer` is the gate's reply."""

    def __init__(self, answer: Reply):
        super().__init__(answer.error)
        self.answer = answer


class Gated(Protocol):
    """A route, as far as a request needs it."""

    async def look_again(self, request: "Request") -> None:
        """See Request."""


def forget(work: asyncio.Future[Any]) -> None:
    """Retrieve the exception of abandoned work, so that the loop doesn't report it as never retrieved."""
    if not work.cancelled():
        work.exception()


class Request:
    """The first argument of every handler. The gatekeeper sets `user` and `session`, the route sets `parameters`.

    `is_late`: bytes of the body have arrived since the session was checked.
    """

    __slots__ = (
        "_also", "_first", "_is_here", "_proxies", "_receive", "_received", "_seen", "content", "exchange", "headers",
        "is_late", "method", "parameters", "path", "raw", "route", "scope", "session", "started", "uploads", "user",
    )  # fmt: skip

    user: User
    route: Gated  # the route whose gates it has passed

    def __init__(self, scope: Scope, receive: Receive, proxies: Proxies):
        self.started = time.time()  # seconds since the epoch
        self.scope = scope
        self._receive = receive
        self.exchange = scope.get("exchange")  # of our own door: knows what has arrived
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.session = ""  # until the gatekeeper has passed it
        self.parameters: dict[str, str] = {}
        self.raw: Any = None  # the body as sent, once it was read
        self.content: Any = None  # the Body with which the csrf gate decoded it, and the result
        self.uploads: list[Path] = []  # files of this request, deleted with it
        self.is_late = False
        self._first: asyncio.Future[dict[str, Any]] | None = None  # the first part of the body, once asked for
        self._received = 0  # bytes
        self._also: Check | None = None  # a further check, beside the session
        self._is_here = False  # whether the whole body was here when the session was checked
        self._seen = time.monotonic()  # when the session was last known to hold
        self._proxies = proxies

    def header(self, name: str) -> str | None:
        """The value of a header, None without it. The name may be in any case. Repeated lines are joined by commas."""
        value = self.headers.get(name.lower().encode("latin-1"))
        return None if value is None else value.decode("latin-1")

    @property
    def told_path(self) -> str:
        """The path for notify: without signatures, and at most 500 characters long."""
        return re.sub(f"{SIGNED}[^/]*", f"{SIGNED}…", self.path[:500])

    @property
    def query_string(self) -> bytes:
        """The query as sent, without the question mark."""
        query: bytes = self.scope["query_string"]
        return query

    @property
    def origin(self) -> str:
        """The client's address in its one form, or `unknown`.

        It is the connection's address; or, if that is a configured proxy's, the last address in X-Forwarded-For that
        is no such proxy's. The client may have made up everything before it.
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
        """Whether the request came through a configured proxy."""
        return self._peer[1]

    @property
    def _peer(self) -> tuple[str, bool]:
        client = self.scope.get("client")
        return self._proxies.read(client[0] if client else "")

    @property
    def declared(self) -> int:
        """The length of the body in bytes, as content-length declares it; -1 without that header."""
        return int(self.headers.get(b"content-length", -1))

    def join_headers(self) -> None:
        """Join repeated header lines into one. Raises Repeated."""
        if len(self.headers) < len(self.scope["headers"]):
            self.headers = join(self.scope["headers"])

    async def look_again(self) -> None:
        """Check that the session still holds, with at most one command to redis, and what `hold_to` was given.

        Call it after a long wait, before an action that must not be done for a user who has been logged out
        meanwhile. It is called for you after a body that arrived late, and every few seconds during a body or a reply.
        Raises Refused; the application then sends the gate's reply.
        """
        self.is_late = False
        if self.exchange:
            self._is_here = self.exchange.has_arrived()
        await self.route.look_again(self)
        if self._also and (refusal := await self._also()):
            raise Refused(refusal)

    def hold_to(self, check: Check) -> None:
        """Let this request last only as long as `check` returns no refusal: for permissions that no session gives."""
        self._also = check

    async def glance(self) -> None:
        """Check the session in the middle of a long body or reply. Raises Refused.

        While redis is away nobody can be logged out, so its errors are raised only after a minute.
        """
        try:
            await self.look_again()
            self._seen = time.monotonic()
        except Refused:
            raise
        except Exception:
            if time.monotonic() - self._seen > BLIND:
                raise

    def ask_for_body(self) -> None:
        """Note, before the session is checked, what of the body has arrived: the rest is late."""
        if self.exchange:
            self._is_here = self.exchange.has_arrived()
            return
        headers = self.headers
        if self._first is None and headers.get(b"content-length", b"0") != b"0" and b"expect" not in headers:
            self._first = asyncio.ensure_future(self._receive())

    def was_looked_at(self) -> None:
        """Note that the session holds: any part of the body that has not arrived by now is late, even if read later."""
        if self.exchange:
            self.is_late = not self._is_here
        else:
            self.is_late = self._first is not None and not self._first.done()

    def end(self) -> None:
        """Clean up after the reply: stop waiting for the body, and delete uploaded files."""
        if self._first is not None:
            self._first.add_done_callback(forget)
            self._first.cancel()
        for path in self.uploads:
            path.unlink(missing_ok=True)

    def take_body(self) -> bytes | None:
        """The whole body, if all of it arrived before the session was checked; None if it may have to be waited for."""
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
        """The next message of ASGI's `receive`."""
        first, self._first = self._first, None
        if not self._is_here and first is None and self._received != self.declared:
            self.is_late = True
        message = await (first or self._receive())
        self._received += len(message.get("body", b""))
        return message

    async def wait_until_gone(self) -> Disconnected:
        """Wait until the client has gone away. One that goes on sending a body that nobody reads counts as gone."""
        before = self._received
        while (await self.message())["type"] != "http.disconnect" and self._received - before < UNASKED:
            pass
        return Disconnected()
