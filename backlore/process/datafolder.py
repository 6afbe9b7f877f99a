"""The data folder: one master at a time holds it, and a folder that belongs to something else is refused.

A folder is recognised as ours by its `lock`, a file with the id of the process that holds it.
"""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO

from backlore.core.config import ConfigError, Settings
from backlore.core.temporary import FOLDER

USED = ("redis", "files", "outbox")  # names in it that we read and write
OURS = {*USED, FOLDER, "fileserver", "stamps", "uploads"}  # everything that we create there, or did once
CHOOSE = "choose another with --data"


def hold(settings: Settings) -> IO[str]:
    """Make the data folder and hold it while the returned file is open. Raises ConfigError when it can't be ours."""
    folder = settings.data
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if why := foreign(folder):
            raise ConfigError(f"The data folder {folder} {why}: {CHOOSE}.")
        file = (folder / "lock").open("a+")
    except OSError as error:
        raise ConfigError(f"The data folder {folder} can't be written ({error.strerror}): {CHOOSE}.") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise ConfigError(
            f"The data folder {folder} is in use by process {file.read().strip()}: stop it, or {CHOOSE}."
        ) from None
    with contextlib.suppress(OSError):  # the disk is full: the engine reports that, and the id is only for people
        os.truncate(file.fileno(), 0)
        os.write(file.fileno(), str(os.getpid()).encode())
    return file


def foreign(folder: Path) -> str:
    """Why the contents of a folder can't be ours, or "" when they can. Raises OSError."""
    lock = folder / "lock"
    if os.path.lexists(lock):
        with lock.open("rb") as file:
            text = file.read(100)
        return "" if not text or text.isdigit() else "holds a file `lock` of somebody else's"
    there = set(os.listdir(folder))
    meant = sorted(there.intersection(USED))
    return f"holds {', '.join(meant)} of somebody else's" if meant and there - OURS else ""
