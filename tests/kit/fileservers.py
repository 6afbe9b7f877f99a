"""Real file servers for tests: `backlore files serve`, each with a folder and a port of its own; nodes above them."""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conftest import KEEPING, Server
from tests.kit.buckets import KEYS, S3Server

TOKEN = "only for the file servers of tests"


def write_secret(server: Server, token: str = TOKEN) -> None:
    """Write the secret that nodes and file servers share."""
    text = f"SECRET = {{'cookie': {'x' * 40!r}, 'files_token': {token!r}, **{KEYS!r}}}\n"
    (server.folder / "secret.py").write_text(text)


class FileServer(Server):
    """A file server. `bucket` is the one in its config.py; None when it has no S3 behind it."""

    def __init__(self, folder: Path, bucket: dict[str, Any] | None = None, **files: Any):
        super().__init__(KEEPING, folder, settings={"files": {"free": 0, **files}, "bucket": bucket})
        write_secret(self)
        self.words = [sys.executable, "-m", "backlore.cli", "files", "serve", "--app", str(self.folder)]
        self.words += ["--port", str(self.port), "--data", str(self.data), "--workers", "1"]

    def start(self, wait: bool = True, terminal: int | None = None) -> "FileServer":
        self.log.unlink(missing_ok=True)  # the log of its last start
        super().start(wait, terminal)
        return self

    @property
    def contents(self) -> Path:
        return self.data / "files" / "contents"

    def names(self) -> set[str]:
        """The contents that it has."""
        return {path.name for path in self.contents.glob("*/*")}

    def path(self, blob: str) -> Path:
        return self.contents / blob[:2] / blob

    def wipe(self) -> None:
        """Its disk loses everything."""
        for folder in self.contents.glob("*"):
            shutil.rmtree(folder)


@contextlib.contextmanager
def file_servers(folder: Path, count: int, s3: S3Server | None = None, prefix: str = "") -> Iterator[list[FileServer]]:
    """`count` running file servers. Those that the test has ended are not ended again."""
    bucket = s3.bucket | {"prefix": prefix} if s3 else None
    servers = [FileServer(folder / f"server{number}", bucket) for number in range(count)]
    try:
        for server in servers:
            server.start(wait=False)
        for server in servers:
            server.wait_said(" serves on ", 30)
        yield servers
    finally:
        for server in servers:
            server.kill()


def node(folder: Path, servers: list[FileServer], bucket: dict[str, Any] | None = None, **files: Any) -> Server:
    """An application whose configuration names file servers, and no more."""
    settings = {"files": {"free": 0, "servers": [each.url for each in servers], **files}, "bucket": bucket}
    server = Server(KEEPING, folder, workers=1, settings=settings)
    write_secret(server)
    return server
