"""The process that workers are forked from: it has imported Backlore once, for all of them.

Started as `python -m backlore.process.zygote birth CONTEXT MASTER`. MASTER is a socket: the master writes the role of
a child on it, with the child's line and the listener as descriptors; the zygote writes `PID` when the child is there,
`0 ERRNO` when there can be none now, and `PID STATUS` when one has ended. When the socket ends, it bears no more and
ends with the last of its children.

Laws: it imports what is Backlore's and its libraries', and nothing of the application, whose code may start threads or
open connections; it has one thread, no event loop, and no descriptor but the standard streams and its sockets.

It forks without exec on macOS too. That is safe there as long as nothing before the fork has called one of the system's
frameworks that start threads, as imports don't. Its children can't be told apart there in `ps`.
"""

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import subprocess
import sys
from collections import deque
from pathlib import Path

import msgspec

from backlore.core.config import Context

# Held back in the zygote, which ends by its socket alone, and delivered in the child: no moment in which one is lost.
HELD = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1
LETTERS = 5  # of a role: each has as many, so that a message ends where the next begins


class Newborn:
    """A child of the zygote's, as far as the master needs a Popen. It has a pid as soon as the zygote tells it."""

    def __init__(self, zygote: "Zygote", line: socket.socket):
        self.zygote = zygote
        self.pid: int | None = None
        self.returncode: int | None = None  # None also of one that outlived its zygote: nobody tells
        self._line = line  # until it has arrived: macOS may lose what its sender closes before
        self._owed: int | None = None  # a signal that came before the pid

    def poll(self) -> int | None:
        self.zygote.look()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.pid is None:
            self._owed = number
        elif self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once; when it isn't there for so long, its zygote hangs."""
        if self.pid is None:
            self.zygote.process.kill()
        self.send_signal(signal.SIGKILL)

    def arrived(self, pid: int) -> None:
        self._line.close()
        self.pid = pid
        if self._owed:
            self.send_signal(self._owed)

    def failed(self, status: int) -> None:
        self._line.close()
        self.returncode = status


class Zygote:
    """The zygote, seen from the master: started, asked for children, retired for one with newer code."""

    def __init__(self, context: Context):
        self.retired = False
        self.gone = False
        self.proven = False  # it has borne a child
        self.line, theirs = socket.socketpair()
        self.line.setblocking(False)
        words = [sys.executable, "-m", "backlore.process.zygote", "birth", msgspec.json.encode(context).decode()]
        self.process = subprocess.Popen(
            [*words, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        self._unborn: deque[Newborn] = deque()  # in the order in which they were asked for
        self._living: dict[int, Newborn] = {}

    def bear(self, role: str, line: socket.socket, listener: socket.socket) -> Newborn:
        """A child, which gets two sockets; `line` is closed here."""
        child = Newborn(self, line)
        try:
            socket.send_fds(self.line, [role.encode()], [line.fileno(), listener.fileno()])
            self._unborn.append(child)
        except OSError as error:  # most likely the zygote is dead
            child.failed(error.errno or 1)
        return child

    def look(self) -> bool:
        """Read what it said of its children; whether it is there."""
        if self.gone:
            return False
        self.gone = self.process.poll() is not None  # asked first, so that its last words are read
        with contextlib.suppress(BlockingIOError, ConnectionError):
            for said in self.line.recv(10_000).splitlines():
                self._heed(*map(int, said.split()))
        while self.gone and self._unborn:
            self._unborn.popleft().failed(self.process.returncode)
        return not self.gone

    def _heed(self, pid: int, status: int | None = None) -> None:
        if status is None:
            self.proven = True
            self._living[pid] = self._unborn.popleft()
            self._living[pid].arrived(pid)
        elif pid:
            self._living.pop(pid).returncode = status
        else:
            self._unborn.popleft().failed(status)

    def retire(self) -> None:
        """Bear no more. It stays until the last of its children has ended, for it alone learns how."""
        self.retired = True
        with contextlib.suppress(OSError):
            self.line.shutdown(socket.SHUT_WR)

    def end(self) -> None:
        """End it at once. Children that it still has follow when their lines end."""
        self.process.kill()
        self.process.wait()
        self.line.close()


def bear(master: socket.socket) -> tuple[str, list[int]]:
    """Fork whenever the master asks. Returns in each child, with its role and its descriptors; in the zygote never."""
    awake, wakes = socket.socketpair()
    with master, awake, wakes:
        for end in (awake, wakes):
            end.setblocking(False)
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # it only wakes us
        while True:
            ready, _, _ = select.select([master, awake], [], [])
            if awake in ready:
                awake.recv(1000)
            tell_ended(master, os.WNOHANG)
            if master not in ready:
                continue
            try:
                role, handles, _, _ = socket.recv_fds(master, LETTERS, 2)
            except ConnectionError:  # it died before it had read all
                role = b""
            if not role:
                tell_ended(master, 0)
                sys.exit()
            try:
                if not (pid := os.fork()):
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    return role.decode(), handles
                tell(master, f"{pid}\n")
            except OSError as error:  # too many processes, or no memory: there may be some later
                os.write(handles[0], str(error).encode())
                tell(master, f"0 {error.errno}\n")
            for handle in handles:
                os.close(handle)


def tell_ended(master: socket.socket, options: int) -> None:
    """Tell of the children that have ended, or wait for all that will."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, options))[0]:
            tell(master, f"{ended[0]} {os.waitstatus_to_exitcode(ended[1])}\n")


def tell(master: socket.socket, text: str) -> None:
    with contextlib.suppress(OSError):  # it is dead
        master.sendall(text.encode())


def rename(role: str) -> None:
    """In `ps`, show the command line of a worker: in place of ours and as long, for it can't grow. On Linux."""
    if sys.platform == "linux":
        start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45])  # arg_start, of proc(5)
        shown = Path("/proc/self/cmdline").read_bytes()
        words = shown.replace(b".zygote\0birth\0", b".worker\0%s\0" % role.encode(), 1)
        if start and len(words) == len(shown):
            ctypes.memmove(start, words, len(words))


def main() -> None:
    """Import, then bear."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    gc.disable()  # it would write to pages, and leave holes in them, that children share
    from backlore.process import worker  # here, for the master needs none of it

    context = msgspec.json.decode(sys.argv[2], type=Context)
    make = worker.maker(context.serves)  # which imports all that a worker needs
    gc.freeze()
    role, handles = bear(socket.socket(fileno=int(sys.argv[3])))
    os.setsid()
    rename(role)
    gc.enable()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    for handle in handles:
        os.set_inheritable(handle, False)
    line, listener = (socket.socket(fileno=handle) for handle in handles)
    worker.main(role, context, make, line, listener)


if __name__ == "__main__":
    main()
