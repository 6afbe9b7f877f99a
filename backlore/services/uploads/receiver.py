"""Takes the bytes of one request for an upload that comes in several.

Laws: memory stays the same however much comes; bytes are on the disk, fsynced, before redis says that they have come,
and what a broken connection has brought counts. Bytes are added only behind the very last one of a piece, else a new
piece begins: so whoever was slower than the one that took over from it can't overwrite anything. What must first be
proven by a checksum lies in pieces of its own, and goes with them.
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
PACE = 1.0  # seconds after which less is written too, so that slow bytes count soon
DRAWS = 5  # of new pieces, when none is taken

Broken = Disconnected | TooSlow | TooLarge


class Mismatch(Refusal):
    """The bytes are not those that their checksum is of."""


class Checksum(Protocol):
    """What proves the bytes of a request."""

    def update(self, data: bytes) -> None:
        """Takes the next bytes."""

    def fits(self) -> bool:
        """Whether they were the right ones."""


class Receiver:
    """Alone with an upload of a user for as long as bytes come. `transfer` is what redis knows of it."""

    def __init__(self, transfers: Transfers, store: Storage, user: str, transfer: Transfer, token: str):
        self.user = user
        self.transfer = transfer
        self.token = token
        self._transfers = transfers
        self._store = store
        self._offset = transfer.offset  # with what is written, but not said yet
        self._pieces = list(transfer.pieces)

    async def save(self, more: int = 0) -> None:
        """Say how far it is, that it is still ours, and how many bytes more come. Raises NoUpload, Locked, Quota."""
        awaited = max(self.transfer.length, self._offset + more)
        await self._transfers.save(self.user, self.transfer, self.token, awaited)

    async def take(self, chunks: AsyncIterable[bytes], most: int, checksum: Checksum | None = None) -> None:
        """Add all that comes, up to `most` bytes of the whole upload.

        Raises Disconnected, TooSlow, and TooLarge, after what has come was kept, unless there is a checksum to prove
        it; Mismatch, when it does not; NoUpload, Locked, Quota, OSError, Away.
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
        """Stay alone with it while no bytes come. Raises Locked when that failed."""

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
        """Write bytes; and say that they have come, unless they must be proven."""
        try:
            if checksum:
                await asyncio.to_thread(checksum.update, data)
            if data:
                await self._write(data, alone=checksum is not None)
            if not checksum:
                self.transfer.offset, self.transfer.pieces = self._offset, list(self._pieces)
            await self.save()
        except NoUpload:  # it was ended meanwhile: whoever did so may not have seen the last of it
            await self._delete(self._pieces)
            raise

    async def _write(self, data: bytes, alone: bool) -> None:
        begins = not self._pieces or (alone and self.transfer.pieces[-1][1] > 0)
        for draw in range(1, DRAWS + 1):
            if begins:
                self._begin()
            await self.save(len(data))  # said before it is written: what isn't ours, or is too much, is not written
            blob, size = self._pieces[-1]
            try:
                await self._store.append(blob, size, data, exactly=True)
            except Misplaced as error:
                if draw == DRAWS:
                    raise Away(self.transfer.id) from error  # who takes no new one is in trouble
                begins = True
                continue
            self._pieces[-1] = blob, size + len(data)
            self._offset += len(data)
            return

    def _begin(self) -> None:
        """Name a new piece."""
        piece = self._store.name(), 0
        self._pieces.append(piece)
        self.transfer.pieces = [*self.transfer.pieces, piece]

    async def _withdraw(self) -> None:
        """Nothing of this request counts."""
        await self._delete([each for each in self.transfer.pieces if not each[1]])
        self.transfer.pieces = [each for each in self.transfer.pieces if each[1]]
        self._offset, self._pieces = self.transfer.offset, list(self.transfer.pieces)
        await self.save()

    async def _delete(self, pieces: list[tuple[str, int]]) -> None:
        for blob, _ in pieces:
            await self._store.delete(blob)
