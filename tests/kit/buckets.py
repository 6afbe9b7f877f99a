"""A real S3 server for tests: SeaweedFS, in a folder of its own, on ports of its own."""

import contextlib
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

KEYS = {"s3_key": "tests", "s3_secret": "only for tests"}
BUCKET = "backlore-tests"
GRPC = 10_000  # each gRPC port is this much above the named one


def free_ports(count: int) -> list[int]:
    """Free ports, each also free GRPC higher. They lie below those that the system gives to connections."""
    found: list[int] = []
    for port in random.sample(range(11_000, 20_000), 1000):
        with socket.socket() as low, socket.socket() as high, contextlib.suppress(OSError):
            low.bind(("127.0.0.1", port))
            high.bind(("127.0.0.1", port + GRPC))
            found.append(port)
        if len(found) == count:
            return found
    raise OSError("no free ports")


class S3Server:
    """`weed mini`. Its data outlives a `stop` and `start`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.ports = free_ports(4)
        self.endpoint = f"http://127.0.0.1:{self.ports[0]}"
        self.bucket = {"name": BUCKET, "endpoint": self.endpoint}
        self.process: subprocess.Popen[bytes]
        (folder / "data").mkdir(parents=True)
        keys = {"accessKey": KEYS["s3_key"], "secretKey": KEYS["s3_secret"]}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "tests", "credentials": [keys], "actions": actions}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))

    def start(self) -> "S3Server":
        s3, master, volume, filer = self.ports
        words = [str(Path(sys.executable).parent / "weed"), "mini", f"-dir={self.folder / 'data'}", f"-bucket={BUCKET}"]
        words += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", f"-s3.port={s3}"]
        words += ["-s3.port.iceberg=0", "-s3.port.lance=0", f"-master.port={master}", f"-volume.port={volume}"]
        words += [f"-filer.port={filer}", "-admin.ui=false", "-webdav=false", f"-s3.config={self.folder / 's3.json'}"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, cwd=self.folder)
        until = time.monotonic() + 60
        while not self._is_up():
            assert self.process.poll() is None and time.monotonic() < until, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.1)
        return self

    def _is_up(self) -> bool:
        """Whether the bucket is there. This asks with keys, because requests without them are refused earlier."""
        keys = {"access_key_id": KEYS["s3_key"], "secret_access_key": KEYS["s3_secret"]}
        options = {"client_options": {"allow_http": True}, "retry_config": {"max_retries": 0}}
        try:
            obstore.list(S3Store(BUCKET, endpoint=self.endpoint, region="us-east-1", **keys, **options)).collect()
        except BaseError:
            return False
        return True

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait(10)


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    server = S3Server(folder)
    try:
        yield server.start()
    finally:
        server.stop()
