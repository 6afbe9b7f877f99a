"""Copying contents to the servers where they belong: after a server was added or came back, or before one leaves.

Laws: a copy is made before another is removed. A content that may still grow is left alone. Of copies that differ the
longest is right: the others are prefixes of it. An interrupted run continues when it is called again.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import chain
from typing import NamedTuple

from backlore.clients.disk import Disk, KeptContent
from backlore.clients.fileserver import FileServer
from backlore.services.storage.remote import order

QUIET = 600.0  # seconds without a change; a younger content may still grow, or not be in the catalog yet
AT_ONCE = 8  # contents

Holders = dict[FileServer, KeptContent]


class Spread(NamedTuple):
    """How many contents there are, how many copies were made and removed, and how many contents were left alone."""

    contents: int = 0
    made: int = 0
    removed: int = 0
    young: int = 0


class Spreader:
    """Spreads contents over servers, `copies` of each. `leaving`: servers to empty. `disk` holds the drafts."""

    def __init__(self, servers: Sequence[FileServer], leaving: Sequence[FileServer], copies: int, disk: Disk):
        self._servers = servers
        self._leaving = leaving
        self._copies = copies
        self._disk = disk
        self._urls = [server.url for server in servers]

    async def run(self, trim: bool, quiet: float = QUIET) -> Spread:
        """Make the copies that are missing; with `trim`, remove those that belong elsewhere.

        Contents that changed within the last `quiet` seconds are left alone. Raises FileServerError, OSError.
        """
        done: list[Spread] = []
        batch: list[tuple[str, Holders]] = []
        async for each in self._everything():
            batch.append(each)
            if len(batch) == AT_ONCE:
                done += await self._do(batch, trim, quiet)
                batch = []
        done += await self._do(batch, trim, quiet)
        return Spread(*map(sum, zip(Spread(), *done, strict=True)))

    async def _do(self, batch: list[tuple[str, Holders]], trim: bool, quiet: float) -> list[Spread]:
        return await asyncio.gather(*(self._settle(name, holders, trim, quiet) for name, holders in batch))

    async def _everything(self) -> AsyncIterator[tuple[str, Holders]]:
        """All contents in the order of their names, each with the servers that have it."""
        pages = {server: server.names() for server in chain(self._servers, self._leaving)}
        next_ones = {server: await anext(names, None) for server, names in pages.items()}
        while known := [each for each in next_ones.values() if each]:
            name = min(each.name for each in known)
            holders = {server: each for server, each in next_ones.items() if each and each.name == name}
            for server in holders:
                next_ones[server] = await anext(pages[server], None)
            yield name, holders

    async def _settle(self, name: str, holders: Holders, trim: bool, quiet: float) -> Spread:
        if min(each.age for each in holders.values()) < quiet:
            return Spread(contents=1, young=1)
        homes = [self._servers[place] for place in order(self._urls, name)[: self._copies]]
        source = max(holders, key=lambda server: holders[server].size)
        size = holders[source].size
        lacking = [server for server in homes if server not in holders or holders[server].size < size]
        if lacking:
            await self._copy(name, source, size, lacking)
        others = [server for server in holders if server not in homes] if trim else []
        for server in others:
            await server.delete(name)
        return Spread(1, len(lacking), len(others))

    async def _copy(self, name: str, source: FileServer, size: int, targets: list[FileServer]) -> None:
        draft = await self._disk.draft()
        try:
            async for piece in source.get(name, size, 0, size):
                await draft.write(piece)
            for target in targets:
                await target.put(name, draft.read, draft.size, draft.hash)
        finally:
            await draft.discard()
