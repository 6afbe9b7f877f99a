"""Sees when an application's code changes, by looking: a few files need no library."""

import os
import time
from pathlib import Path

EVERY = 0.2  # seconds between two looks
MOST = 2000  # files: beyond, the folder is no application's own


class Watch:
    """Looks at the Python files of a folder; hidden folders and those of no code of ours are left out."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._next = 0.0
        self._seen = self._look()

    def changed(self) -> bool:
        """Whether a file has come, gone or been written since the last time. Looks no more often than it should."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + EVERY
        seen, before = self._look(), self._seen
        self._seen = seen
        return seen != before

    def settle(self) -> None:
        """What has changed until now is known."""
        self._seen = self._look()

    def _look(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for folder, inner, files in os.walk(self._folder):
            inner[:] = [name for name in inner if not name.startswith((".", "__")) and name != "node_modules"]
            for name in files:
                if name.endswith(".py") and len(found) < MOST:
                    path = os.path.join(folder, name)
                    try:
                        found[path] = os.stat(path).st_mtime_ns
                    except (
                        OSError
                    ):  # an editor is at work, a link leads nowhere or to itself: what can't be read is no code
                        continue
        return found
