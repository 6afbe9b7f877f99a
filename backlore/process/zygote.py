"""The zygote: the process that workers are forked from, on Linux. It imports Backlore once, for all of them.

Started as `python -m backlore.process.zygote birth CONTEXT MASTER`. MASTER is a socket. The zygote writes `ready` on it
after its imports. The master writes the role of a child on it, with two descriptors: the child's line and the listener.
The zygote forks twice, so that the child's parent ends and the master adopts the child, which tells its process id on
its line. When the socket ends, the zygote ends.

Laws: it imports Backlore and its libraries, and nothing of the application, whose code may start threads or open
connections. It has one thread, no event loop, and no descriptors except the standard streams and its socket. If
something else, such as a profiler, has started a thread in it, its children execute a new Python.
"""

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

import msgspec

from backlore.core.config import Context

# Blocked in the zygote, which ends only through its socket, and delivered in the child: none is ever lost.
HELD = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2
READY = b"ready"
SET_PDEATHSIG, SET_CHILD_SUBREAPER = 1, 36  # prctl(2)


# In the master


def adopt_orphans() -> bool:
    """Become the parent of descendants whose parent has ended. Returns whether the system can do that."""
    if sys.platform != "linux":  # macOS can't, nor is a fork without exec safe there
        return False
    return control(SET_CHILD_SUBREAPER, 1)


def control(option: int, value: int) -> bool:
    """Set an attribute of this process by prctl(2). Returns whether it was set."""
    import ctypes

    return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)


def python() -> list[str]:
    """The words that start this Python. The working directory is on its path only if it is on ours."""
    try:
        known = {"", os.getcwd()}
    except FileNotFoundError:  # it was deleted
        known = {""}
    return [sys.executable] if known & set(sys.path) else [sys.executable, "-P"]


PYTHON = python()  # now: later the application's folder is on our path


