"""Bytes on file servers. A blob's name decides which of the servers keep it; nodes keep nothing.

Laws: a blob's name gives the order of all servers for it (rendezvous hashing), so that adding or removing a server
moves only that server's share. A content is written to the first `copies` servers that take it, and read from the first
that has it; if none has it, S3 is asked. A blob that grows has fixed homes: the first N servers, where N is the last
digit of its name. Bytes are added on all homes, the first home first, or else to another blob. A home takes bytes only
directly behind its last byte. So of two concurrent appends one is refused before it has written anything that counts,
and acknowledged bytes are the same on all homes.
"""

import asyncio
import contextlib
import errno
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial

from backlore.clients.disk import Draft, Misplaced
from backlore.clients.fileserver import Absent, Behind, FileServer, FileServerError, Full
from backlore.clients.s3 import S3Unreachable
from backlore.core.crypto import random_text
from backlore.core.notify import Notify
from backlore.services.storage.store import Away, Bucket, Lost
from backlore.web.delivery import StreamPart

LETTERS = 26  # in a name, before the digit
DRAWS = 200  # tries to draw a name whose homes can be reached
PIECE = 4 << 20  # bytes added in one go
AT_ONCE = 64 << 10  # bytes: a part up to this size is read by the same request that finds a server which has it

Try = Callable[[FileServer], Awaitable[None]]


def order(servers: Sequence[str], blob: str) -> list[int]:
    """The indexes of all servers in the list, in this blob's order: by descending random weight.

    D. Thaler, C. V. Ravishankar: Using name-based mappings to increase hit rates, 1998.
    """
    weights = [hashlib.blake2b(f"{server} {blob}".encode(), digest_size=8).digest() for server in servers]
    return sorted(range(len(servers)), key=weights.__getitem__, reverse=True)


