"""How the breaker reaches a server: raw HTTP/1.1 from many loopback addresses, so that one visitor's limit is not
another's. Nothing is corrected, followed or retried, except on a connection that the server had closed meanwhile.
"""

import contextlib
import http.client
import ipaddress
import itertools
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs, urlsplit

PATIENCE = 5.0  # seconds for a reply
FRAMES = {"transfer-encoding", "content-length"}  # headers that say where a body ends
MOMENT = 0.01  # seconds for the next piece of an endless reply


@dataclass(frozen=True)
class Sent:
    """A request as it goes out. `who` is the sender's name; `path` includes the query."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    who: str = "stranger"
    session: str = ""  # the cookie, NAME=VALUE
    csrf: str = ""
    more: tuple[tuple[str, str], ...] = ()  # header lines after the others, which may repeat a name

    def lines(self) -> dict[str, str]:
        """All headers except `more`, each once."""
        lines = dict(self.headers)
        if self.session:
            lines.setdefault("cookie", self.session)
        if self.csrf:
            lines.setdefault("x-csrf-token", self.csrf)
        return lines


@dataclass(frozen=True)
class Got:
    """A reply. Status 0 means that none came in time, or that the connection broke; `why` says which."""

    status: int
    headers: Mapping[str, str]
    raw: bytes
    seconds: float
    why: str = ""
    cookies: Sequence[str] = ()

    @cached_property
    def body(self) -> Any:
        """The JSON in it; None if it is not JSON."""
        try:
            return json.loads(self.raw)
        except (ValueError, RecursionError):
            return None

    @property
    def error(self) -> str:
        """The word of an error; "" without one."""
        return str(self.body["error"]) if isinstance(self.body, dict) and "error" in self.body else ""

    @property
    def media(self) -> str:
        """The media type, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip()


class Wire:
    """Connections to one server, kept open for each source address."""

    def __init__(self, url: str):
        parts = urlsplit(url if "//" in url else f"http://{url}")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self.key = parse_qs(parts.query).get("key", [""])[0]  # to the developer's pages
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.has_addresses = self._is_loopback()
        self._addresses = self._count_addresses()
        self._kept: dict[str, http.client.HTTPConnection] = {}
        self.count = 0
        self.before_sending: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def _is_loopback(self) -> bool:
        try:
            address = ipaddress.ip_address("127.0.0.1" if self.host == "localhost" else self.host)
        except ValueError:
            return False
        if not address.is_loopback or address.version != 4:
            return False
        with socket.socket() as probe:
            try:
                probe.bind(("127.1.1.1", 0))
            except OSError:  # macOS has only one
                return False
        return True

    def _count_addresses(self) -> Iterator[str]:
        # not those of the last run: a server remembers which ones it has limited
        for number in itertools.count(secrets.randbelow(3_000_000)):
            yield (
                f"127.{10 + (number >> 14) % 200}.{(number >> 7) % 128}.{1 + number % 128}"
                if self.has_addresses
                else ""
            )

    def new_address(self) -> str:
        """An address that was never used; "" where there is only one."""
        return next(self._addresses)

    def open(self, address: str = "", seconds: float = PATIENCE) -> http.client.HTTPConnection:
        """A new connection."""
        source = (address, 0) if address else None
        return self._kind(self.host, self.port, timeout=seconds, source_address=source)

    def send(self, sent: Sent, address: str = "", patience: float = PATIENCE) -> Got:
        """The reply to a request, if it comes within `patience` seconds."""
        self.before_sending()
        with self._lock:
            self.count += 1
            connection = self._kept.pop(address, None) if patience == PATIENCE else None
        fresh = connection is None
        connection = connection or self.open(address, patience)
        got = exchange(connection, sent)
        if got.status == 0 and not fresh and got.why != "time":
            connection.close()
            connection = self.open(address)
            got = exchange(connection, sent)
        # a request with a false length may have left bytes, which would begin the next request
        is_kept = patience == PATIENCE and len(self._kept) < 60 and not FRAMES & set(sent.lines())
        if got.status and got.headers.get("connection") != "close" and is_kept:
            self._kept[address] = connection
        else:
            connection.close()
        return got

    def send_at_once(self, many: Sequence[Sent]) -> list[Got]:
        """Send requests at the same time, each on a connection of its own. Returns the replies."""
        self.count += len(many)
        connections = [self.open(self.new_address()) for _ in many]
        barrier = threading.Barrier(len(many))
        replies: list[Got] = [Got(0, {}, b"", 0, "unsent")] * len(many)

        def work(number: int) -> None:
            try:
                connections[number].connect()
            finally:
                barrier.wait(30)
            replies[number] = exchange(connections[number], many[number])

        threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(len(many))]
        for thread in threads:
            thread.start()
        for thread, connection in zip(threads, connections, strict=True):
            thread.join(PATIENCE + 5)
            connection.close()
        return replies

    def send_raw(self, raw: bytes, wait: float = 0.5) -> bytes:
        """Send bytes as they are, and the connection's end. Returns what comes back within `wait` seconds."""
        self.count += 1
        with socket.create_connection((self.host, self.port), timeout=wait, source_address=self._source()) as link:
            try:
                link.sendall(raw)
                link.shutdown(socket.SHUT_WR)
                return link.recv(65536)
            except OSError:
                return b""

    def _source(self) -> tuple[str, int] | None:
        address = self.new_address()
        return (address, 0) if address else None

    def close(self) -> None:
        """Close all kept connections."""
        for connection in self._kept.values():
            connection.close()
        self._kept.clear()


