"""Resumable uploads by real clients of the protocol, in Python and in JavaScript."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tusclient import client as tuspy
from tusclient.storage import filestorage

from tests.conftest import KEEPING, ROOT, Server, User, serving
from tests.kit.node import NODE
from tests.kit.tus import LIMIT, hash_of, person, sha


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"upload_limit": LIMIT, "body_timeout": 8.0}
    with serving(KEEPING, tmp_path_factory.mktemp("tus"), settings=settings) as made:
        yield made


@pytest.fixture(scope="module")
def ann(server: Server) -> Iterator[User]:
    with person(server, "ann") as user:
        yield user


def test_tuspy(ann: User, server: Server, tmp_path: Path) -> None:
    content = os.urandom(5_000_000)
    (tmp_path / "file").write_bytes(content)
    headers = {"x-csrf-token": ann.csrf, "cookie": "; ".join(f"{k}={v}" for k, v in ann.cookies.items())}
    for name, options in (
        ("plain", {}),
        ("chunks", {"chunk_size": 700_001}),
        ("proven", {"chunk_size": 700_001, "upload_checksum": True}),
        ("all proven", {"upload_checksum": True}),
    ):
        client = tuspy.TusClient(f"{server.url}/files/tus", headers=headers)
        metadata = {"filename": f"tuspy {name}.bin", "text": "ü, x"}
        client.uploader(str(tmp_path / "file"), metadata=metadata, metadata_encoding="utf-8", **options).upload()
        assert hash_of(ann, f"tuspy {name}.bin") == sha(content)
    # by another process, that knows only what was stored
    options = {"metadata": {"filename": "tuspy later.bin"}, "chunk_size": 1_000_000}
    for stop in (2_500_000, None):
        storage = filestorage.FileStorage(str(tmp_path / "storage"))
        client = tuspy.TusClient(f"{server.url}/files/tus", headers=headers)
        uploader = client.uploader(
            str(tmp_path / "file"), store_url=True, url_storage=storage, fingerprinter=Fingerprint(), **options
        )
        assert uploader.offset == (0 if stop else 2_500_000)
        uploader.upload(stop_at=stop)
        storage.close()
    assert hash_of(ann, "tuspy later.bin") == sha(content)
    (tmp_path / "empty").write_bytes(b"")
    client.uploader(str(tmp_path / "empty"), metadata={"filename": "tuspy empty"}).upload()
    assert ann.get("/files/content/tuspy empty").content == b""


class Fingerprint:
    def get_fingerprint(self, stream: object) -> str:
        return "the same"


@pytest.fixture(scope="module")
def tus_js() -> Path:
    """tus-js-client, installed once, beside what pip has installed."""
    modules = NODE / "tus" / "node_modules"
    if not (modules / "tus-js-client").exists():
        assert shutil.which("npm"), "The tests need Node.js 20 or newer, and npm."
        words = [
            "npm",
            "install",
            "--silent",
            "--no-audit",
            "--no-fund",
            "--prefix",
            str(NODE / "tus"),
            "tus-js-client@4",
        ]
        subprocess.run(words, check=True, capture_output=True, timeout=240)
    return modules


@pytest.mark.parametrize("stop", ["0", "2000000", "deferred", "creation"])
def test_tus_js_client(ann: User, server: Server, tmp_path: Path, tus_js: Path, stop: str) -> None:
    content = os.urandom(5_000_000)
    (tmp_path / "file").write_bytes(content)
    headers = {"x-csrf-token": ann.csrf, "cookie": "; ".join(f"{k}={v}" for k, v in ann.cookies.items())}
    words = [f"{server.url}/files/tus", json.dumps(headers), str(tmp_path / "file"), "700001", stop]
    got = subprocess.run(
        ["node", str(ROOT / "tests" / "applications" / "clients" / "tus.cjs"), *words],
        env={**os.environ, "NODE_PATH": str(tus_js)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert got.returncode == 0, got.stderr
    url, file = got.stdout.split()
    assert url.startswith(f"{server.url}/files/tus/") and hash_of(ann, f"js {stop} é.bin") == sha(content)
    assert file == ann.get("/files").json()["files"][0]["id"]
