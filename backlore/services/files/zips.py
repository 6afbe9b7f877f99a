"""Many files as one zip, made while it is sent.

Laws: the zip is kept neither in memory nor on the disk. Contents are stored uncompressed, since pictures and the like
don't get smaller. If a file can't be read, the connection breaks: a zip that arrives whole has all files. It can be
unpacked everywhere, even where case doesn't count and where one name can't be both a file and a folder: a name that is
taken gets a number.
"""

import io
import time
import zipfile
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from backlore.core.payload import Payload, length
from backlore.services.files.catalog import File
from backlore.services.files.files import Files
from backlore.services.files.folder import Name
from backlore.services.files.kinds import unpackable
from backlore.web.delivery import StreamReply, disposition
from backlore.web.reply import NO_STORE, SECURITY, Reply
from backlore.web.request import Request
from backlore.web.routes import Route
from backlore.web.stages import private

GATHERED = 256 << 10  # bytes that are sent at once, so that many small files go together
# seconds since the epoch: the range of the format, in which a year has 7 bits from 1980 on (APPNOTE.TXT 6.3.10, §4.4.6)
FIRST, LAST = 315_532_800, 4_354_819_199


class Chosen(Payload):
    """Files by name; without names, all of the user's files. `archive` is the name of the zip."""

    names: Annotated[list[Name], length(0, 10_000)] = []
    archive: Annotated[str, length(1, 100)] = "files.zip"


class Sink(io.RawIOBase):
    """What zipfile writes to: a buffer until it is taken. It can't seek, so sizes come behind the contents."""

    def __init__(self) -> None:
        self.gathered = bytearray()

    def writable(self) -> bool:
        """zipfile asks for this."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Add to the buffer."""
        self.gathered += data
        return len(data)

    def take(self) -> bytes:
        """The buffered bytes; the buffer is empty then."""
        taken, self.gathered = bytes(self.gathered), bytearray()
        return taken


class Zips:
    """The route. A browser that sends a form here (urlencoded, with `csrf`) saves the zip as it comes."""

    def __init__(self, files: Files):
        self._files = files

    def routes(self, prefix: str) -> list[Route]:
        """For the route table."""
        return [private.post(f"{prefix}/zip", self._zip)]

    async def _zip(self, request: Request, body: Chosen) -> Reply:
        """Several files, or all if none is named, as one zip, streamed. 200 application/zip; 400; 404 `file`."""
        user = request.user.id
        chosen = await self._files.choose(user, body.names) if body.names else await self._files.all(user)
        headers = [(b"content-type", b"application/zip"), *SECURITY, NO_STORE, disposition(body.archive, inline=False)]
        return StreamReply(200, headers, self._stream(user, chosen))

    async def _stream(self, user: str, chosen: Sequence[File]) -> AsyncIterator[bytes]:
        sink = Sink()
        names = unpackable([file.name for file in chosen])
        with zipfile.ZipFile(sink, "w") as archive:
            for file, name in zip(chosen, names, strict=True):
                changed = min(max(file.changed // 1_000_000, FIRST), LAST)
                entry = zipfile.ZipInfo(name, time.gmtime(changed)[:6])
                entry.external_attr = 0o600 << 16
                with archive.open(entry, "w", force_zip64=file.size >= zipfile.ZIP64_LIMIT) as target:
                    async for piece in self._files.read(user, file):
                        target.write(piece)
                        if len(sink.gathered) >= GATHERED:
                            yield sink.take()
        yield sink.take()