def begin(connection: http.client.HTTPConnection, sent: Sent, held: int = 0) -> None:
    """Send a request without the last `held` bytes of its body. Raises OSError, HTTPException."""
    connection.putrequest(sent.method, sent.path, skip_accept_encoding=True)
    lines = sent.lines()
    for name, value in (*lines.items(), *sent.more):
        connection.putheader(name, value.encode("latin-1", "replace"))
    if sent.body is not None and not FRAMES & set(lines):
        connection.putheader("content-length", str(len(sent.body)))
    connection.endheaders()
    if sent.body:
        send_on(connection, sent.body[: len(sent.body) - held])


def send_on(connection: http.client.HTTPConnection, data: bytes) -> None:
    """Send more of a body. The server may answer and close before it has read everything: its answer is what counts."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sock.sendall(data)


def exchange(connection: http.client.HTTPConnection, sent: Sent) -> Got:
    """Send a request on a connection. Returns the reply."""
    since = time.monotonic()
    try:
        begin(connection, sent)
    except (OSError, http.client.HTTPException) as error:
        return Got(0, {}, b"", time.monotonic() - since, type(error).__name__)
    return finish(connection, since)


def finish(connection: http.client.HTTPConnection, since: float) -> Got:
    """Read the reply to a request that was sent at `since`."""
    try:
        reply = connection.getresponse()
        is_endless = reply.getheader("content-type", "").startswith("text/event-stream")
        raw = begin_of(connection, reply) if is_endless else reply.read()
    except TimeoutError:
        return Got(0, {}, b"", time.monotonic() - since, "time")
    except (OSError, http.client.HTTPException) as error:
        return Got(0, {}, b"", time.monotonic() - since, type(error).__name__)
    cookies = [value for name, value in reply.getheaders() if name.lower() == "set-cookie"]
    headers = {name.lower(): value for name, value in reply.getheaders()}
    return Got(reply.status, headers, raw, time.monotonic() - since, "", cookies)


def begin_of(connection: http.client.HTTPConnection, reply: http.client.HTTPResponse) -> bytes:
    """What comes of an endless reply within a moment. Closes the connection."""
    raw = b""
    if connection.sock is not None:  # None where the server ends the connection with its reply
        connection.sock.settimeout(MOMENT)
    with contextlib.suppress(OSError, http.client.HTTPException):
        while piece := reply.read1(65536):
            raw += piece
    connection.close()
    return raw
