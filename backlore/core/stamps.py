"""Stamps in memory that all processes of a machine share: by them one learns that another has changed something.

A file of the data folder, mapped by each process: a slot of eight random bytes for each tag of users. Laws:

- A reader takes the stamp before it asks redis. What it learns it may remember while the slot has that stamp.
- A writer puts a new stamp there after redis has answered and before its own client is. A random one, never a count:
  two writers at once could bring a count back to where it was.
- Nothing is lost with the file: an empty one matches no stamp that anybody remembers.
"""

import contextlib
import mmap
import os
from functools import cached_property
from pathlib import Path

LETTERS = {letter: place for place, letter in enumerate("abcdefghijklmnopqrstuvwxyz234567")}
SIZE = 32**3 * 8  # bytes


class Stamps:
    """The stamps of the tags. `file` is made when it is first read, if it isn't there."""

    def __init__(self, file: Path):
        self._file = file

    @cached_property
    def _slots(self) -> memoryview:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(handle).st_size < SIZE:
                # room for all of it now: on a disk that has become full a process would be killed by its first look
                os.posix_fallocate(handle, 0, SIZE) if hasattr(os, "posix_fallocate") else os.ftruncate(handle, SIZE)
            return memoryview(mmap.mmap(handle, SIZE, prot=mmap.PROT_READ)).cast("Q")
        finally:
            os.close(handle)

    @cached_property
    def _handle(self) -> int:
        return os.open(self._file, os.O_WRONLY)

    def read(self, owner: str) -> int:
        """The stamp of what belongs to an owner, by the first three characters of its name."""
        stamp: int = self._slots[_slot(owner)]
        return stamp

    def renew(self, owner: str) -> None:
        """What any process remembers of this owner holds no more. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):  # nobody has read it, so nobody remembers anything
            os.pwrite(self._handle, os.urandom(8), _slot(owner) * 8)


def _slot(owner: str) -> int:
    place = LETTERS.get
    return place(owner[0], 0) << 10 | place(owner[1], 0) << 5 | place(owner[2], 0)
