"""Stamps that all processes of a machine share: by them one learns that another has changed something.

A file of the data folder: a slot of eight random bytes for each tag of users. Laws:

- A reader takes the stamp before it asks redis. What it learns it may remember while the slot has that stamp.
- A writer puts a new stamp there after redis has answered and before its own client is. A random one, never a count:
  two writers at once could bring a count back to where it was.
- An empty slot is no stamp: nobody remembers by it. So nothing is lost with the file.
- Only a reader makes the file: where there is none, nobody remembers anything.
- It is read, not mapped: whoever looks at a mapping of a file that a hand has cut short is killed.
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
    """The stamps of the tags. What belongs to an owner has the one of the first three characters of its name."""

    def __init__(self, file: Path):
        self._file = file
        self._handle = -1
        self._known: tuple[int, int] | None = None  # device and inode of the file we have

    def take(self, owner: str) -> bytes:
        """The stamp, before redis is asked; made if there is none. Raises OSError: then nothing may be remembered."""
        self._follow(os.O_CREAT)
        stamp = self.read(owner)
        if len(stamp) < STAMP or stamp == EMPTY:
            self.renew(owner)
            stamp = self.read(owner)
        return stamp

    def read(self, owner: str) -> bytes:
        """The stamp there is now, once one was taken."""
        return os.pread(self._handle, STAMP, _place(owner[:3]))

    def renew(self, owner: str) -> None:
        """What any process remembers of this owner holds no more. Raises OSError."""
        stamp, place = os.urandom(STAMP), _place(owner[:3])
        if self._known:  # also when it was deleted: others may still have it
            os.pwrite(self._handle, stamp, place)
        with contextlib.suppress(FileNotFoundError):
            if self._follow():
                os.pwrite(self._handle, stamp, place)

    def _follow(self, creating: int = 0) -> bool:
        """Open the file that is there now; whether it is another one than we had. A hand may have replaced it."""
        with contextlib.suppress(FileNotFoundError):
            there = os.stat(self._file)
            if (there.st_dev, there.st_ino) == self._known:
                return False
        if creating:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._file, os.O_RDWR | creating, 0o600)
        if creating and hasattr(os, "posix_fallocate"):
            with contextlib.suppress(OSError):  # room for all of it, so that no writer fails once the disk is full
                os.posix_fallocate(handle, 0, SIZE)
        if self._known:
            os.close(self._handle)
        opened = os.fstat(handle)
        self._handle, self._known = handle, (opened.st_dev, opened.st_ino)
        return True


@lru_cache(32**3)
def _place(tag: str) -> int:
    """Where the stamp of a tag begins, in bytes."""
    slot = 0
    for letter in tag:
        slot = slot << 5 | LETTERS.get(letter, 0)
    return slot * STAMP
