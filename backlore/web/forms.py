"""Streams multipart bodies: files go to the disk as they arrive, fields stay in memory, all within limits."""

import asyncio
import hashlib
from functools import partial
from io import FileIO
from typing import Any

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser, StrictParserError

from backlore.core import temporary
from backlore.core.payload import Invalid, Malformed, Upload
from backlore.core.room import need_room
from backlore.core.writeback import begin_writeback
from backlore.web.incoming import Incoming
from backlore.web.limits import Limits, TooLarge
from backlore.web.request import Request

WRITE_SIZE = 256 << 10  # bytes gathered before a thread writes them
MOST = 2 << 20  # bytes gathered while the disk is busy; then we wait for it


class FormReader:
    """Reads the parts of one multipart body into `fields`. `uploads` are the fields that take a file.

    A file's path is in `request.uploads` as soon as the file is made: the application deletes it when the request is
    over, however it ended.
    """

    def __init__(self, request: Request, limits: Limits, boundary: str, uploads: frozenset[str]):
        self.fields: list[tuple[str, Any]] = []
        self._request = request
        self._limits = limits
        self._uploads = uploads
        self._parser = PushMultipartParser(
            boundary, max_segment_count=limits.parts, max_segment_size=limits.upload, strict=True
        )
        self._segment: MultipartSegment | None = None
        self._text = bytearray()
        self._text_total = 0
        self._file: FileIO | None = None
        self._hash = hashlib.sha256()
        self._gathered: list[bytes | bytearray] = []  # pieces of the file that are not written yet
        self._size = 0  # their bytes
        self._writing: asyncio.Future[None] | None = None  # the write of earlier pieces, while more are received

    async def read(self) -> list[tuple[str, Any]]:
        """The fields in their order, files as Upload. Raises Malformed, Invalid, and what `Incoming` raises."""
        body = Incoming(self._request, self._limits, self._limits.upload if self._uploads else self._limits.body)
        try:
            while chunk := await body.chunk():
                if not self._parser.closed:
                    await self._feed(chunk)
            self._parser.close()
        except ParserLimitReached:
            raise TooLarge from None
        except (MultipartError, UnicodeError, AttributeError) as error:
            raise Malformed(str(error)) from None
        finally:
            self._close()
        return self.fields

    async def _feed(self, chunk: bytes) -> None:
        try:
            for event in self._parser.parse(chunk):
                if isinstance(event, MultipartSegment):
                    self._begin(event)
                elif event is not None:
                    await self._take(event)
                else:
                    await self._end()
        except StrictParserError:
            self._parser.close()  # raises unless all parts have come: text after the last is ignored (RFC 2046, §5.1.1)

    def _begin(self, segment: MultipartSegment) -> None:
        self._segment = segment
        self._text.clear()
        if segment.filename is not None:
            if segment.name not in self._uploads:
                raise Invalid(segment.name, "Takes no file.")
            handle, path = temporary.make(self._limits.folder)
            self._file = FileIO(handle, "wb")
            self._hash = hashlib.sha256()
            self._request.uploads.append(path)

    async def _take(self, data: bytes | bytearray) -> None:
        if self._file:
            self._gathered.append(data)
            self._size += len(data)
            is_free = self._writing is None or self._writing.done()
            if self._size >= (WRITE_SIZE if is_free else MOST):
                await self._write()
            return
        self._text += data
        self._text_total += len(data)
        if self._text_total > self._limits.body:
            raise TooLarge

    async def _end(self) -> None:
        segment, file = self._segment, self._file
        assert segment is not None  # the parser begins a segment before it ends one
        value: Any
        if file:
            if self._gathered:
                await self._write()
            await self._written()
            file.close()
            self._file = None
            if not segment.filename and not segment.size:
                return  # browsers send this for a file input with nothing chosen (HTML, form data set)
            value = Upload(
                path=self._request.uploads[-1],
                name=segment.filename or "",
                type=segment.content_type or "application/octet-stream",
                size=segment.size,
                hash=self._hash.hexdigest(),
            )
        else:
            value = self._text.decode("utf-8")
        self.fields.append((segment.name, value))

    async def _write(self) -> None:
        await self._written()
        pieces, self._gathered, self._size = self._gathered, [], 0
        assert self._file is not None  # only a file's bytes are gathered
        self._writing = asyncio.get_running_loop().run_in_executor(None, self._write_all, self._file, pieces)

    async def _written(self) -> None:
        """Wait for the write that a thread is doing. Raises OSError."""
        if self._writing:
            await asyncio.shield(self._writing)  # when the request is cancelled the thread still needs its file
            self._writing = None

    def _close(self) -> None:
        file, writing = self._file, self._writing
        if file and writing:
            writing.add_done_callback(partial(_close_after, file))
        elif file:
            file.close()

    def _write_all(self, file: FileIO, pieces: list[bytes | bytearray]) -> None:
        need_room(file.fileno(), self._limits.free, sum(map(len, pieces)))
        start = file.tell()
        for piece in pieces:
            left = memoryview(piece)
            while left:
                left = left[file.write(left) :]
        begin_writeback(file.fileno(), start, file.tell() - start)
        for piece in pieces:
            self._hash.update(piece)


def _close_after(file: FileIO, writing: asyncio.Future[None]) -> None:
    """Close the file that a thread has just written; the request has ended, so an error there no longer matters."""
    writing.exception()
    file.close()
