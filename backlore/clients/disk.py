"""The local disk: contents by name, written so that a half-written one is never seen.

    FOLDER/contents/9f/9f2c…   a content, by its name
    FOLDER/drafts/…            contents being written; a draft older than a day is orphaned
    FOLDER/locks/9f            locks for exclusive work

Laws:

- A content appears as a hard link to a file that was written and fsynced as a whole; then the folder is fsynced.
- A name is never reused for another content. We make the names, from letters and digits.
- A content that came whole is sealed by its file mode: only one that was begun by an append grows.
- Every call that may wait for the disk runs in a thread of our pool. A caller that is cancelled meanwhile still waits
  for the thread to end, so that its next step finds no work in flight.
- Waiting for a lock uses other threads: the holder of the lock may need one of the pool.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import itertools
import os
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from backlore.core.crypto import random_text
from backlore.core.room import need_room

T = TypeVar("T")

THREADS = 8  # of a process for the disk, and as many again for waiting for locks
NAME = re.compile("[a-z0-9]{8,64}")
DRAFT = re.compile("[a-z0-9]{26}")  # as random_text(128) makes them: a file with another name is not ours
PIECE = 1 << 20  # bytes read or written at once
FIRST = 4096  # bytes of a draft that are remembered
DRAFTS_LIVE = 86400.0  # seconds
SEALED = 0o444  # the mode of a content that came whole


class ContentGone(Exception):
    """The disk has no such content."""


class Misplaced(Exception):
    """Data can't be appended at this offset: the content ends elsewhere, is sealed, or doesn't exist."""


class KeptContent(NamedTuple):
    """A content on the disk. `size` is in bytes, `age` in seconds since its last change."""

    name: str
    size: int
    age: float


class Draft:
    """A content that is being written. `size` in bytes; `hash` is the SHA-256 of the bytes so far, as hex."""

    def __init__(self, disk: "Disk", path: Path, size: int = 0, hash: str = ""):
        self.path = path
        self.size = size
        self._disk = disk
        self._known = hash  # given for a file that came whole
        self._hash = hashlib.sha256()
        self._first = b""
        self._file = path.open("rb" if hash else "a+b", buffering=0)

    @property
    def hash(self) -> str:
        """The SHA-256 of all bytes so far, as hex."""
        return self._known or self._hash.hexdigest()

    async def write(self, data: bytes | memoryview) -> None:
        """Add bytes. Raises OSError; ENOSPC already when less than the reserve would stay free."""
        await self._disk.run(self.write_now, data)

    async def copy(self, source: FileIO) -> bool:
        """Add the next piece of a file. Returns whether there was one. Raises as `write`."""
        return await self._disk.run(self._copy, source)

    async def head(self, length: int) -> bytes:
        """The first `length` bytes."""
        if length <= len(self._first) or len(self._first) == self.size:
            return self._first[:length]
        return await self._disk.run(os.pread, self._file.fileno(), length, 0)

    async def read(self) -> AsyncIterator[bytes]:
        """All bytes written, piece by piece. It may be called again."""
        at = 0
        while piece := await self._disk.run(os.pread, self._file.fileno(), PIECE, at):
            at += len(piece)
            yield piece

    async def keep(self, name: str) -> None:
        """Make it, durably, the content of this name, unless there already is one at least as long. Raises OSError."""
        await self._disk.run(self._keep, name)

    async def discard(self) -> None:
        """Delete the draft. After `keep` the content stays."""
        await self._disk.run(self.drop)

    def write_now(self, data: bytes | memoryview) -> None:
        """Like `write`, but blocks."""
        self._disk.need_room(len(data))
        left = memoryview(data)
        if self.size < FIRST:
            self._first += left[: FIRST - self.size]
        self._hash.update(left)
        self.size += len(left)
        while left:
            left = left[self._file.write(left) :]

    def _copy(self, source: FileIO) -> bool:
        piece = source.read(PIECE)
        self.write_now(piece)
        return bool(piece)

    def _keep(self, name: str) -> None:
        os.fchmod(self._file.fileno(), SEALED)
        os.fsync(self._file.fileno())
        self._disk.link(self.path, name)

    def drop(self) -> None:
        """Like `discard`, but blocks."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class Disk:
    """The contents below a folder, which `prepare` makes. `free`: bytes of the disk that must stay free."""

    def __init__(self, folder: Path, free: int = 0):
        self.folder = folder
        self._free = free
        self._contents = folder / "contents"
        self._root = str(self._contents)  # joining Paths takes longer than the stat itself
        self._drafts = folder / "drafts"
        self._locks = folder / "locks"
        self._stripes: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="disk")
        self._waiting = ThreadPoolExecutor(THREADS, thread_name_prefix="disk-locks")

    def prepare(self) -> None:
        """Make missing folders; call it first. Raises OSError."""
        for each in (self._contents, self._drafts, self._locks):
            each.mkdir(parents=True, exist_ok=True)

    async def run(self, function: Callable[..., T], *given: Any) -> T:
        """Run a blocking function in a thread of our pool; returns its result. It finishes even if we are cancelled."""
        return await _whole(asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *given)))

    async def draft(self, data: bytes = b"") -> Draft:
        """A new draft that begins with `data`. End it with `discard`, even after `keep`.

        Raises OSError; ENOSPC already when less than the reserve would stay free.
        """
        return await self._make(self._draft, data)

    async def adopt(self, path: Path, size: int, hash: str) -> Draft:
        """A draft made from a whole file on the same file system, which keeps its own name too. Raises OSError."""
        return await self._make(self._adopt, path, size, hash)

    async def adopt_grown(self, name: str, size: int) -> Draft:
        """A draft made from a content that was appended to. The content is sealed, and read once for its hash.

        Raises Misplaced when it doesn't have exactly `size` bytes; ContentGone, OSError.
        """
        return await self._make(self._adopt_grown, name, size)

    @contextlib.asynccontextmanager
    async def alone(self, what: str) -> AsyncIterator[None]:
        """Hold the lock named `what`, exclusively on this machine. Rarely two names share a lock."""
        stripe = hashlib.sha256(what.encode()).hexdigest()[:2]
        async with self._stripes[stripe]:  # one waiter per process and lock, so that waiting takes one thread
            with (self._locks / stripe).open("ab") as file:
                await asyncio.get_running_loop().run_in_executor(self._waiting, fcntl.flock, file, fcntl.LOCK_EX)
                yield

    def path(self, name: str) -> Path:
        """The path of a content, whether it exists or not."""
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no content's name")
        return self._contents / name[:2] / name

    async def size(self, name: str) -> int:
        """The size of a content in bytes. Raises ContentGone."""
        try:
            return (await self.run(os.stat, self.path(name))).st_size
        except FileNotFoundError:
            raise ContentGone(name) from None

    def find(self, name: str, size: int) -> str:
        """The path of a content of at least `size` bytes; "" if there is none.

        It blocks for one stat: going through a thread would take far longer.
        """
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no content's name")
        place = f"{self._root}/{name[:2]}/{name}"
        try:
            return place if os.stat(place).st_size >= size else ""
        except FileNotFoundError:
            return ""

    async def append(self, name: str, at: int, data: bytes, exactly: bool = False) -> None:
        """Write data behind the first `at` bytes of a content, or begin a content at 0, and fsync.

        Bytes that were there behind `at` were never acknowledged, and are dropped. With `exactly` they are not: then
        Misplaced is raised and nothing written. Raises OSError; Misplaced when the content is shorter, or sealed.
        """
        await self.run(self._append, name, at, data, exactly)

    async def delete(self, name: str) -> None:
        """Delete a content, if it is there."""
        await self.run(self._delete, name)

    async def names(self) -> list[KeptContent]:
        """All contents, in the order of names."""
        return await self.run(lambda: list(self._names("")))

    async def hash(self, name: str, size: int) -> str:
        """The SHA-256 of the first `size` bytes of a content, as hex. Raises ContentGone, OSError."""
        return await self.run(self._sha256, name, size)

    async def page(self, after: str, limit: int) -> list[KeptContent]:
        """The next `limit` contents with names behind `after`, in the order of names."""
        return await self.run(lambda: list(itertools.islice(self._names(after), limit)))

    async def sweep(self) -> int:
        """Delete orphaned drafts. Returns their number."""
        return await self.run(self._sweep)

    def close(self) -> None:
        """End the threads, without waiting for them."""
        for threads in (self._threads, self._waiting):
            threads.shutdown(wait=False, cancel_futures=True)

    def link(self, path: Path, name: str) -> None:
        """Link a written file under its name among the contents, durably. Blocks.

        A shorter content of this name is the beginning of the file, and is replaced.
        """
        target = self.path(name)
        if not target.parent.is_dir():
            target.parent.mkdir(exist_ok=True)
            fsync_folder(self._contents)
        try:
            os.link(path, target)
        except FileExistsError:
            if target.stat().st_size < path.stat().st_size:
                os.replace(path, target)
        fsync_folder(target.parent)

    async def _make(self, make: Callable[..., Draft], *given: Any) -> Draft:
        """Make a draft in a thread. If the caller is cancelled meanwhile, the draft is deleted."""
        making = asyncio.get_running_loop().run_in_executor(self._threads, partial(make, *given))
        try:
            return await _whole(making)
        except asyncio.CancelledError:
            if not making.cancelled() and not making.exception():
                making.result().drop()
            raise

    def _adopt(self, path: Path, size: int, hash: str) -> Draft:
        target = self._drafts / random_text(128)
        os.link(path, target)
        return Draft(self, target, size, hash)

    def _draft(self, data: bytes) -> Draft:
        draft = Draft(self, self._drafts / random_text(128))
        try:
            draft.write_now(data)
        except BaseException:
            draft.drop()
            raise
        return draft

    def need_room(self, size: int = 0) -> None:
        """Raises OSError (ENOSPC) when `size` more bytes would leave less than the reserve free. Blocks."""
        need_room(self._drafts, self._free, size)

    def _append(self, name: str, at: int, data: bytes, exactly: bool) -> None:
        self.need_room(len(data))
        target = self.path(name)
        target.parent.mkdir(exist_ok=True)
        with open(_open_to_grow(target, at), "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # makes check and write one step
            status = os.fstat(file.fileno())
            if status.st_size < at or (exactly and status.st_size > at) or is_sealed(status):
                raise Misplaced(name)
            file.truncate(at)
            file.seek(at)
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
            os.fdatasync(file.fileno())
        if not at:
            fsync_folder(target.parent)
            fsync_folder(self._contents)

    def _adopt_grown(self, name: str, size: int) -> Draft:
        target = self._drafts / random_text(128)
        try:
            os.link(self.path(name), target)
        except FileNotFoundError:
            raise ContentGone(name) from None
        try:
            with target.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # waits for an append in flight
                if os.fstat(file.fileno()).st_size != size:
                    raise Misplaced(name)
                os.fchmod(file.fileno(), SEALED)
                return Draft(self, target, size, hashlib.file_digest(file, "sha256").hexdigest())
        except BaseException:
            target.unlink()
            raise

    def _delete(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)

    def _sha256(self, name: str, size: int) -> str:
        digest = hashlib.sha256()
        try:
            with self.path(name).open("rb", buffering=0) as file:
                while piece := file.read(min(PIECE, size)):
                    digest.update(piece)
                    size -= len(piece)
        except FileNotFoundError:
            raise ContentGone(name) from None
        return digest.hexdigest()

    def _names(self, after: str) -> Iterator[KeptContent]:
        now = time.time()
        folders = (each.name for each in os.scandir(self._contents) if each.is_dir(follow_symlinks=False))
        for folder in sorted(name for name in folders if name >= after[:2]):
            for each in sorted(os.scandir(self._contents / folder), key=lambda entry: entry.name):
                if each.name > after:
                    with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                        status = each.stat(follow_symlinks=False)
                        yield KeptContent(each.name, status.st_size, now - status.st_mtime)

    def _sweep(self) -> int:
        count = 0
        for each in os.scandir(self._drafts):
            with contextlib.suppress(FileNotFoundError):  # its writer has just ended
                is_ours = DRAFT.fullmatch(each.name) and each.is_file(follow_symlinks=False)
                if is_ours and time.time() - each.stat().st_mtime > DRAFTS_LIVE:
                    os.unlink(each.path)
                    count += 1
        return count


async def _whole(doing: "asyncio.Future[T]") -> T:
    """The result of a thread's work. A caller that is cancelled, however often, still waits for the thread to end."""
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        while not doing.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([doing])
        raise


def _open_to_grow(path: Path, at: int) -> int:
    """Open a content that may grow, or at 0 a new one; returns the handle. Raises Misplaced, OSError."""
    try:
        if is_sealed(path.stat()):
            raise Misplaced(path.name)
    except FileNotFoundError:
        if at:
            raise Misplaced(path.name) from None
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def is_sealed(status: os.stat_result) -> bool:
    """Whether a content came whole. The mode is checked, because root could write to it anyway."""
    return status.st_mode & 0o777 == SEALED


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Blocks."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
