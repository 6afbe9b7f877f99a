"""A child process of the master, from the master's side: start it, listen to it, end it.

Law: a child reports only on its line, a socket pair: `ready`, or why it can't start. The line closes when either side
ends.
"""

import signal
import socket
import time

from backlore.process.zygote import Zygote

READY = b"ready\n"  # the only thing that a child says on its line, unless it can't start


class Child:
    """A worker or the tasks process."""

    def __init__(self, role: str, zygote: Zygote, listener: socket.socket):
        self.role = role
        self.born = time.monotonic()
        self.ready = False
        self.why = ""  # why it could not start, if the application is to blame
        self.ending = 0.0  # when it will be killed; 0 until it is told to end
        self._hung_up = False
        self.line, theirs = socket.socketpair()
        self.line.setblocking(False)
        self.process = zygote.bear(role, theirs, listener)

    def look(self) -> bool:
        """Read the child's line. Returns whether it has just become ready."""
        try:
            said = self.line.recv(10_000)
        except BlockingIOError:
            return False
        except ConnectionError:
            said = b""
        self._hung_up = not said
        became = said == READY
        self.ready = self.ready or became
        if not became:
            self.why = self.why or said.decode(errors="replace")
        return became

    def ended(self) -> bool:
        """Whether it has ended. If its zygote is gone, that shows by its closed line."""
        return self.process.poll() is not None or (self._hung_up and self.process.zygote.gone)

    def end(self, seconds: float, hurry: bool = False) -> None:
        """Tell it to drain and end, soon if in a `hurry`. It is killed if it hasn't ended within `seconds`."""
        if not self.ending:
            self.ending = time.monotonic() + seconds
            self.process.send_signal(signal.SIGUSR1 if hurry else signal.SIGTERM)
