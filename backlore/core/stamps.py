"""Stamps in memory that all processes of a machine share: by them one learns that another has changed something.

A file of the data folder, mapped by each process: a slot of eight random bytes for each tag of users. Laws:

- A reader takes the stamp before it asks redis. What it learns it may remember while the slot has that stamp.
- A writer puts a new stamp there after redis has answered and before its own client is. A random one, never a count:
  two writers at once could bring a count back to where it was.
- Nothing is lost with the file: an empty one matches no stamp that anybody remembers.
"""

import mmap
import os
from pathlib import Path

LETTERS = {letter: place for place, letter in enumerate("abcdefghijklmnopqrstuvwxyz234567")}
SLOTS = 32**3


class Stamps:
    """The stamps of the tags. `file` is made if it isn't there."""

    def __init__(self, file: Path):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(handle, SLOTS * 8)
            self._slots = memoryview(mmap.mmap(handle, SLOTS * 8)).cast("Q")
        finally:
            os.close(handle)

    def read(self, owner: str) -> int:
        """The stamp of what belongs to an owner, by the first three characters of its name."""
        return self._slots[_slot(owner)]

    def renew(self, owner: str) -> None:
        """What any process remembers of this owner holds no more."""
        self._slots[_slot(owner)] = int.from_bytes(os.urandom(8), "little")


def _slot(owner: str) -> int:
    place = LETTERS.get
    return place(owner[0], 0) << 10 | place(owner[1], 0) << 5 | place(owner[2], 0)
