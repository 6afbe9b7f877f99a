"""Room on a disk."""

import errno
import os
from pathlib import Path


def need_room(place: Path | int, free: int, size: int = 0) -> None:
    """See that `size` bytes can be written to the disk of a folder, or of an open file, and `free` bytes stay.

    Raises OSError: ENOSPC.
    """
    room = os.statvfs(place)
    if room.f_bavail * room.f_frsize < free + size:
        raise OSError(errno.ENOSPC, "less room than what is to stay free")
