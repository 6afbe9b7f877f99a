"""A server to test: `backlore run dev` of an application, on a free port, with a temporary data folder."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

START = 30.0  # seconds
ENTRANCE = re.compile(rb"^docs +(http://\S+)\n", re.MULTILINE)  # the line that a server in dev prints once it serves


def descendants(process: int) -> set[int]:
    """The processes below one, from /proc; none on a system without it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    family = {process}
    for _ in range(5):
        family |= {child for child, parent in parents.items() if parent in family}
    return family - {process}


class NoServer(Exception):
    """The server did not start; the text says why."""


class OwnServer:
    """A server that runs inside its `with` block. `env` is its environment, by default ours.

    `entrance` is its URL with the key to the developer's pages.
    """

    def __init__(self, app: str, env: dict[str, str] | None = None):
        self.app = app
        self._env = env
        self.url = self.entrance = ""
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> "OwnServer":
        self._folder = Path(tempfile.mkdtemp(prefix="backlore-test-"))
        try:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self._port = probe.getsockname()[1]
            self.url = f"http://127.0.0.1:{self._port}"
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        words = [sys.executable, "-m", "backlore.cli", "run", "dev", "--app", self.app, "--port", str(self._port)]
        words += ["--data", str(self._folder / "data"), "--host", "127.0.0.1"]
        log = self._folder / "log"
        with log.open("ab") as out:
            before = out.tell()
            self.process = subprocess.Popen(
                words, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=self._env, start_new_session=True
            )
        until = time.monotonic() + START
        while not (found := ENTRANCE.search(log.read_bytes(), before)):
            if self.process.poll() is not None or time.monotonic() > until:
                raise NoServer(log.read_text(errors="replace")[-2000:].strip().removeprefix("Error: "))
            time.sleep(0.02)
        self.entrance = found[1].decode()

    def _end(self) -> None:
        if getattr(self, "process", None) and self.process.poll() is None:
            family = descendants(self.process.pid)
            self.process.terminate()
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:  # a worker hangs
                for process in [self.process.pid, *family]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                self.process.wait(10)
            self._wait_for_port()

    def _wait_for_port(self) -> None:
        until = time.monotonic() + START
        while time.monotonic() < until:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with contextlib.suppress(OSError):
                    probe.bind(("127.0.0.1", self._port))
                    return
            time.sleep(0.05)

    def heal(self) -> None:
        """Restart it with the same data, because a worker hangs."""
        self._end()
        self._start()

    def make_admin(self, email: str) -> None:
        """Make a user an admin, by `backlore user admin`."""
        words = [sys.executable, "-m", "backlore.cli", "user", "--app", self.app, "--data", str(self._folder / "data")]
        subprocess.run([*words, "admin", email], check=True, capture_output=True, env=self._env, timeout=20)

    def said(self) -> str:
        """All output of the server."""
        return (self._folder / "log").read_text(errors="replace")
