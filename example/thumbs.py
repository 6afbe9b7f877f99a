"""Thumbnails: made by the darkroom, kept in a folder by the hash of the picture's content.

Laws: the folder is a cache and can be deleted at any time. A thumbnail is made once for all requests that wait for it.
Each server process has at most one picture in the darkroom at a time, and users take turns. The darkroom runs from the
first picture until it has been idle for a while, and is started again after it died.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

from backlore import Turns

DARKROOM = Path(__file__).with_name("darkroom.py")
PATIENCE = 20.0  # seconds for one picture, by the clock
IDLE = 60.0  # seconds after which the darkroom ends
EACH, TOTAL = 100, 400  # pictures that may wait: of one user, of all

Size = tuple[int, int]  # pixels: width, height


class NoPicture(Exception):
    """The file can't be shown as a picture; the text is a sentence for people."""


class Thumbs:
    """The thumbnails below a folder."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._darkroom = Darkroom()
        self._making: dict[str, asyncio.Task[Size]] = {}

    async def make(self, user: str, picture: Path, hash: str) -> Size:
        """Make and keep the thumbnail of a user's picture. Returns its size. Raises NoPicture, Busy, OSError."""
        thumb = self._place(hash)
        thumb.parent.mkdir(parents=True, exist_ok=True)
        return await self._darkroom.develop(user, picture, thumb)

    async def get(self, user: str, hash: str, read: Callable[[], AsyncIterator[bytes]]) -> bytes:
        """The thumbnail, a WebP. `read` gives the picture if it must be made. Raises NoPicture, Busy, OSError."""
        thumb = self._place(hash)
        if not thumb.exists():
            await self._make_once(user, hash, read)
        return await asyncio.to_thread(thumb.read_bytes)

    async def close(self) -> None:
        await self._darkroom.end()

    async def _make_once(self, user: str, hash: str, read: Callable[[], AsyncIterator[bytes]]) -> None:
        task = self._making.get(hash)
        if task is None:
            task = self._making[hash] = asyncio.create_task(self._make_of(user, hash, read))
            task.add_done_callback(lambda _: self._making.pop(hash, None))
        await asyncio.shield(task)  # a request that is cancelled does not stop it for the others

    async def _make_of(self, user: str, hash: str, read: Callable[[], AsyncIterator[bytes]]) -> Size:
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".picture") as copy:
            async for piece in read():
                await asyncio.to_thread(copy.write, piece)
            copy.flush()
            return await self.make(user, Path(copy.name), hash)

    def _place(self, hash: str) -> Path:
        return self._folder / hash[:2] / f"{hash}.webp"


class Darkroom:
    """The process that looks at pictures."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._turns = Turns(1, each=EACH, total=TOTAL)
        self._timer: asyncio.TimerHandle | None = None

    async def develop(self, user: str, picture: Path, thumb: Path) -> Size:
        """Write the thumbnail of a picture to `thumb`. Returns the picture's size. Raises NoPicture, Busy, OSError."""
        asked = {"picture": str(picture), "thumb": str(thumb)}
        said = await self._turns.run(user, partial(self._say, asked))
        if "why" in said:
            raise NoPicture(said["why"])
        if "errno" in said:
            raise OSError(said["errno"], "the thumbnail could not be written")
        return said["width"], said["height"]

    async def end(self) -> None:
        """End the process; the next picture starts another."""
        if self._timer:
            self._timer.cancel()
        process, self._process = self._process, None
        if process:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            await process.wait()

    async def _say(self, asked: dict[str, str]) -> dict:
        is_there = self._process is not None and not self._process.stdin.is_closing()
        said = await self._ask(asked) if is_there else None
        if said is None:  # an idle process may have been killed
            await self.end()
            said = await self._ask(asked)
        if said is None:
            await self.end()
        return said or {"why": "It takes too much to unpack."}

    async def _ask(self, asked: dict[str, str]) -> dict | None:
        """The darkroom's reply; None when it died or does not answer."""
        process = self._process or await self._start()
        if self._timer:
            self._timer.cancel()
        try:
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
        except (TimeoutError, ConnectionError):
            return None
        self._timer = asyncio.get_running_loop().call_later(IDLE, self._rest)
        return json.loads(line) if line else None

    def _rest(self) -> None:
        """Let an idle process end. It is given up: nothing more is sent to it."""
        process, self._process = self._process, None
        if process:
            process.stdin.close()

    async def _start(self) -> asyncio.subprocess.Process:
        # a session of its own: Ctrl-C in the terminal is for the server, and the darkroom ends with the server
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", DARKROOM),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        return self._process