class RemoteStore:
    """Blobs on file servers. `bucket` is the bucket behind them, or None; `copies` is at least 1."""

    def __init__(self, servers: Sequence[FileServer], bucket: Bucket | None, notify: Notify, copies: int):
        self.servers = servers
        self.bucket = bucket
        self._notify = notify
        self._copies = min(copies, len(servers))
        self._urls = [server.url for server in servers]
        self._short = False  # whether the last content got fewer copies than wanted

    def name(self) -> str:
        """A name for a new blob whose homes accept writes, as far as we know."""
        copies = self._copies_now()
        for _ in range(DRAWS):
            blob = f"{random_text(5 * LETTERS)}{copies}"
            if all(server.takes for server in self._homes(blob)):
                break
        return blob

    async def keep(self, draft: Draft, blob: str) -> None:
        """Write a draft to the first servers that take it; those that are away are tried only if no other takes it.

        Raises Away, OSError.
        """
        servers = self._ordered(blob)
        kept, refusals = await self._spread(draft, blob, [server for server in servers if not server.away])
        if not kept:
            kept, more = await self._spread(draft, blob, [server for server in servers if server.away])
            refusals += more
        if not kept:
            raise _refusal(blob, refusals)
        if kept < self._copies and not self._short:  # once, not for each of a thousand
            self._notify("warning", "files.copies", blob=blob, copies=kept, wanted=self._copies)
        self._short = kept < self._copies

    async def append(self, blob: str, at: int, data: bytes, exactly: bool = True) -> None:
        """Append to a blob on all its homes, always `exactly`. Raises Misplaced, Away, OSError."""
        homes = self._homes(blob)
        if not homes or (at and not self._are_enough(homes)):
            raise Misplaced(blob)
        for start in range(0, len(data), PIECE) if data else [0]:
            for server in homes:
                try:
                    await server.append(blob, at + start, data[start : start + PIECE])
                except FileServerError as error:
                    if not any(each.takes for each in self.servers):
                        raise _refusal(blob, [error]) from error
                    raise Misplaced(blob) from error  # whatever the cause: another blob has other homes

    async def has(self, blob: str, size: int) -> bool:
        """Whether a server that can be reached has the blob."""
        with contextlib.suppress(Away):
            return await self._first(self._ordered(blob), lambda server: server.find(blob, size)) is not None
        return False

    async def part(self, user: str, blob: str, size: int, hash: str, start: int, length: int) -> StreamPart:
        """A part, from a server that has the blob or else fetches it now. Raises Lost, Away, S3Error."""
        if length > AT_ONCE:
            found = await self._locate(user, blob, size, hash, lambda server: server.find(blob, size))
            return StreamPart(partial(self._read, found, blob, size), start, length)
        taken = bytearray()

        async def take(server: FileServer) -> None:
            taken.clear()
            async for piece in server.get(blob, size, start, length):
                taken.extend(piece)

        await self._locate(user, blob, size, hash, take)
        return StreamPart(partial(_give, bytes(taken), start), start, length)

    async def fetch(self, user: str, blob: str, size: int, hash: str = "") -> None:
        """Have the first server that can do so fetch the blob from S3, unless it has it. Raises Lost, Away, S3Error."""
        if not self.bucket or not await self._first(
            self._ordered(blob), lambda server: server.find(blob, size, user, hash, fetch=True)
        ):
            raise Lost(blob)

    async def push(self, user: str, blob: str, size: int, hash: str, folder: str) -> None:
        """Have a server that has the blob push it to S3. Raises Lost, Away, S3Error."""

        async def push(server: FileServer) -> None:
            await server.find(blob, size)  # this finds a server that hangs sooner than the push would
            await server.push(blob, user, size, hash, folder)

        if await self._first(self._ordered(blob), push) is None:
            raise Lost(blob)

    async def delete(self, blob: str) -> None:
        """Delete the blob from all servers. Raises Away if one can't be reached, after the others have deleted it."""
        there = [server for server in self.servers if not server.away]
        outcomes = await asyncio.gather(*(server.delete(blob) for server in there), return_exceptions=True)
        for each in outcomes:
            if isinstance(each, FileServerError):
                raise Away(str(each)) from each
            if each is not None:
                raise each
        if len(there) < len(self.servers):
            raise Away(f"{blob}: some of its servers are away")

    async def close(self) -> None:
        """End the connections."""
        for server in self.servers:
            await server.close()

    def _copies_now(self) -> int:
        """How many homes a new blob has."""
        return max(1, min(self._copies, sum(server.takes for server in self.servers)))

    def _are_enough(self, homes: list[FileServer]) -> bool:
        """Whether all these homes accept writes, and a new blob would have no more homes than these."""
        return len(homes) >= self._copies_now() and all(server.takes for server in homes)

    def _homes(self, blob: str) -> list[FileServer]:
        """The homes of a blob that grows; none if its name has no digit, or wants more homes than there are servers."""
        copies = int(blob[-1]) if len(blob) == LETTERS + 1 else 0
        places = order(self._urls, blob)[:copies] if copies <= len(self.servers) else []
        return [self.servers[place] for place in places]

    def _ordered(self, blob: str) -> list[FileServer]:
        """All servers in this blob's order, those that are away last."""
        servers = [self.servers[place] for place in order(self._urls, blob)]
        return sorted(servers, key=lambda server: server.away)

    async def _spread(
        self, draft: Draft, blob: str, servers: Sequence[FileServer]
    ) -> tuple[int, list[FileServerError]]:
        """Write to as many servers as there should be copies. Returns how many took it, and the others' errors."""
        kept, refusals = 0, list[FileServerError]()
        waiting = list(servers)
        while waiting and kept < self._copies:
            wanted = self._copies - kept
            tried, waiting = waiting[:wanted], waiting[wanted:]
            puts = (server.put(blob, draft.read, draft.size, draft.hash) for server in tried)
            for outcome in await asyncio.gather(*puts, return_exceptions=True):
                if outcome is None:
                    kept += 1
                elif isinstance(outcome, FileServerError):
                    refusals.append(outcome)
                else:
                    raise outcome
        return kept, refusals

    async def _locate(self, user: str, blob: str, size: int, hash: str, ask: Try) -> FileServer:
        """The first server for which `ask` succeeds. Only if none has the blob does one fetch it from S3."""

        async def fetch(server: FileServer) -> None:
            await server.find(blob, size, user, hash, fetch=True)
            await ask(server)

        away: Away | None = None
        for each in [ask, fetch] if self.bucket else [ask]:
            try:
                if found := await self._first(self._ordered(blob), each):
                    return found
            except Away as error:
                away = error
        raise away or Lost(blob)

    async def _first(self, servers: Sequence[FileServer], ask: Try) -> FileServer | None:
        """The first server for which `ask` succeeds; None if all replied that they don't have the blob.

        Raises Away if a server that might have it can't be reached; S3Error.
        """
        away: FileServerError | None = None
        for server in servers:
            try:
                await ask(server)
                return server
            except Absent:
                continue
            except Behind as error:
                raise S3Unreachable(str(error)) from error
            except FileServerError as error:
                away = error
        if away:
            raise Away(str(away)) from away
        return None

    async def _read(self, found: FileServer, blob: str, size: int, start: int, length: int) -> AsyncIterator[bytes]:
        """Read from this server; where it breaks off, go on with the others."""
        at, end = start, start + length
        for server in [found, *(each for each in self._ordered(blob) if each is not found)]:
            with contextlib.suppress(FileServerError):  # its client has notified; the next server is asked for the rest
                async for piece in server.get(blob, size, at, end - at):
                    at += len(piece)
                    yield piece
            if at == end:
                return
        raise Away(blob)


async def _give(content: bytes, at: int, start: int, length: int) -> AsyncIterator[bytes]:
    """A stretch of `content`, which was read before and begins at byte `at` of its blob."""
    yield content[start - at : start - at + length]


def _refusal(blob: str, refusals: Sequence[FileServerError]) -> Exception:
    """The exception to raise when no server took a blob: OSError with ENOSPC if one was full, else Away."""
    if any(isinstance(each, Full) for each in refusals):
        return OSError(errno.ENOSPC, f"no file server has room: {refusals[-1]}")
    return Away(f"{blob}: {refusals[-1]}")
