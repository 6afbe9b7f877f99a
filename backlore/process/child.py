"""A child process of the master, from the master's side: start it, listen to it, end it.

Law: a child reports only on its line, a socket pair: its process id if a zygote has forked it, then `ready`, or why it
can't start. The line closes when either side ends.
"""

import contextlib
import signal
import socket
import subprocess
import time

import msgspec

from backlore.core.config import Context
from backlore.process.zygote import PYTHON, Newborn, Zygote

READY = b"ready\n"  # all that a child says on its line after its process id, unless it can't start
SOON = 5.0  # seconds: a child that dies sooner is started again after a growing pause
PAUSE = 0.1, 10.0  # seconds: the first, and the longest


class Child:
    """A worker or the tasks process, forked by a zygote, or without one executed. Raises OSError."""

    def __init__(self, role: str, context: Context, zygote: Zygote | None, listener: socket.socket):
        self.role = role
        self.zygote = zygote
        self.born = time.monotonic()
        self.ready = False
        self.why = ""  # why it could not start, if the application is to blame
        self.ending = 0.0  # when it will be killed; 0 until it is told to end
        self._hung_up = False
        self.line, theirs = socket.socketpair()
        self.line.setblocking(False)
        self.process: Newborn | subprocess.Popen[bytes]
        if zygote:
            self.process = zygote.bear(role, theirs, listener)
            return
        with contextlib.ExitStack() as undo:
            undo.callback(self.line.close)
            self.process = execute(role, context, theirs, listener)
            undo.pop_all()

    def look(self) -> bool:
        """Read the child's line. Returns whether it has just become ready."""
        try:
            said = self.line.recv(10_000)
        except BlockingIOError:
            return False
        except ConnectionError:
            said = b""
        self._hung_up = not said
        if isinstance(self.process, Newborn) and self.process.pid is None and said[:1].isdigit():
            pid, _, said = said.partition(b"\n")
            self.process.born(int(pid))
        became = said == READY
        self.ready = self.ready or became
        if not became:
            self.why = self.why or said.decode(errors="replace")
        return became

    def ended(self) -> bool:
        """Whether it has ended, or could not be forked."""
        return self.process.poll() is not None or (self.process.pid is None and self._hung_up)

    def end(self, seconds: float, number: int = signal.SIGTERM) -> None:
        """Tell it with a signal to drain and end. It is killed if it hasn't ended within `seconds`."""
        if not self.ending:
            self.ending = time.monotonic() + seconds
            self.process.send_signal(number)


def execute(role: str, context: Context, line: socket.socket, listener: socket.socket) -> subprocess.Popen[bytes]:
    """Start a child in a Python of its own. `line` is closed on this side. Raises OSError."""
    with line:
        handles = [line.fileno(), listener.fileno()]
        words = [*PYTHON, "-m", "backlore.process.worker", role, msgspec.json.encode(context).decode()]
        return subprocess.Popen(
            [*words, *map(str, handles)],
            pass_fds=handles,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the master, which lets us drain
        )


def grown(pause: float, born: float) -> float:
    """The pause in seconds before a process that has ended is started again: it grows while they die young."""
    return 0.0 if time.monotonic() - born > SOON else min(max(2 * pause, PAUSE[0]), PAUSE[1])
