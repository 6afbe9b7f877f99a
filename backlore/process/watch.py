"""Notices changes to an application's code by polling: a few files need no library."""

import os
import time
from pathlib import Path

EVERY = 0.2  # seconds between two looks
MOST = 2000  # files: a folder with more is not one application's own


class Watch:
    """Watches a folder's Python files, except in hidden folders, `__…` folders and node_modules."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._next = 0.0
        self._seen = self._look()

    def changed(self) -> bool:
        """Whether a file was added, removed or written since the last look. Looks at most every EVERY seconds."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + EVERY
        seen, before = self._look(), self._seen
        self._seen = seen
        return seen != before

    def settle(self) -> None:
        """Take the present state as known: `changed` will not report it."""
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
                    except OSError:  # an editor is saving it, or it is a broken link: it can't be code
                        continue
        return found
