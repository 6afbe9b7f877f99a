"""The zygote: the process that workers are forked from. It imports Backlore once, for all of them.

Started as `python -m backlore.process.zygote birth CONTEXT MASTER`. MASTER is a socket. The master asks for a child by
writing its role, with the child's line and the listener as descriptors. The zygote writes `PID` when the child exists,
`0 ERRNO` when it could not fork, and `PID STATUS` when a child has ended. When the socket closes, the zygote forks no
more, and ends with the last of its children.

Laws: it imports Backlore and its libraries, and nothing of the application, whose code may start threads or open
connections. It has one thread, no event loop, and no descriptors except the standard streams and its sockets.

It forks without exec on macOS too. That is safe as long as nothing before the fork has called one of the system's
frameworks that start threads, and imports call none. On macOS, `ps` can't tell its children apart.
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

# Blocked in the zygote, which ends only through its socket, and delivered in the child: none is ever lost.
HELD = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1
LETTERS = 5  # in a role: each has the same number, so that a message ends where the next begins


class Newborn:
    """A child of the zygote, with as much of Popen as the master needs. It has no pid until the zygote reports it."""

    def __init__(self, zygote: "Zygote", line: socket.socket):
        self.zygote = zygote
        self.pid: int | None = None
        self.returncode: int | None = None  # stays None for a child that outlived its zygote: no one reports it
        self._line = line  # kept until the child has it: macOS may lose a descriptor that the sender has closed
        self._owed: int | None = None  # a signal that was sent before the pid was known

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
        """Kill it. If it still has no pid, its zygote hangs and is killed as well."""
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
    """The zygote, from the master's side: start it, ask it for children, retire it for one with newer code."""

    def __init__(self, context: Context):
        self.retired = False
        self.gone = False
        self.proven = False  # it has forked a child
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
        self._unborn: deque[Newborn] = deque()  # in the order of the requests
        self._living: dict[int, Newborn] = {}

    def bear(self, role: str, line: socket.socket, listener: socket.socket) -> Newborn:
        """Ask for a child, which gets both sockets. `line` is closed on this side."""
        child = Newborn(self, line)
        try:
            socket.send_fds(self.line, [role.encode()], [line.fileno(), listener.fileno()])
            self._unborn.append(child)
        except OSError as error:  # most likely the zygote is dead
            child.failed(error.errno or 1)
        return child

    def look(self) -> bool:
        """Read what it reports about its children. Returns whether it is alive."""
        if self.gone:
            return False
        self.gone = self.process.poll() is not None  # asked first, so that its last reports are read
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
        """Let it fork no more. It lives until its last child has ended: only the parent learns their status."""
        self.retired = True
        with contextlib.suppress(OSError):
            self.line.shutdown(socket.SHUT_WR)

    def end(self) -> None:
        """Kill it. Children that are left end when their lines close."""
        self.process.kill()
        self.process.wait()
        self.line.close()


def bear(master: socket.socket) -> tuple[str, list[int]]:
    """Fork whenever the master asks. Returns in each child, with its role and its descriptors, never in the zygote."""
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
            except ConnectionError:  # the master died before it had read everything
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
            except OSError as error:  # too many processes, or no memory: a later fork may succeed
                os.write(handles[0], str(error).encode())
                tell(master, f"0 {error.errno}\n")
            for handle in handles:
                os.close(handle)


def tell_ended(master: socket.socket, options: int) -> None:
    """Report the children that have ended. With `options` 0, wait for the others and report them too."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, options))[0]:
            tell(master, f"{ended[0]} {os.waitstatus_to_exitcode(ended[1])}\n")


def tell(master: socket.socket, text: str) -> None:
    with contextlib.suppress(OSError):  # the master is dead
        master.sendall(text.encode())


def rename(role: str) -> None:
    """Show a worker's command line in `ps`, on Linux. It overwrites ours at the same length, since it can't grow."""
    if sys.platform == "linux":
        start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45])  # arg_start, of proc(5)
        shown = Path("/proc/self/cmdline").read_bytes()
        words = shown.replace(b".zygote\0birth\0", b".worker\0%s\0" % role.encode(), 1)
        if start and len(words) == len(shown):
            ctypes.memmove(start, words, len(words))


def main() -> None:
    """Import, fork when asked, and run the worker in each child."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    gc.disable()  # a collection would write to pages that the children share, and leave holes in them
    from backlore.process import worker  # here: the master does not need it

    context = msgspec.json.decode(sys.argv[2], type=Context)
    make = worker.maker(context.serves)  # imports everything that a worker needs
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
