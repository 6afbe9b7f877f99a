"""Takes the bytes of one request of an upload that may come in several.

Laws: memory use doesn't grow with the bytes. They are on the disk, fsynced, before redis says that they have arrived,
and the bytes that a broken connection has delivered count. Bytes are added only directly behind the last one of a
piece; otherwise a new piece begins. So a slow request from which another has taken over can't overwrite anything. Until
a checksum has proven bytes, they lie in pieces of their own, which are deleted if it fails.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator
from time import monotonic
from typing import Protocol

from backlore.clients.disk import Misplaced
from backlore.clients.redis.lease import LeaseLost, renewing
from backlore.services.files.catalog import Refusal
from backlore.services.storage.store import Away, Storage
from backlore.services.uploads.transfers import LEASE, Locked, NoUpload, Transfer, Transfers
from backlore.web.limits import TooLarge, TooSlow
from backlore.web.request import Disconnected

WRITE = 4 << 20  # bytes written in one go
PACE = 1.0  # seconds after which fewer bytes are written, too, so that a slow client's bytes count soon
DRAWS = 5  # new pieces that are tried when the store refuses them

Broken = Disconnected | TooSlow | TooLarge


class Mismatch(Refusal):
    """The bytes don't match their checksum."""


class Checksum(Protocol):
    """Proves the bytes of a request."""

    def update(self, data: bytes) -> None:
        """Take the next bytes."""

    def fits(self) -> bool:
        """Whether the bytes so far match."""


class Receiver:
    """Holds the lease of an upload while bytes arrive. `transfer` is the record in redis; `token` proves the lease."""

    def __init__(self, transfers: Transfers, store: Storage, user: str, transfer: Transfer, token: str):
        self.user = user
        self.transfer = transfer
        self.token = token
        self._transfers = transfers
        self._store = store
        self._offset = transfer.offset  # includes bytes that are written, but not recorded yet
        self._pieces = list(transfer.pieces)

    async def save(self, more: int = 0) -> None:
        """Record the progress and the `more` bytes to come, and renew the lease. Raises NoUpload, Locked, Quota."""
        awaited = max(self.transfer.length, self._offset + more)
        await self._transfers.save(self.user, self.transfer, self.token, awaited)

    async def take(self, chunks: AsyncIterable[bytes], most: int, checksum: Checksum | None = None) -> None:
        """Add all bytes that arrive. The whole upload may have `most` bytes.

        Raises Disconnected, TooSlow and TooLarge after the bytes so far were kept, or dropped if a checksum was to
        prove them; Mismatch if it doesn't; NoUpload, Locked, Quota, OSError, Away.
        """
        gathered, since = bytearray(), monotonic()
        broken: Broken | None = None
        try:
            async for chunk in chunks:
                if self._offset + len(gathered) + len(chunk) > most:
                    raise TooLarge
                gathered += chunk
                if len(gathered) >= WRITE or monotonic() - since > PACE:
                    await self._keep(bytes(gathered), checksum)
                    gathered, since = bytearray(), monotonic()
        except (Disconnected, TooSlow, TooLarge) as error:
            broken = error
        if checksum:
            await asyncio.to_thread(checksum.update, bytes(gathered))
            if broken or not checksum.fits():
                await self._withdraw()
                raise broken or Mismatch(self.transfer.id)
        await self._keep(bytes(gathered))
        if broken:
            raise broken

    @contextlib.asynccontextmanager
    async def staying(self) -> AsyncIterator[None]:
        """Keep the lease while no bytes arrive. Raises Locked when it is lost."""

        async def renew() -> bool:
            with contextlib.suppress(Refusal):
                await self.save()
                return True
            return False

        try:
            async with renewing(renew, LEASE):
                yield
        except LeaseLost as error:
            raise Locked(self.transfer.id) from error

    async def _keep(self, data: bytes, checksum: Checksum | None = None) -> None:
        """Write bytes, and record that they have arrived, unless a checksum must prove them first."""
        try:
            if checksum:
                await asyncio.to_thread(checksum.update, data)
            if data:
                await self._write(data, alone=checksum is not None)
            if not checksum:
                self.transfer.offset, self.transfer.pieces = self._offset, list(self._pieces)
            await self.save()
        except NoUpload:  # it was ended meanwhile, perhaps before the last pieces were recorded
            await self._delete(self._pieces)
            raise

    async def _write(self, data: bytes, alone: bool) -> None:
        begins = not self._pieces or (alone and self.transfer.pieces[-1][1] > 0)
        for draw in range(1, DRAWS + 1):
            if begins:
                self._begin()
            await self.save(len(data))  # before writing: nothing is written without the lease or beyond the quota
            blob, size = self._pieces[-1]
            try:
                await self._store.append(blob, size, data, exactly=True)
            except Misplaced as error:
                if draw == DRAWS:
                    raise Away(self.transfer.id) from error  # a store that takes no new piece is in trouble
                begins = True
                continue
            self._pieces[-1] = blob, size + len(data)
            self._offset += len(data)
            return

    def _begin(self) -> None:
        """Begin a new, empty piece."""
        piece = self._store.name(), 0
        self._pieces.append(piece)
        self.transfer.pieces = [*self.transfer.pieces, piece]

    async def _withdraw(self) -> None:
        """Discard all bytes of this request, none of which were recorded."""
        await self._delete([each for each in self.transfer.pieces if not each[1]])
        self.transfer.pieces = [each for each in self.transfer.pieces if each[1]]
        self._offset, self._pieces = self.transfer.offset, list(self.transfer.pieces)
        await self.save()

    async def _delete(self, pieces: list[tuple[str, int]]) -> None:
        for blob, _ in pieces:
            await self._store.delete(blob)
