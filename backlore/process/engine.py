"""The embedded engine: a Valkey or Redis of our own in the data folder, run by the master.

Laws: the append-only file and dumps are on. It listens on a unix socket that only its owner can open, and on no port.
It is stopped last. An engine that a killed master left behind is stopped before a new one starts. A write is in the
append-only file before it is acknowledged. A program that would misread a torn file is not started on one.
"""

import contextlib
import ctypes
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

from backlore.core.config import Settings
from backlore.core.notify import Notify
from backlore.process.program import EngineError, Version, find_binary, identify, writer
from backlore.process.torn import last_part, whole

START_LIMIT = 10.0  # seconds without an answer; it may take longer while it says that it is loading its data
STOP_LIMIT = 60.0
SYNC = 1.0  # seconds between two fsyncs of the append-only file
# With its own `everysec`, redis acknowledges commands that it has not yet written while an earlier fsync is still
# running. If it is killed then, it loses up to two seconds of acknowledged writes. So it writes at once and leaves the
# fsyncs to us.
APPENDFSYNC = {"everysec": "no", "always": "always"}
fsync = getattr(os, "fdatasync", os.fsync)  # fdatasync, on Linux, leaves out the modification time


class Engine:
    """One engine in `settings.data`/redis. `start` it, then ask whether it is `ready`; `process` is its process."""

    def __init__(self, settings: Settings, notify: Notify):
        self._folder = settings.data / "redis"
        self._socket = settings.engine_socket
        self._durability = settings.config.durability
        self._chosen = settings.config.redis.embedded if settings.config.redis else None
        self._notify = notify
        self._ended = threading.Event()
        self._version: Version
        self._until = 0.0  # until then it may be silent
        self.loading = False  # it was started and has not answered yet
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start the process, after a leftover engine was stopped and a torn file was cut. Raises EngineError."""
        binary = self._chosen or find_binary()
        self._version = identify(binary)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._socket.parent.stat().st_uid != os.getuid():
            raise EngineError(f"{self._socket.parent} belongs to somebody else: remove it.")
        self._stop_leftover()
        if not self._version.is_sound:
            self._cut_torn()
        with (self._folder / "engine.log").open("wb") as log:
            self.process = subprocess.Popen(
                self._command(binary),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the master alone: it stops the engine last
                preexec_fn=partial(_die_with, os.getpid()) if sys.platform == "linux" else None,
            )
        self.loading = True
        self._until = time.monotonic() + START_LIMIT
        self._ended.set()  # ends the fsync thread of an engine that died
        self._ended = threading.Event()
        if self._durability == "everysec":
            threading.Thread(target=self._sync, args=(self._ended,), name="fsync", daemon=True).start()

    def ready(self) -> bool:
        """Whether it answers yet. Raises EngineError when it never will."""
        if (answer := self._ask(b"PING")) == b"+PONG":
            self.loading = False
            return True
        if self.process.poll() is not None:
            self.loading = False
            raise EngineError(self._why_ended())
        if answer.startswith(b"-LOADING"):
            self._until = time.monotonic() + START_LIMIT
        if time.monotonic() > self._until:
            self.stop()
            raise EngineError(f"The embedded redis does not answer:\n{self._last_words()}")
        return False

    def _cut_torn(self) -> None:
        """Cut a torn append-only file back to its whole part before the engine does it wrongly. The rest is kept in a
        file.

        This reads the whole file that commands are appended to, at about 14 MB a second.
        """
        folder = self._folder / "appendonlydir"
        manifest = folder / "appendonly.aof.manifest"
        name = last_part(manifest.read_bytes()) if manifest.exists() else None
        path = folder / name if name else self._folder / "appendonly.aof"  # as before Redis 7.0
        if not path.exists() or not path.stat().st_size or path.suffix == ".rdb":
            return
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as log:
            try:
                good, size = whole(log), len(log)
            except ValueError as error:
                raise EngineError(
                    f"{path} holds more than commands ({error}), and {self._version} might misread it: "
                    "start once without redis.embedded in config.py."
                ) from None
            if good == size:
                return
            kept = path.with_name(f"{path.name}.cut-{time.time_ns()}")
            kept.write_bytes(log[good:])
        sync(kept)
        os.truncate(path, good)
        sync(path)
        sync(path.parent)
        why = "a crash cut its last command or transaction"
        self._notify("warning", "engine.cut", why=why, bytes=size - good, kept=kept)

    def _sync(self, ended: threading.Event) -> None:
        """A thread that makes durable, once a second, what the engine has written. No client waits for it."""
        while not ended.wait(SYNC):
            try:
                for path in [*self._folder.rglob("*.aof"), *self._folder.glob("appendonlydir")]:
                    sync(path)
            except OSError as error:
                self._notify("error", "engine.fsync.failed", error=error)

    def _command(self, binary: str) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": APPENDFSYNC[self._durability],
            "daemonize": "no",
            "loglevel": "warning",
        }
        return [binary, *(word for name, value in options.items() for word in (f"--{name}", value))]

    def _why_ended(self) -> str:
        heads = [*self._folder.glob("appendonlydir/*.base.*"), *self._folder.glob("dump.rdb")]
        for path in heads:
            with path.open("rb") as file:
                wrote = writer(file.read(100))
            if wrote and not self._version.reads(wrote):
                return (
                    f"{self._folder} was written by {wrote}, and {self._version} can't read it: "
                    f"name a {wrote} or newer as redis.embedded in config.py."
                )
        return f"The embedded redis ended at once:\n{self._last_words()}"

    def _last_words(self) -> str:
        lines = (self._folder / "engine.log").read_text(errors="replace").splitlines()[-10:]
        return "\n".join(lines) + f"\n(whole log: {self._folder / 'engine.log'})"

    def _ask(self, command: bytes) -> bytes:
        """The first line of the answer to an inline command; empty when the engine does not answer."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1.0)
                connection.connect(str(self._socket))
                connection.sendall(command + b"\r\n")
                return connection.recv(1000).partition(b"\r\n")[0]
        except OSError:
            return b""

    def _stop_leftover(self) -> None:
        until = time.monotonic() + STOP_LIMIT
        while self._ask(b"PING"):
            self._ask(b"SHUTDOWN")  # the engine writes its files first, and closes the connection without an answer
            if time.monotonic() > until:
                raise EngineError(f"Another redis holds {self._socket} and does not end: stop it.")
            time.sleep(0.05)

    def stop(self) -> None:
        """Terminate it, so that it writes its files, and wait. Kill it after STOP_LIMIT seconds."""
        self._ended.set()
        self.loading = False
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)  # a process that SIGSTOP has stopped could not end
            self.process.terminate()
        try:
            self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()  # every acknowledged write is in the append-only file
            self.process.wait()
        if self._socket.parent != self._folder:  # the data folder's path is too long for a socket
            with contextlib.suppress(OSError):
                self._socket.unlink(missing_ok=True)
                self._socket.parent.rmdir()


def sync(path: Path) -> None:
    """Make durable what was written to a file, or the names in a folder. A path that no longer exists is skipped."""
    with contextlib.suppress(FileNotFoundError):
        handle = os.open(path, os.O_RDONLY)
        try:
            fsync(handle)
        finally:
            os.close(handle)


def _die_with(master: int) -> None:
    # PR_SET_PDEATHSIG: when the master is killed, its engine gets SIGTERM and writes its files before it ends
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != master:  # it was killed before
        os._exit(1)
