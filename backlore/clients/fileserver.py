"""The client of a file server, which `backlore files serve` runs. It speaks HTTP.

Laws:

- Every call ends within its timeouts. Only idempotent calls are retried, and only when the connection broke.
- A server that could not be reached is polled in the background, so that no request has to find out whether it is
  back. Its loss and its return are each reported once.
- The token is sent in a header, and is never in a URL or an error.

This module loads aiohttp: import it only when there are file servers.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import msgspec
from aiohttp.abc import AbstractStreamWriter

from backlore.clients.disk import KeptContent, Misplaced
from backlore.core.notify import Notify

CONNECT = 1.0  # seconds
STALLED = 5.0  # seconds without a byte
WRITTEN = 10.0  # seconds for the fsync of what was sent, beside the time for its size
SLOWEST = 5 << 20  # bytes a second, over the network and onto a disk that must have written all before the answer
FETCH = 600.0  # seconds for a call that waits for S3
LOOK = 1.0  # seconds between two polls of a server that is away
REST = 5.0  # seconds for which a server with a full disk gets no writes
TRIES = 2
PAUSE = 0.02, 0.1  # seconds before the second try, between these two
BUFFER = 256 << 10  # bytes of an answer that may wait for their reader


class FileServerError(Exception):
    """A file server did not do what it was asked for."""


class FileServerUnreachable(FileServerError):
    """The server does not answer, or answers that it can't."""


class Absent(FileServerError):
    """The server doesn't have the content, or not all of it."""


class Full(FileServerError):
    """The server's disk is full."""


class TokenRefused(FileServerError):
    """The server does not accept our token."""


class Behind(FileServerError):
    """The bucket behind the server did not do it."""


REFUSALS: dict[int, type[Exception]] = {403: TokenRefused, 404: Absent, 409: Misplaced, 502: Behind, 507: Full}


class SentContent(aiohttp.payload.Payload):
    """A request body that calls `read` anew each time it is sent."""

    def __init__(self, read: Callable[[], AsyncIterator[bytes]], size: int):
        super().__init__(read, content_type="application/octet-stream")
        self._size = size

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send the bytes; called by aiohttp."""
        async for piece in self._value():
            await writer.write(piece)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Not supported: nothing asks for the body as text."""
        raise NotImplementedError


