"""The terminal that a run was started from. When it closes, the run ends; any other SIGHUP means a reload.

This holds for a run in the terminal's foreground. A run that was put in the background, or is kept by nohup, outlives
its terminal.
"""

import os
import signal


class Terminal:
    """Create it before SIGHUP has our handler. Call `look` regularly, since only an open terminal can answer."""

    def __init__(self) -> None:
        self._handle = -1
        self._ours = False  # whether we were in the foreground when it last answered
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            try:
                self._handle = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
            except OSError:
                return  # there is none
        self.look()

    def look(self) -> bool:
        """Whether the terminal is open. Notes whether we are in its foreground."""
        try:
            self._ours = os.tcgetpgrp(self._handle) == os.getpgrp()
        except OSError:
            return False
        return True

    def has_left_us(self) -> bool:
        """Whether it has hung up on a run in its foreground."""
        return not self.look() and self._ours
