"""Files, sent by the kernel from the page cache to the socket: nothing of them comes here.

Law: the event loop never waits for the disk. What isn't in memory is read by a thread first.
"""

import asyncio
import os
from typing import TYPE_CHECKING

from backlore.web.delivery import read_at_once
from backlore.web.request import Disconnected

if TYPE_CHECKING:
    from backlore.web.door.connection import Connection

PIECE = 512 << 10  # bytes sent before others have their turn


def fetch(file: int, at: int, size: int) -> None:
    """Bring a stretch of a file into memory; for threads."""
    end = at + size
    while at < end and (piece := os.pread(file, min(128 << 10, end - at), at)):
        at += len(piece)


async def send_file(connection: "Connection", file: int, at: int, count: int) -> None:
    """Send `count` bytes of an open file, from `at`. Raises Disconnected; OSError when the file has become shorter."""
    loop = connection.door.loop
    await connection.empty()
    if connection.gone:
        raise Disconnected
    socket = os.dup(connection.fileno())  # the transport has the other one in its own hands
    try:
        while count:
            size = min(PIECE, count)
            if not (read_at_once(file, 1, at) and read_at_once(file, 1, at + size - 1)):  # one isn't in memory
                await loop.run_in_executor(None, fetch, file, at, size)
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
