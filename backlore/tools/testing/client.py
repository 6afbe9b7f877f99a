"""How a suite reaches the server: one client per user, with its cookies, its csrf token and its source address.

Laws: redirects are not followed. A kept connection that the server has closed is opened again, once, if nothing was
sent or the request is safe. Anything else that breaks is a failure.
"""

import contextlib
import http.client
import itertools
import random
import select
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

from backlore.tools.testing.cookies import Cookies
from backlore.tools.testing.reply import RowReply
from backlore.tools.testing.rows import SuiteError

PATIENCE = 10.0  # seconds for a reply
PAGES = ("/docs", "/outbox")  # the developer's pages, whose URLs the terminal prints
SAFE = {"GET", "HEAD", "OPTIONS"}


class NoReply(Exception):
    """The server gave no reply; the text says why."""


@dataclass(frozen=True)
class Outgoing:
    """A request as it goes out. Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None


class Server:
    """The server under test. `key`, from the query of `url`, opens the developer's pages.

    Raises SuiteError when `url` is not an HTTP address.
    """

    def __init__(self, url: str):
        parts = urlsplit(url if "//" in url else f"http://{url}")
        try:
            self.port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise SuiteError(f"{url}: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/", *PAGES):
            raise SuiteError(f"{url} is no address of a server: http://HOST:PORT")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self.key = parse_qs(parts.query).get("key", [""])[0]
        self.host = parts.hostname
        self.is_loopback = is_loopback(self.host)
        self.trusted = self.is_loopback or parts.scheme == "https"
        self.connection = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        # random: another run on the same server soon after must not meet the limits on these addresses
        self._numbers = itertools.count(random.randrange(1 << 22))
        self._has_addresses = self.is_loopback and ":" not in self.host and can_bind("127.1.1.1")

    def new_address(self) -> str:
        """A loopback address that this suite has not used yet; "" where there is only one."""
        number = next(self._numbers)
        return f"127.{1 + (number >> 16) % 250}.{(number >> 8) % 256}.{1 + number % 254}" if self._has_addresses else ""


class Client:
    """One user, who sends one request at a time."""

    def __init__(self, server: Server, address: str | None = None):
        self.server = server
        self.address = server.new_address() if address is None else address
        self.cookies = Cookies(server.host, server.trusted)
        self.csrf = ""
        self._connection: http.client.HTTPConnection | None = None

    def copy(self) -> "Client":
        """The same user on a connection of its own. The two are independent from here on."""
        made = Client(self.server, self.address)
        made.cookies = self.cookies.copy()
        made.csrf = self.csrf
        return made

    def send(self, sent: Outgoing) -> RowReply:
        """Send a request. The reply's cookies and csrf token are kept. Raises NoReply."""
        reused = self._connection is not None and not is_closed(self._connection)
        if not reused:
            self._open()
        try:
            try:
                return self._exchange(sent)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                if not reused or sent.method not in SAFE:
                    raise
                self._open()
                return self._exchange(sent)
        except TimeoutError:
            why = f"none within {PATIENCE:g} s"
        except http.client.IncompleteRead:
            why = "it was cut"
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
        self.close()
        raise NoReply(why)

    def _open(self) -> None:
        self.close()
        source = (self.address, 0) if self.address else None
        self._connection = self.server.connection(
            self.server.host, self.server.port, timeout=PATIENCE, source_address=source
        )

    def _exchange(self, sent: Outgoing) -> RowReply:
        connection = self._connection
        assert connection is not None
        connection.putrequest(sent.method, sent.path, skip_host="host" in sent.headers, skip_accept_encoding=True)
        for name, value in sent.headers.items():
            connection.putheader(name, value.encode())
        if (sent.body is not None or sent.method not in SAFE) and not {"content-length", "transfer-encoding"} & set(
            sent.headers
        ):
            connection.putheader("content-length", str(len(sent.body or b"")))
        connection.endheaders()
        if sent.body:
            # the server may answer and close before it has read everything: its answer is what counts
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.send(sent.body)
        return self._read(connection, sent)

    def _read(self, connection: http.client.HTTPConnection, sent: Outgoing) -> RowReply:
        until = time.monotonic() + PATIENCE
        got = connection.getresponse()
        pieces = []
        while piece := got.read1(1 << 16):
            pieces.append(piece)
            if time.monotonic() > until:
                raise TimeoutError
        if got.length and sent.method != "HEAD":
            raise http.client.IncompleteRead(b"".join(pieces), got.length)
        got.read()  # tells http.client that the reply has ended
        headers: dict[str, str] = {}
        path = sent.path.partition("?")[0]
        for name, value in got.getheaders():
            name = name.lower()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
            if name == "set-cookie":
                self.cookies.take(value, path)
        reply = RowReply(got.status, headers, b"".join(pieces))
        self._learn(reply)
        return reply

    def _learn(self, reply: RowReply) -> None:
        """Keep the csrf token that a reply carries, for the requests that follow."""
        if b'"csrf"' in reply.raw and reply.status == 200 and isinstance(reply.body, dict):
            token = reply.body.get("csrf")
            self.csrf = token if isinstance(token, str) else self.csrf

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def is_closed(connection: http.client.HTTPConnection) -> bool:
    """Whether a kept connection has ended: anything readable between replies is its end."""
    if connection.sock is None:
        return True
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def can_bind(address: str) -> bool:
    """Whether the system allows this source address: macOS has only one loopback address."""
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
