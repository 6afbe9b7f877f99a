"""Multipart bodies, streamed: files go to the disk as they arrive, fields stay in memory, all within limits."""

import asyncio
import hashlib
import os
import tempfile
from pathlib import Path
from typing import IO, Any

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser

from backlore.core.payload import Malformed, Upload
from backlore.web.limits import Limits, TooLarge
from backlore.web.request import Request

WRITE_SIZE = 256 << 10  # bytes gathered before the disk is bothered, in a thread


class FormReader:
    """Reads the parts of one multipart body into `fields`; what it wrote is in `request.uploads` from the start.

    The application deletes those files when the request is over, however it ended.
    """

    def __init__(self, request: Request, limits: Limits, boundary: str):
        self.fields: list[tuple[str, Any]] = []
        self._request = request
        self._limits = limits
        self._parser = PushMultipartParser(
            boundary, max_segment_count=limits.parts, max_segment_size=limits.upload, strict=True
        )
        self._segment: MultipartSegment | None = None
        self._text = bytearray()
        self._text_total = 0
        self._file: IO[bytes] | None = None
        self._hash = hashlib.sha256()
        self._gathered = bytearray()  # of the file, not yet written

    async def read(self) -> list[tuple[str, Any]]:
        """The fields in their order, files as Upload. Raises Malformed, TooLarge, TooSlow, Disconnected."""
        received, more = 0, True
        try:
            while more:
                chunk, more = await self._limits.patience.wait(self._request.chunk())
                received += len(chunk)
                if received > self._limits.upload:
                    raise TooLarge
                if chunk:
                    await self._feed(chunk)
            self._parser.close()
        except ParserLimitReached:
            raise TooLarge from None
        except (MultipartError, UnicodeError, AttributeError) as error:
            raise Malformed(str(error)) from None
        finally:
            if self._file:
                self._file.close()
        return self.fields

    async def _feed(self, chunk: bytes) -> None:
        for event in self._parser.parse(chunk):
            if isinstance(event, MultipartSegment):
                self._begin(event)
            elif event is not None:
                await self._take(event)
            else:
                await self._end()

    def _begin(self, segment: MultipartSegment) -> None:
        self._segment = segment
        self._text.clear()
        if segment.filename is not None:
            folder = self._limits.folder
            folder.mkdir(parents=True, exist_ok=True)
            handle, path = tempfile.mkstemp(dir=folder)
            self._file = os.fdopen(handle, "wb", buffering=0)
            self._hash = hashlib.sha256()
            self._request.uploads.append(Path(path))

    async def _take(self, data: bytes | bytearray) -> None:
        if self._file:
            self._gathered += data
            if len(self._gathered) >= WRITE_SIZE:
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
            await self._write()
            file.close()
            self._file = None
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
        data, self._gathered = self._gathered, bytearray()
        if data:
            await asyncio.get_running_loop().run_in_executor(None, self._write_all, data)

    def _write_all(self, data: bytearray) -> None:
        assert self._file is not None
        self._hash.update(data)
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]
