"""Sends files by sendfile, from the page cache to the socket: their bytes never enter this process.

Law: the event loop doesn't wait for the disk. If either end of a piece isn't in memory, a thread reads the piece first.
"""

import asyncio
import os
from typing import TYPE_CHECKING, Any

from backlore.web.delivery import read_at_once
from backlore.web.request import Disconnected

if TYPE_CHECKING:
    from backlore.web.door.connection import Connection

PIECE = 512 << 10  # bytes sent before other connections get their turn


def fetch(file: int, at: int, size: int) -> None:
    """Read a stretch of a file, so that it is in the page cache. Blocks: call it from a thread."""
    end = at + size
    while at < end and (piece := os.pread(file, min(128 << 10, end - at), at)):
        at += len(piece)


def stretch_of(message: dict[str, Any]) -> tuple[int, int]:
    """The offset and length of the part of a file that a message names.

    By default the part begins at the file's current position and ends at the file's end.
    """
    file, offset = message["file"], message.get("offset")
    if offset is None:
        offset = os.lseek(file, 0, os.SEEK_CUR)
    count = message.get("count")
    return offset, max(os.fstat(file).st_size - offset, 0) if count is None else count


async def send_file(connection: "Connection", file: int, at: int, count: int) -> None:
    """Send `count` bytes of an open file, from `at`. Raises Disconnected; OSError when the file has become shorter."""
    loop = connection.door.loop
    await connection.empty()
    if connection.gone:
        raise Disconnected
    socket = os.dup(connection.fileno())  # the transport owns the original
    try:
        while count:
            size = min(PIECE, count)
            if not (read_at_once(file, 1, at) and read_at_once(file, 1, at + size - 1)):  # one isn't in memory
                await loop.run_in_executor(None, fetch, file, at, size)
                if connection.gone:
                    raise Disconnected
            try:
                sent = os.sendfile(socket, file, at, size)
            except BlockingIOError:
                await connection.wait_until_writable(socket)
                sent = 0
            except (BrokenPipeError, ConnectionError):
                raise Disconnected from None
            else:
                if not sent:
                    raise OSError("the file has become shorter while it was sent")
            if connection.gone:
                raise Disconnected
            at += sent
            count -= sent
            await asyncio.sleep(0)
    finally:
        os.close(socket)
