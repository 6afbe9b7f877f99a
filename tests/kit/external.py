"""A redis beside the server, as in production."""

import signal
import socket
import subprocess
from pathlib import Path

from backlore.process.program import find_binary
from tests.conftest import KINDS, Server, free_port
from tests.kit.waiting import until


class ExternalRedis:
    """A redis beside the server, as in production."""

    def __init__(self, folder: Path, *options: str, program: str = ""):
        self.port = free_port()
        folder.mkdir(exist_ok=True)
        words = [
            program or find_binary(),
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(folder),
            "--save",
            "",
        ]
        self.process = subprocess.Popen([*words, *options], stdout=subprocess.DEVNULL)

    def __enter__(self) -> "ExternalRedis":
        until(self._answers)
        return self

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return bool(connection.recv(100))
        except OSError:
            return False

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


def external(folder: Path, redis: dict, password: str | None = None) -> Server:
    server = Server(KINDS, folder)
    config = {"name": "kinds", "redis": redis, "admins": ["admin@example.com"]}
    (server.folder / "config.py").write_text(f"CONFIG = {config!r}")
    secret = {"cookie": "c" * 40, **({"redis_password": password} if password else {})}
    (server.folder / "secret.py").write_text(f"SECRET = {secret!r}")
    return server
