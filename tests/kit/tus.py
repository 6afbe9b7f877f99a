"""Resumable uploads by hand: what a client of the protocol tus sends, and what the server has of it."""

import base64
import contextlib
import hashlib
import subprocess
from collections.abc import Iterator
from urllib.parse import quote

import httpx

from tests.conftest import Server, User, engine_cli

LIMIT = 300 << 20
SPOKEN = {"tus-resumable": "1.0.0"}
OCTETS = {**SPOKEN, "content-type": "application/offset+octet-stream"}


def packed(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def named(name: str, **other: str) -> dict[str, str]:
    pairs = {"filename": name, **other}
    return {"upload-metadata": ",".join(f"{key} {packed(text)}" for key, text in pairs.items())}


def begin(user: User, length: int, name: str, **other: str) -> str:
    got = user.post("/files/tus", headers={**SPOKEN, "upload-length": str(length), **named(name, **other)})
    assert got.status_code == 201, got.text
    assert got.headers["tus-resumable"] == "1.0.0"
    assert length == 0 or got.headers["upload-expires"].endswith(" GMT")
    return got.headers["location"]


def add(user: User, path: str, offset: int, content: bytes | Iterator[bytes], **headers: str) -> httpx.Response:
    more = {name.replace("_", "-"): text for name, text in headers.items()}
    return user.patch(path, content=content, headers={**OCTETS, "upload-offset": str(offset), **more}, timeout=60)


def offset_of(user: User, path: str) -> int:
    got = user.head(path, headers=SPOKEN)
    assert got.status_code == 200, got
    return int(got.headers["upload-offset"])


def hash_of(user: User, name: str) -> str:
    seen = hashlib.sha256()
    with user.stream("GET", f"/files/content/{quote(name)}") as got:
        assert got.status_code == 200
        for piece in got.iter_bytes():
            seen.update(piece)
    return seen.hexdigest()


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def on_disk(server: Server) -> dict[str, int]:
    """The contents, and their bytes."""
    return {path.name: path.stat().st_size for path in (server.data / "files" / "contents").glob("*/*")}


def redis_says(server: Server, *words: str) -> list[str]:
    got = subprocess.run([*engine_cli(server), *words], check=True, capture_output=True, text=True)
    return got.stdout.split("\n")[:-1]


def uploads_in_redis(server: Server) -> list[str]:
    return sorted(
        key for kind in ("upload:*", "uploads:*", "awaited:*") for key in redis_says(server, "keys", kind) if key
    )


@contextlib.contextmanager
def person(server: Server, name: str) -> Iterator[User]:
    with User(server, f"{name}@example.com") as user:
        yield user.sign_up()


def redis_key(server: Server, path: str) -> str:
    (found,) = redis_says(server, "keys", f"upload:*:{path.rpartition('/')[2]}")
    return found
