"""A redis for one test, which can be killed, stopped and started again."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator

from backlore.process.program import find_binary

# Acknowledged writes outlive a kill of the process: they are in the file, though not yet on the disk.
KEPT = ("--appendonly", "yes", "--appendfsync", "no")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Engine:
    """A redis in a folder of its own, on a unix socket and a port. It forgets everything at its end, unless KEPT."""

    def __init__(self, *options: str):
        self.folder = tempfile.mkdtemp(prefix="redis")  # short: a socket's path has 108 characters at most
        self.path = f"{self.folder}/redis.sock"
        self.port = free_port()
        self._options = options
        self.process: subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)  # a killed redis leaves it behind
        command = [find_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.path]
        command += ["--dir", self.folder, "--save", "", *self._options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 10
        while not self._answers():
            assert self.process.poll() is None and time.monotonic() < until, "redis doesn't start"
            time.sleep(0.005)

    def _answers(self) -> bool:
        """Whether it takes commands: it must have read its data. A redis with a password asks for that first."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(self.path)
            probe.sendall(b"PING\r\n")
            return probe.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        return False

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


@contextlib.contextmanager
def redis_engine(*options: str) -> Iterator[Engine]:
    engine = Engine(*options)
    try:
        yield engine
    finally:
        engine.kill()
        shutil.rmtree(engine.folder)
