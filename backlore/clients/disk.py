"""The local disk: whole contents by name, written so that none is ever seen half.

    FOLDER/contents/9f/9f2c…   a content, by its name
    FOLDER/drafts/…            what is being written; what is older than a day is nobody's
    FOLDER/locks/9f            for being alone with one

Laws: a content appears by a link to a file that was written and fsynced whole, and the folder is fsynced after it; a
name is never used for another content; names are made by us, of letters and digits. What came whole is sealed by its
mode: only what was begun by an append grows. Every call that may wait for the disk runs in a thread of ours; whoever is
cancelled meanwhile goes when the thread has ended, so that what is done next meets nothing under way. Who waits for
somebody else's lock has other threads, for its holder may need one of these.
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
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from backlore.core.crypto import random_text
from backlore.core.room import need_room

T = TypeVar("T")

THREADS = 8  # of a process, for the disk alone; and as many for waiting
NAME = re.compile("[a-z0-9]{8,64}")
DRAFT = re.compile("[a-z0-9]{26}")  # as random_text(128) makes them: what has another name is none of ours
PIECE = 1 << 20  # bytes read or written at once
DRAFTS_LIVE = 86400.0  # seconds
SEALED = 0o444  # the mode of a content that came whole


class ContentGone(Exception):
    """No such content is here."""


class Misplaced(Exception):
    """What is to be added doesn't belong behind that byte: the content ends elsewhere, is sealed, or is not here."""


class KeptContent(NamedTuple):
    """A content that is here: bytes, and seconds since its last change."""

    name: str
    size: int
    age: float