class Newborn:
    """A child that the master has asked for, with as much of Popen as the master needs. The child reports its pid."""

    def __init__(self, zygote: "Zygote"):
        self.pid: int | None = None
        self.returncode: int | None = None
        self._zygote = zygote
        self._owed: int | None = None  # a signal that was sent before the pid was known

    def born(self, pid: int) -> None:
        self.pid = pid
        if self._owed:
            self.send_signal(self._owed)

    def poll(self) -> int | None:
        if self.pid and self.returncode is None:
            try:
                ended, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # something else has waited for it
                ended, status = self.pid, 0
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.pid is None:
            self._owed = number
        elif self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it. If it still has no pid, its zygote hangs and is killed as well."""
        if self.pid is None:
            self._zygote.process.kill()
        self.send_signal(signal.SIGKILL)


class Zygote:
    """The zygote, from the master's side: start it, ask it for children, retire it for one with newer code."""

    def __init__(self, context: Context):
        self.born = time.monotonic()
        self.ready = False  # it has imported all
        self.retired = False
        self.line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asked: deque[tuple[str, socket.socket, socket.socket]] = deque()
        with theirs:
            self.line.setblocking(False)
            words = [*PYTHON, "-m", "backlore.process.zygote", "birth", msgspec.json.encode(context).decode()]
            try:
                self.process = subprocess.Popen(
                    [*words, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError:
                self.line.close()
                raise

    def bear(self, role: str, line: socket.socket, listener: socket.socket) -> Newborn:
        """Ask for a child, which gets both sockets. `line` is closed on this side."""
        self._asked.append((role, line, listener))
        self._ask()
        return Newborn(self)

    def look(self) -> bool:
        """Read what it reports, and ask it for children that wait. Returns whether it is alive."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            said = self.line.recv(len(READY))
            self.ready = said == READY or self.ready
            if not said:
                self.process.kill()  # it forks no more, whatever else it still waits for
        self._ask()
        return self.process.poll() is None

    def _ask(self) -> None:
        """Ask for children: not before the zygote can answer, and for no more than its socket takes."""
        while self.ready and self._asked:
            role, line, listener = self._asked[0]
            try:
                socket.send_fds(self.line, [role.encode()], [line.fileno(), listener.fileno()])
            except BlockingIOError:
                return
            except OSError:  # it is dead: the end of its line tells the child's
                pass
            self._asked.popleft()
            line.close()
        if self.retired and not self._asked:
            with contextlib.suppress(OSError):
                self.line.shutdown(socket.SHUT_WR)

    def retire(self) -> None:
        """Let it end as soon as it has forked all children that it was asked for."""
        self.retired = True
        self._ask()

    def end(self) -> None:
        """Kill it. Children that it has not forked yet count as ended."""
        self.process.kill()
        self.process.wait()
        self.line.close()
        for _, line, _ in self._asked:
            line.close()
        self._asked.clear()


# In the zygote


def bear(master: socket.socket) -> tuple[str, list[int]]:
    """Fork whenever the master asks. Returns in each child, with its role and its descriptors; in the zygote never."""
    while True:
        try:
            role, handles, _, _ = socket.recv_fds(master, 20, 2)
        except ConnectionError:  # the master has died
            role = b""
        if not role:
            os._exit(0)  # at once, whatever threads there are
        try:
            if fork_twice():
                with contextlib.suppress(OSError):  # the master has died, as the end of the line will tell
                    os.write(handles[0], b"%d\n" % os.getpid())
                return role.decode(), handles
        except OSError as error:  # too many processes, or no memory: there may be some later
            with contextlib.suppress(OSError):
                os.write(handles[0], f"No process could be forked: {error}.".encode())
        for handle in handles:
            os.close(handle)


def fork_twice() -> bool:
    """Fork a child that the master adopts. Returns in both processes whether this is the child. Raises OSError."""
    if between := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(between, 0)[1])
        if status > 0:
            raise OSError(status, os.strerror(status))
        return False
    between = os.getpid()
    try:
        if os.fork():
            os._exit(0)
    except OSError as error:
        os._exit(error.errno or 1)
    while os.getppid() == between:  # the master can't wait for it before
        time.sleep(0.0005)
    return True


def rename(role: str) -> None:
    """Show a worker's command line in `ps`. It overwrites the zygote's at the same length, since it can't grow."""
    import ctypes

    with contextlib.suppress(OSError):  # there is no /proc, so nobody sees it either
        start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45])  # arg_start, of proc(5)
        shown = Path("/proc/self/cmdline").read_bytes()
        words = shown.replace(b".zygote\0birth\0", b".worker\0%s\0" % role.encode(), 1)
        if start and len(words) == len(shown):
            ctypes.memmove(start, words, len(words))


def has_threads() -> bool:
    """Whether this process has more than one. A fork copies only the calling one, and locks that the others hold."""
    try:
        return len(os.listdir("/proc/self/task")) > 1
    except OSError:
        return threading.active_count() > 1  # those of Python's, at least


def main() -> None:
    """Import, fork when asked, and run the worker in each child."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    control(SET_PDEATHSIG, signal.SIGKILL)  # with the master, even while an import hangs; children don't inherit it
    gc.disable()  # a collection would write to pages that the children share, and leave holes in them
    from backlore.process import worker  # here: the master does not need it

    context = msgspec.json.decode(sys.argv[2], type=Context)
    make = worker.maker(context.serves)  # imports everything that a worker needs
    gc.freeze()
    master = socket.socket(fileno=int(sys.argv[3]))
    executes = has_threads()
    sys.stdout.flush()  # what an import has printed must not be printed by each child
    with contextlib.suppress(OSError):  # the master has died
        master.send(READY)
    role, handles = bear(master)
    master.close()
    os.setsid()
    signal.signal(signal.SIGHUP, lambda *_: None)  # as in the worker
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    for handle in handles:
        os.set_inheritable(handle, executes)
    if executes:
        words = [*PYTHON, "-m", "backlore.process.worker", role, sys.argv[2], *map(str, handles)]
        os.execv(sys.executable, words)
    rename(role)
    gc.enable()
    line, listener = (socket.socket(fileno=handle) for handle in handles)
    worker.main(role, context, make, line, listener)


if __name__ == "__main__":
    main()
