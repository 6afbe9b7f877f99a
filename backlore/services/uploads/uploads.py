"""Uploads that come in several requests, whatever breaks in between. In the end each is an ordinary file.

Laws: any worker can take the next bytes. An upload is finished only when its file is kept. If a crash came between the
last bytes and the file, the next request for the upload makes the file.
"""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from redis.exceptions import RedisError

from backlore.clients.disk import Draft, Misplaced
from backlore.core.notify import Notify
from backlore.services.files.catalog import Changed, Exists, File
from backlore.services.files.files import Files
from backlore.services.files.kinds import clean
from backlore.services.storage.store import Away, Lost
from backlore.services.uploads.receiver import Receiver
from backlore.services.uploads.transfers import Locked, NoUpload, Transfer, Transfers
from backlore.web.delivery import FilePart

SWEPT = 100  # uploads looked at in one batch


class Uploads:
    """The unfinished uploads of users, each of which waits `unfinished` seconds for its next bytes.

    Besides the exceptions named, methods raise RedisError and OSError; S3Error when a file must wait for S3; Away when
    they wait for file servers.
    """

    def __init__(self, redis: Any, notify: Notify, files: Files, unfinished: float):
        self._transfers = Transfers(redis, files.allowance, unfinished)
        self._files = files
        self._catalog = files.catalog
        self._store = files.store
        self._disk = files.disk
        self._notify = notify

    async def create(self, user: str, name: str, length: int, expected: str = "", metadata: str = "") -> Transfer:
        """Begin an upload of `length` bytes, -1 if the client says that later. `expected` as for `Files.put`.

        Raises BadName, Exists, Changed, Quota, Crowd, Gone: an upload that could not be kept in the end doesn't begin.
        """
        name = clean(name)
        found = await self._catalog.find(user, name) if expected else None
        if expected == "*" and found:
            raise Exists(name)
        if expected not in ("", "*") and (found is None or found.id != expected):
            raise Changed(name)
        return await self._transfers.create(user, name, length, expected, metadata)

    async def find(self, user: str, id: str) -> Transfer:
        """The state of an upload. Raises NoUpload; Locked while it is being made a file; and as `finish`."""
        found = await self._transfers.find(user, id)
        if found.is_whole and not found.file:
            async with self.receive(user, id) as receiver:
                await self.finish(receiver)
                return receiver.transfer
        return found

    @contextlib.asynccontextmanager
    async def receive(self, user: str, id: str) -> AsyncIterator[Receiver]:
        """Hold the lease of an upload, to add to it. Raises NoUpload, Locked."""
        transfer, token = await self._transfers.hold(user, id)
        try:
            yield Receiver(self._transfers, self._store, user, transfer, token)
        finally:
            with contextlib.suppress(RedisError):  # its client has notified; the lease ends by itself
                await self._transfers.release(user, id, token)

    async def finish(self, receiver: Receiver) -> None:
        """Make the file if all bytes have arrived. Raises Exists, Changed, Quota; NoUpload when bytes were lost."""
        user, transfer = receiver.user, receiver.transfer
        if transfer.file or not transfer.is_whole:
            return
        async with receiver.staying():
            try:
                draft = await self._gather(user, transfer)
            except Lost as error:
                self._notify("error", "files.lost", user=user, upload=transfer.id, blob=str(error))
                await self.end(user, transfer.id, "any")
                raise NoUpload(transfer.id) from error
            try:
                file = await self._make(user, transfer, draft)
            finally:
                await draft.discard()
            await self._transfers.kept(user, transfer, receiver.token, file.id)
        with contextlib.suppress(Away):  # if servers are away, the pieces go when the upload expires
            await self._delete(transfer)
            transfer.pieces = []
            await receiver.save()

    async def end(self, user: str, id: str, which: str = "free") -> None:
        """Delete an upload with its bytes; `which`: see `Transfers.end`. Raises NoUpload, Locked."""
        for blob, _ in await self._transfers.end(user, id, which):
            await self._store.delete(blob)
        await self._transfers.forget(user, id)

    async def wipe(self, user: str) -> None:
        """Delete all uploads of a user. If it is interrupted, it can be called again."""
        for id in await self._transfers.of(user):
            await self._end_or_forget(user, id, "any")

    async def blobs(self) -> AsyncIterator[str]:
        """The blobs of all unfinished uploads: they belong to no file, and yet are not orphaned."""
        async for transfer in self._transfers.all():
            for blob, _ in transfer.pieces:
                yield blob

    async def sweep(self) -> None:
        """Delete expired uploads. To be called periodically."""
        while due := await self._transfers.due(SWEPT):
            for user, id in due:
                with contextlib.suppress(Locked, Away):  # bytes have arrived since, or file servers are away: try later
                    await self._end_or_forget(user, id, "old")

    async def _end_or_forget(self, user: str, id: str, which: str) -> None:
        try:
            await self.end(user, id, which)
        except NoUpload:  # only its name is left, in an index
            await self._transfers.forget(user, id)

    async def _make(self, user: str, transfer: Transfer, draft: Draft) -> File:
        try:
            return await self._files.keep(user, transfer.name, draft, transfer.expected, upload=transfer.id)
        except (Exists, Changed):
            found = await self._catalog.find(user, transfer.name)
            if found and found.hash == draft.hash and found.created > transfer.created:
                return found  # made by us, before a crash
            raise

    async def _gather(self, user: str, transfer: Transfer) -> Draft:
        """A draft of all bytes: the only piece itself if it is on this disk, else a copy. Raises Lost."""
        pieces = [each for each in transfer.pieces if each[1]]
        parts = [await self._store.part(user, blob, size, "", 0, size) for blob, size in pieces]
        if len(parts) == 1 and isinstance(parts[0], FilePart):
            with contextlib.suppress(Misplaced):  # the piece has more bytes than count, from a request that was cut off
                return await self._disk.adopt_grown(*pieces[0])
        draft = await self._disk.draft()
        try:
            for part in parts:
                async for piece in part.pieces():
                    await draft.write(piece)
        except BaseException:
            await draft.discard()
            raise
        return draft

    async def _delete(self, transfer: Transfer) -> None:
        for blob, _ in transfer.pieces:
            await self._store.delete(blob)
