"""Files that last as long as a request, in a folder of their own below the data folder.

Law: only files in this folder whose names have our pattern are deleted; anything else there stays.
"""

import contextlib
import re
import tempfile
import time
from pathlib import Path

FOLDER = "backlore-temporary"
PREFIX = "request-"
NAME = re.compile(PREFIX + "[a-z0-9_]{8}")  # as mkstemp makes them
LIVES = 86400.0  # seconds without a write after which a file is orphaned


def make(folder: Path) -> tuple[int, Path]:
    """Make a new file. Returns its open handle and its path. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, path = tempfile.mkstemp(prefix=PREFIX, dir=folder)
    return handle, Path(path)


def sweep(folder: Path, lives: float = LIVES) -> None:
    """Delete the files that requests of killed workers have left: not written to for `lives` seconds. Blocks."""
    for path in folder.glob(f"{PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):  # its request has just ended
            if NAME.fullmatch(path.name) and time.time() - path.lstat().st_mtime >= lives and not path.is_dir():
                path.unlink()
