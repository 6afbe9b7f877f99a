"""Room on a disk."""

import errno
import os
from pathlib import Path


def need_room(place: Path | int, free: int) -> None:
    """See that the disk of a folder, or of an open file, has `free` bytes left. Raises OSError: ENOSPC."""
    room = os.statvfs(place)
    if room.f_bavail * room.f_frsize < free:
        raise OSError(errno.ENOSPC, "less room than what is to stay free")
