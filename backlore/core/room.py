"""Checks the room left on a disk."""

import errno
import os
from pathlib import Path


def need_room(place: Path | int, free: int, size: int = 0) -> None:
    """Check that `size` bytes can be written to the disk of a folder or open file, and `free` bytes remain.

    Raises OSError (ENOSPC) if not.
    """
    room = os.statvfs(place)
    if room.f_bavail * room.f_frsize < free + size:
        raise OSError(errno.ENOSPC, "less room than must stay free")
