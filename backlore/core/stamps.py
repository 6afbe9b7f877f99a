"""Stamps shared by all processes of a machine: they tell one process that another has changed something.

The stamps are a file in the data folder: one slot of eight random bytes for each tag of users. Laws:

- A reader takes the stamp before it asks redis. It may cache the answer for as long as the slot has that stamp.
- A writer writes a new stamp after redis has answered and before it answers its own client. The stamp is random, not
  a counter: two concurrent writers could set a counter back to an old value.
- An empty slot is no stamp: nothing is cached by it. So losing the file is harmless.
- Only a reader creates the file: while there is none, no process caches anything.
- The file is read, not mapped: a process that touches a mapping of a truncated file is killed.
"""

import contextlib
import os
from functools import lru_cache
from pathlib import Path

LETTERS = {letter: place for place, letter in enumerate("abcdefghijklmnopqrstuvwxyz234567")}
STAMP = 8  # bytes
SIZE = 32**3 * STAMP  # bytes
EMPTY = bytes(STAMP)


class Stamps:
    """The stamps in a file. The first three characters of an owner's id are the tag whose stamp covers its data."""

    def __init__(self, file: Path):
        self._file = file
        self._handle = -1
        self._known: tuple[int, int] | None = None  # device and inode of the file that is open

    def take(self, owner: str) -> bytes:
        """The stamp, to be taken before redis is asked; made if there is none.

        Raises OSError: then nothing may be cached.
        """
        self._follow(os.O_CREAT)
        stamp = self.read(owner)
        if len(stamp) < STAMP or stamp == EMPTY:
            self.renew(owner)
            stamp = self.read(owner)
        return stamp

    def read(self, owner: str) -> bytes:
        """The current stamp. Call `take` first: it opens the file."""
        return os.pread(self._handle, STAMP, _place(owner[:3]))

    def renew(self, owner: str) -> None:
        """Make stale whatever any process has cached about this owner. Raises OSError."""
        stamp, place = os.urandom(STAMP), _place(owner[:3])
        if self._known:  # even if the file was deleted: other processes may still have it open
            os.pwrite(self._handle, stamp, place)
        with contextlib.suppress(FileNotFoundError):
            if self._follow():
                os.pwrite(self._handle, stamp, place)

    def _follow(self, creating: int = 0) -> bool:
        """Open the file that is there now, as somebody may have replaced it. Returns whether it is a different one."""
        with contextlib.suppress(FileNotFoundError):
            there = os.stat(self._file)
            if (there.st_dev, there.st_ino) == self._known:
                return False
        if creating:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._file, os.O_RDWR | creating, 0o600)
        if creating and hasattr(os, "posix_fallocate"):
            with contextlib.suppress(OSError):  # reserves the whole file, so that no writer fails when the disk is full
                os.posix_fallocate(handle, 0, SIZE)
        if self._known:
            os.close(self._handle)
        opened = os.fstat(handle)
        self._handle, self._known = handle, (opened.st_dev, opened.st_ino)
        return True


@lru_cache(32**3)
def _place(tag: str) -> int:
    """The offset of a tag's stamp, in bytes."""
    slot = 0
    for letter in tag:
        slot = slot << 5 | LETTERS.get(letter, 0)
    return slot * STAMP