class Draft:
    """A content that is being written. `size` in bytes; `hash` is the SHA-256 of what was written, as hex."""

    def __init__(self, disk: "Disk", path: Path, size: int = 0, hash: str = ""):
        self.path = path
        self.size = size
        self._disk = disk
        self._known = hash  # of one that came whole
        self._hash = hashlib.sha256()
        self._file = path.open("rb" if hash else "a+b", buffering=0)

    @property
    def hash(self) -> str:
        """Of all bytes so far."""
        return self._known or self._hash.hexdigest()

    async def write(self, data: bytes | memoryview) -> None:
        """Add bytes. Raises OSError, ENOSPC too when room gets short."""
        await self._disk.run(self._write, data)

    async def head(self, length: int) -> bytes:
        """The first bytes."""
        return await self._disk.run(os.pread, self._file.fileno(), length, 0)

    async def read(self) -> AsyncIterator[bytes]:
        """All that was written, piece by piece; as often as one likes."""
        at = 0
        while piece := await self._disk.run(os.pread, self._file.fileno(), PIECE, at):
            at += len(piece)
            yield piece

    async def keep(self, name: str) -> None:
        """Make it the content of this name, for good, unless one as long is there already. Raises OSError."""
        await self._disk.run(self._keep, name)

    async def discard(self) -> None:
        """Forget it; also after `keep`, whose content stays."""
        await self._disk.run(self.drop)

    def _write(self, data: bytes | memoryview) -> None:
        self._disk.need_room(len(data))
        left = memoryview(data)
        self._hash.update(left)
        self.size += len(left)
        while left:
            left = left[self._file.write(left) :]

    def _keep(self, name: str) -> None:
        os.fchmod(self._file.fileno(), SEALED)
        os.fsync(self._file.fileno())
        self._disk.link(self.path, name)

    def drop(self) -> None:
        """The same, for threads."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class Disk:
    """The contents below a folder, which `prepare` makes. `free`: bytes of the disk that are not for them."""

    def __init__(self, folder: Path, free: int = 0):
        self.folder = folder
        self._free = free
        self._contents = folder / "contents"
        self._root = str(self._contents)  # joining Paths takes longer than looking at what they lead to
        self._drafts = folder / "drafts"
        self._locks = folder / "locks"
        self._stripes: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="disk")
        self._waiting = ThreadPoolExecutor(THREADS, thread_name_prefix="disk-locks")

    def prepare(self) -> None:
        """Make the folders that are missing; before all else. Raises OSError."""
        for each in (self._contents, self._drafts, self._locks):
            each.mkdir(parents=True, exist_ok=True)

    async def run(self, function: Callable[..., T], *given: Any) -> T:
        """What a function that waits for the disk gives, from a thread of ours; it ends also when we are cancelled."""
        return await _whole(asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *given)))

    async def draft(self) -> Draft:
        """A new draft; end it by `discard`, also when it was kept. Raises OSError, ENOSPC too when room gets short."""
        return await self._make(self._draft)

    async def adopt(self, path: Path, size: int, hash: str) -> Draft:
        """A draft that is a whole file already, of the same file system, whose own name stays. Raises OSError."""
        return await self._make(self._adopt, path, size, hash)

    async def adopt_grown(self, name: str, size: int) -> Draft:
        """A draft of a content that was added to and shall be no more, read once for its hash.

        Raises Misplaced when it has not just so many bytes; ContentGone, OSError.
        """
        return await self._make(self._adopt_grown, name, size)

    @contextlib.asynccontextmanager
    async def alone(self, what: str) -> AsyncIterator[None]:
        """While it lasts nobody else on this machine is within the same `what`, or rarely within another."""
        stripe = hashlib.sha256(what.encode()).hexdigest()[:2]
        async with self._stripes[stripe]:  # of this process one at a time, so that waiting takes one thread
            with (self._locks / stripe).open("ab") as file:
                await asyncio.get_running_loop().run_in_executor(self._waiting, fcntl.flock, file, fcntl.LOCK_EX)
                yield

    def path(self, name: str) -> Path:
        """Where a content is, or would be."""
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no content's name")
        return self._contents / name[:2] / name

    async def size(self, name: str) -> int:
        """Bytes of a content. Raises ContentGone."""
        try:
            return (await self.run(os.stat, self.path(name))).st_size
        except FileNotFoundError:
            raise ContentGone(name) from None

    def find(self, name: str, size: int) -> str:
        """The path of a content of at least so many bytes, "" if there is none.

        At once: a thread would take far longer than a look at a name does.
        """
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no content's name")
        place = f"{self._root}/{name[:2]}/{name}"
        try:
            return place if os.stat(place).st_size >= size else ""
        except FileNotFoundError:
            return ""

    async def append(self, name: str, at: int, data: bytes, exactly: bool = False) -> None:
        """Write behind the first `at` bytes of a content, or begin one at 0, and fsync.

        What stands behind them was never acknowledged and goes; `exactly`: it doesn't, and nothing is written.
        Raises OSError; Misplaced when the content is shorter, or sealed.
        """
        await self.run(self._append, name, at, data, exactly)

    async def delete(self, name: str) -> None:
        """Delete a content, if it is there."""
        await self.run(self._delete, name)

    async def names(self) -> list[KeptContent]:
        """All contents."""
        return await self.run(lambda: list(self._names("")))

    async def hash(self, name: str, size: int) -> str:
        """The SHA-256 of the first `size` bytes of a content, as hex. Raises ContentGone, OSError."""
        return await self.run(self._sha256, name, size)

    async def page(self, after: str, limit: int) -> list[KeptContent]:
        """The contents whose names come next behind one, in the order of names."""
        return await self.run(lambda: list(itertools.islice(self._names(after), limit)))

    async def sweep(self) -> int:
        """Delete drafts that nobody writes any more; how many they were."""
        return await self.run(self._sweep)

    def close(self) -> None:
        """End the threads."""
        for threads in (self._threads, self._waiting):
            threads.shutdown(wait=False, cancel_futures=True)

    def link(self, path: Path, name: str) -> None:
        """Give a written file its name among the contents, durably; for threads.

        One that is there already, and shorter, is the beginning of it, and gives way.
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
        """A draft that a thread makes; whoever is cancelled meanwhile leaves none."""
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

    def _draft(self) -> Draft:
        self.need_room()
        return Draft(self, self._drafts / random_text(128))

    def need_room(self, size: int = 0) -> None:
        """Raises OSError, ENOSPC, when `size` bytes more should not be written; for threads."""
        need_room(self._drafts, self._free, size)

    def _append(self, name: str, at: int, data: bytes, exactly: bool) -> None:
        self.need_room(len(data))
        target = self.path(name)
        target.parent.mkdir(exist_ok=True)
        with open(_open_to_grow(target, at), "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # to look and to write is one step
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
                fcntl.flock(file, fcntl.LOCK_EX)  # whoever adds to it just now ends first
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
    """What a thread gives. Whoever is cancelled waits for its end all the same, however often they are cancelled."""
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        while not doing.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([doing])
        raise


def _open_to_grow(path: Path, at: int) -> int:
    """A handle on a content that may be added to, a new one at 0. Raises Misplaced, OSError."""
    try:
        if is_sealed(path.stat()):
            raise Misplaced(path.name)
    except FileNotFoundError:
        if at:
            raise Misplaced(path.name) from None
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def is_sealed(status: os.stat_result) -> bool:
    """Whether a content came whole. Root could write to it all the same."""
    return status.st_mode & 0o777 == SEALED


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