class FileServer:
    """One file server, named by its URL. Methods raise FileServerError."""

    def __init__(self, url: str, token: str, notify: Notify):
        self.url = url
        self._notify = notify
        self._token = token
        self._http: aiohttp.ClientSession | None = None
        self.away = False  # it could not be reached, and no call has reached it since
        self._full = -REST  # when its disk was last full
        self._looking: asyncio.Task[None] | None = None

    @property
    def takes(self) -> bool:
        """Whether the server is likely to accept writes."""
        return not self.away and time.monotonic() > self._full + REST

    async def put(self, name: str, read: Callable[[], AsyncIterator[bytes]], size: int, hash: str) -> None:
        """Keep a content: whole and fsynced on the server, or not at all. Each call of `read` gives its bytes anew."""
        content, patience = SentContent(read, size), WRITTEN + size / SLOWEST
        await self._ask("PUT", _path(name), {"size": size, "hash": hash}, content, patience=patience)

    async def append(self, name: str, at: int, data: bytes) -> None:
        """Append to a content of exactly `at` bytes. Raises Misplaced.

        After FileServerUnreachable the append may have happened.
        """
        await self._ask("POST", _path(name, "append"), {"at": at}, data, tries=1, patience=WRITTEN)

    async def find(self, name: str, size: int, user: str = "", hash: str = "", fetch: bool = False) -> None:
        """Return if the server has the first `size` bytes, or with `fetch` gets them from S3; else raise Absent."""
        query = {"size": size, "user": user, "hash": hash, "fetch": str(fetch).lower()}
        await self._ask("HEAD", _path(name), query, patience=FETCH if fetch else STALLED)

    async def get(self, name: str, size: int, start: int, length: int) -> AsyncIterator[bytes]:
        """A part of the first `size` bytes, piece by piece. Raises Absent; errors may also come in the middle."""
        if not length:
            return
        headers = {"range": f"bytes={start}-{start + length - 1}"}
        async with self._answer("GET", _path(name), {"size": size}, headers=headers) as got:
            async for piece in got.content.iter_any():
                yield piece

    async def push(self, name: str, user: str, size: int, hash: str, folder: str) -> None:
        """Make the server upload the first `size` bytes to S3. Raises Absent, Behind."""
        query = {"user": user, "size": size, "hash": hash, "folder": folder}
        await self._ask("POST", _path(name, "push"), query, patience=FETCH)

    async def delete(self, name: str) -> None:
        """Delete a content, if it is there."""
        await self._ask("DELETE", _path(name), {})

    async def names(self) -> AsyncIterator[KeptContent]:
        """All contents, in the order of names."""
        after = ""
        while True:
            page = msgspec.json.decode(await self._ask("GET", "contents", {"after": after}))["contents"]
            for name, size, age in page:
                yield KeptContent(name, size, age)
            if not page:
                return
            after = page[-1][0]

    async def health(self) -> None:
        """Return if the server works and accepts our token, else raise."""
        await self._ask("GET", "health", {}, tries=1)

    async def close(self) -> None:
        """Close the connections."""
        if self._looking:
            self._looking.cancel()
        if self._http:
            await self._http.close()

    async def _ask(
        self,
        method: str,
        path: str,
        query: dict[str, Any],
        content: bytes | SentContent | None = None,
        tries: int = TRIES,
        **options: Any,
    ) -> bytes:
        for attempt in range(1, tries + 1):
            try:
                async with self._answer(method, path, query, data=content, **options) as got:
                    return await got.read()
            except FileServerUnreachable:
                if attempt == tries or self.away:
                    raise
                await asyncio.sleep(random.uniform(*PAUSE))
        raise AssertionError("no tries")

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, query: dict[str, Any], patience: float = STALLED, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=patience)
        http = self._connect()
        try:
            url = f"{self.url}/{path}"
            async with http.request(
                method, url, params=query, timeout=timeout, allow_redirects=False, **options
            ) as got:
                self._learn(got.status)
                if got.status >= 300:
                    raise self._refusal(got.status)
                yield got
        except (TimeoutError, aiohttp.ClientConnectorError) as error:
            self._lost(type(error).__name__)
            raise FileServerUnreachable(f"{self.url}: {type(error).__name__}") from None
        except aiohttp.ClientError as error:
            self._notify("warning", "fileserver.broken", server=self.url, why=type(error).__name__)
            raise FileServerUnreachable(f"{self.url}: {type(error).__name__}") from None

    def _connect(self) -> aiohttp.ClientSession:
        """The HTTP session. It is made on first use, because it belongs to the running event loop."""
        if self._http is None:
            self._http = aiohttp.ClientSession(
                headers={"authorization": f"Bearer {self._token}", "accept-encoding": "identity"},
                connector=aiohttp.TCPConnector(limit=0),  # no limit: one for each of our requests
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=["content-type"],  # an empty body has no type
                auto_decompress=False,
                read_bufsize=BUFFER,
            )
        return self._http

    def _refusal(self, status: int) -> Exception:
        if status not in REFUSALS:
            self._notify("error", "fileserver.failed", server=self.url, status=status)
        return REFUSALS.get(status, FileServerUnreachable)(f"{self.url}: {status}")

    def _learn(self, status: int) -> None:
        if status == 403:
            self._lost("it does not know files_token")
            return
        if status == 507:
            self._full = time.monotonic()
        if self.away:
            self.away = False
            self._notify("info", "fileserver.back", server=self.url)

    def _lost(self, why: str) -> None:
        if not self.away:
            self.away = True
            self._notify("error", "fileserver.away", server=self.url, why=why)
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        while self.away:
            await asyncio.sleep(LOOK * random.uniform(0.75, 1.25))
            with suppress(FileServerError):
                await self.health()


def _path(name: str, what: str = "") -> str:
    return f"contents/{name}/{what}".rstrip("/")
