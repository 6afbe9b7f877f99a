"""The terminal that a run was started from. Its end means the end of the run; any other SIGHUP means a reload.

A run is of its terminal as long as it is in its foreground: what was put in the background, or is told by nohup to
stay, outlives it.
"""

import os
import signal


class Terminal:
    """Made before SIGHUP has a handler of ours; `look` now and then, since only a living terminal tells."""

    def __init__(self) -> None:
        self._handle = -1
        self._ours = False  # whether we were in the foreground when it last told
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            try:
                self._handle = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
            except OSError:
                return  # there is none
        self.look()

    def look(self) -> bool:
        """Whether it is there."""
        try:
            self._ours = os.tcgetpgrp(self._handle) == os.getpgrp()
        except OSError:
            return False
        return True

    def has_left_us(self) -> bool:
        """Whether it has hung up on a run in its foreground."""
        return not self.look() and self._ours
