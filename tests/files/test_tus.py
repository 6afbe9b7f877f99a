"""Resumable uploads: the protocol tus on a real server, by hand and by its real clients; whatever is cut goes on."""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from tusclient import client as tuspy
from tusclient.storage import filestorage

from backlore.core.keys import key
from backlore.services.files.catalog import Exists, Quota
from backlore.services.files.steps import RECORD
from backlore.services.uploads.receiver import WRITE
from backlore.services.uploads.transfers import LEASE, Locked, NoUpload
from backlore.services.uploads.tus import ALGORITHMS
from tests.conftest import KEEPING, PASSWORD, ROOT, Server, User, engine_cli, run_in_application, serving
from tests.files.test_files import ANN, House, read
from tests.files.test_fileserver import living
from tests.kit.engines import Engine
from tests.kit.fileservers import file_servers
from tests.process.test_faults import until
from tests.tools.test_clients import NODE

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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"upload_limit": LIMIT, "body_timeout": 8.0}
    with serving(KEEPING, tmp_path_factory.mktemp("tus"), settings=settings) as made:
        yield made


@pytest.fixture(scope="module")
def ann(server: Server) -> Iterator[User]:
    with person(server, "ann") as user:
        yield user


@pytest.fixture(scope="module")
def bob(server: Server) -> Iterator[User]:
    with person(server, "bob") as user:
        yield user


def test_what_is_offered(server: Server) -> None:
    for path in ("/files/tus", "/files/tus/some"):
        got = httpx.options(server.url + path)
        assert got.status_code == 204 and got.headers["tus-version"] == "1.0.0"
        assert got.headers["tus-max-size"] == str(LIMIT) and "sha1" in got.headers["tus-checksum-algorithm"].split(",")
        offered = set(got.headers["tus-extension"].split(","))
        assert offered >= {"creation", "creation-with-upload", "creation-defer-length", "termination", "expiration"}


def test_an_upload_and_its_life(ann: User, server: Server) -> None:
    content = os.urandom(3_000_001)
    path = begin(ann, len(content), "life/a b.bin", kind="x")
    assert ann.get(path).json() == {"offset": 0, "length": len(content), "file": None}
    assert ann.get("/files").json()["files"] == []
    at = 0
    for size in (1, 1_000_000, 999_999, 1_000_001):
        assert offset_of(ann, path) == at
        got = add(ann, path, at, content[at : at + size])
        at += size
        assert (got.status_code, got.headers["upload-offset"]) == (204, str(at)), got.text
    file = got.headers["upload-file"]
    assert ann.get("/files").json()["files"][0]["id"] == file and hash_of(ann, "life/a b.bin") == sha(content)
    assert list(on_disk(server).values()).count(len(content)) == 1  # its one piece is the file
    # whoever has lost the answer learns it
    got = ann.head(path, headers=SPOKEN)
    assert got.headers["upload-offset"] == got.headers["upload-length"] == str(len(content))
    assert (
        got.headers["upload-file"] == file
        and got.headers["upload-metadata"] == named("life/a b.bin", kind="x")["upload-metadata"]
    )
    assert got.headers["cache-control"] == "no-store"
    assert ann.get(path).json() == {"offset": len(content), "length": len(content), "file": file}
    again = add(ann, path, len(content), b"")
    assert again.status_code == 204 and again.headers["upload-file"] == file
    assert add(ann, path, len(content), b"x").json() == {"error": "size"}
    assert add(ann, path, 0, content).json() == {"error": "offset"}
    assert ann.delete(path, headers=SPOKEN).status_code == 204 and ann.get(path).json() == {"error": "upload"}
    assert hash_of(ann, "life/a b.bin") == sha(content)


REFUSED = {
    "no version": ({"tus-resumable": ""}, 412, {"error": "version"}),
    "another version": ({"tus-resumable": "0.2.2"}, 412, {"error": "version"}),
    "no length": ({"upload-length": ""}, 400, "upload-length"),
    "length below nothing": ({"upload-length": "-1"}, 400, "upload-length"),
    "length in words": ({"upload-length": "1e3"}, 400, "upload-length"),
    "length of other digits": ({"upload-length": "\u00b2"}, 400, "upload-length"),
    "length over the limit": ({"upload-length": str(LIMIT + 1)}, 413, {"error": "size"}),
    "length beyond numbers": ({"upload-length": "9" * 40}, 400, "upload-length"),
    "deferred, but how": ({"upload-length": None, "upload-defer-length": "2"}, 400, "upload-length"),
    "no name": ({"upload-metadata": "other eA=="}, 400, "name"),
    "an empty name": ({"upload-metadata": "filename"}, 400, "name"),
    "no base64": ({"upload-metadata": "filename a*b"}, 400, "upload-metadata"),
    "cut base64": ({"upload-metadata": "filename YWJ"}, 400, "upload-metadata"),
    "base64 of no text": ({"upload-metadata": f"filename {packed(bytes([255, 254]))}"}, 400, "upload-metadata"),
    "a key twice": ({"upload-metadata": "filename YQ==,filename Yg=="}, 400, "upload-metadata"),
    "an empty key": ({"upload-metadata": "filename YQ==,,"}, 400, "upload-metadata"),
    "too much said": ({"upload-metadata": f"filename YQ==,x {packed('x' * 4000)}"}, 400, "upload-metadata"),
    "a name that climbs": (named("../../etc/passwd"), 400, "name"),
    "a name with NUL": (named("a\0b"), 400, "name"),
    "a name too long": (named("x" * 300), 400, "name"),
    "none to replace": (named("nothing here", expected="nosuch"), 409, {"error": "changed"}),
    "no csrf": ({"x-csrf-token": "other"}, 403, {"error": "csrf"}),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_begun(bob: User, server: Server, what: str) -> None:
    given, status, said = REFUSED[what]
    headers = {**SPOKEN, "upload-length": "10", **named("n"), **given}
    before = uploads_in_redis(server)
    raw = [(name, text.encode("latin-1")) for name, text in headers.items() if text is not None]
    got = bob.post("/files/tus", headers=raw)
    assert got.status_code == status, got.text
    assert got.json() == said if isinstance(said, dict) else got.json()["where"] == said
    assert "location" not in got.headers and uploads_in_redis(server) == before
    assert status == 403 or got.headers["tus-resumable"] == "1.0.0"


def test_what_is_not_added(ann: User, bob: User) -> None:
    path = begin(ann, 10, "added")
    add(ann, path, 0, b"12345")
    plain = {**OCTETS, "upload-offset": "5"}
    for headers, status, said in (
        ({**plain, "upload-offset": "4"}, 409, "offset"),
        ({**plain, "upload-offset": "6"}, 409, "offset"),
        ({**plain, "upload-offset": "x"}, 400, "payload"),
        (OCTETS, 400, "payload"),
        ({**plain, "content-type": "application/octet-stream"}, 415, "type"),
        ({**plain, "tus-resumable": "2.0.0"}, 412, "version"),
        ({**plain, "upload-length": "11"}, 400, "payload"),
        ({**plain, "upload-checksum": "rot13 eA=="}, 400, "payload"),
        ({**plain, "upload-checksum": "sha1 %"}, 400, "payload"),
        ({**plain, "upload-checksum": "sha1 eA=="}, 460, "checksum"),
        ({**plain, "upload-checksum": f"shake_128 {packed(b'x')}"}, 400, "payload"),
        ({**plain, "x-csrf-token": "x"}, 403, "csrf"),
    ):
        got = ann.patch(path, content=b"67890", headers=headers)
        assert (got.status_code, got.json()["error"]) == (status, said), headers
    # another's upload is none
    for got in (
        bob.head(path, headers=SPOKEN),
        bob.get(path),
        bob.delete(path, headers=SPOKEN),
        add(bob, path, 5, b"67890"),
        add(ann, f"{path}x", 0, b"1"),
        ann.head("/files/tus/" + "y" * 64, headers=SPOKEN),
    ):
        assert got.status_code == 404
    with httpx.Client(base_url=str(ann.base_url)) as nobody:
        assert nobody.head(path, headers=SPOKEN).status_code == 403
    assert ann.head(path).status_code == 412
    # it is none of them the worse for it
    assert offset_of(ann, path) == 5 and add(ann, path, 5, b"67890").status_code == 204
    assert ann.get("/files/content/added").text == "1234567890"


def test_longer_than_said(ann: User) -> None:
    path = begin(ann, 10, "longer")
    assert add(ann, path, 0, b"12345678901").json() == {"error": "size"}
    assert offset_of(ann, path) == 0
    assert add(ann, path, 0, iter([b"12345", b"678901"])).json() == {"error": "size"}  # its length isn't said
    at = offset_of(ann, path)
    assert at in (0, 5)  # what fitted, as it came
    assert add(ann, path, at, b"1234567890"[at:]).status_code == 204
    assert ann.get("/files/content/longer").text == "1234567890"


def test_nothing_at_all(ann: User) -> None:
    path = begin(ann, 0, "nothing")
    assert offset_of(ann, path) == 0 and ann.get("/files/content/nothing").content == b""
    assert ann.get(path).json()["file"]


def test_bytes_that_come_along(ann: User) -> None:
    headers = {**OCTETS, "upload-length": "10"}
    got = ann.post("/files/tus", content=b"12345", headers={**headers, **named("along")})
    assert (got.status_code, got.headers["upload-offset"]) == (201, "5")
    assert "upload-file" in add(ann, got.headers["location"], 5, b"67890").headers
    got = ann.post("/files/tus", content=b"1234567890", headers={**headers, **named("along all")})
    assert got.status_code == 201 and got.headers["upload-file"]
    assert ann.get("/files/content/along all").text == "1234567890"
    for content, more, status in (
        (b"12345678901", {}, 413),
        (b"12345", {"content-type": "text/plain"}, 415),
        (b"12345", {"upload-checksum": "sha1 eA=="}, 460),
    ):
        before = len(ann.get("/files").json()["files"])
        got = ann.post("/files/tus", content=content, headers={**headers, **named("along none"), **more})
        assert got.status_code == status and len(ann.get("/files").json()["files"]) == before


def test_a_length_said_later(ann: User) -> None:
    got = ann.post("/files/tus", headers={**SPOKEN, "upload-defer-length": "1", **named("later")})
    path = got.headers["location"]
    got = ann.head(path, headers=SPOKEN)
    assert got.headers["upload-defer-length"] == "1" and "upload-length" not in got.headers
    assert add(ann, path, 0, b"12345").headers["upload-offset"] == "5"
    assert ann.get(path).json() == {"offset": 5, "length": None, "file": None}
    assert add(ann, path, 5, b"", upload_length="4").status_code == 400  # more has come
    assert add(ann, path, 5, b"", upload_length=str(LIMIT + 1)).status_code == 413
    assert add(ann, path, 5, b"678", upload_length="10").headers["upload-offset"] == "8"
    assert add(ann, path, 8, b"", upload_length="11").status_code == 400  # it is said already
    assert add(ann, path, 8, b"90", upload_length="10").headers["upload-file"]
    assert ann.get("/files/content/later").text == "1234567890"


def test_checksums(ann: User, server: Server) -> None:
    content = os.urandom(3 * WRITE + 100)
    parts = [content[:1000], content[1000 : 2 * WRITE], content[2 * WRITE :]]
    before = on_disk(server)
    for name in ALGORITHMS:
        path = begin(ann, len(parts[0]), f"sum {name}")
        right = packed(hashlib.new(name, parts[0]).digest())
        wrong = packed(hashlib.new(name, b"other").digest())
        assert add(ann, path, 0, parts[0], upload_checksum=f"{name} {wrong}").status_code == 460, name
        assert add(ann, path, 0, parts[0], upload_checksum=f"{name} {right}").status_code == 204, name
    path, at = begin(ann, len(content), "sums"), 0
    for part in parts:
        for _ in range(2):
            got = add(ann, path, at, part[:-1] + bytes([part[-1] ^ 1]), upload_checksum=f"sha1 {sha1(part)}")
            assert (got.status_code, got.json()) == (460, {"error": "checksum"})
            assert offset_of(ann, path) == at
            assert sum(on_disk(server).values()) - sum(before.values()) == len(parts[0]) + at  # nothing of it is left
        got = add(ann, path, at, part, upload_checksum=f"sha1 {sha1(part)}")
        at += len(part)
        assert (got.status_code, got.headers["upload-offset"]) == (204, str(at))
    assert hash_of(ann, "sums") == sha(content)


def sha1(content: bytes) -> str:
    return packed(hashlib.sha1(content).digest())


def test_giving_up(ann: User, server: Server) -> None:
    before, known = on_disk(server), uploads_in_redis(server)
    path = begin(ann, 10, "given up")
    add(ann, path, 0, b"12345")
    assert len(on_disk(server)) == len(before) + 1
    assert ann.delete(path).status_code == 412
    assert ann.delete(path, headers=SPOKEN).status_code == 204
    assert ann.delete(path, headers=SPOKEN).json() == {"error": "upload"}
    assert ann.head(path, headers=SPOKEN).status_code == add(ann, path, 5, b"67890").status_code == 404
    assert on_disk(server) == before and set(uploads_in_redis(server)) <= {*known}


def test_for_who_can_only_post(ann: User) -> None:
    path = begin(ann, 5, "posted")
    headers = {**OCTETS, "upload-offset": "0", "x-http-method-override": "PATCH"}
    got = ann.post(path, content=b"12345", headers=headers)
    assert got.status_code == 204 and ann.get("/files/content/posted").text == "12345"
    assert ann.post(path, content=b"x", headers={**headers, "x-http-method-override": "PUT"}).status_code == 405
    assert ann.post(path, headers={**SPOKEN, "x-http-method-override": "DELETE"}).status_code == 204
    assert ann.get(path).status_code == 404


def test_names_and_conditions(ann: User) -> None:
    assert add(ann, begin(ann, 1, "taken"), 0, b"1").status_code == 204
    first = ann.get("/files").json()["files"][0]
    headers = {**SPOKEN, "upload-length": "1"}
    assert ann.post("/files/tus", headers={**headers, **named("taken", expected="*")}).json() == {"error": "exists"}
    path = begin(ann, 1, "taken", expected=first["id"])
    late = begin(ann, 1, "taken late", expected="*")
    assert add(ann, begin(ann, 1, "taken"), 0, b"2").status_code == 204
    assert add(ann, begin(ann, 1, "taken late"), 0, b"2").status_code == 204
    # what came between is seen at the end too, and again whenever one asks
    for _ in range(2):
        assert ann.get(path).json() in ({"offset": 0, "length": 1, "file": None}, {"error": "changed"})
        assert add(ann, path, offset_or_one(ann, path), b"3"[offset_or_one(ann, path) :]).json() == {"error": "changed"}
    assert add(ann, late, 0, b"3").json() == {"error": "exists"}
    assert ann.get("/files/content/taken").text == "2"
    assert ann.post("/files/delete", json={"name": "taken late"}).status_code == 200
    assert ann.get(late).json()["file"] and ann.get("/files/content/taken late").text == "3"
    assert ann.delete(path, headers=SPOKEN).status_code == 204


def offset_or_one(user: User, path: str) -> int:
    got = user.head(path, headers=SPOKEN)
    return int(got.headers["upload-offset"]) if got.status_code == 200 else 1


class Slow:
    """A PATCH whose bytes come as they are sent here."""

    def __init__(self, server: Server, user: User, path: str, offset: int, length: int):
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        cookies = "; ".join(f"{name}={value}" for name, value in user.cookies.items())
        headers = {**OCTETS, "host": "x", "cookie": cookies, "x-csrf-token": user.csrf, "upload-offset": str(offset)}
        lines = [f"PATCH {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items()), f"content-length: {length}"]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def status(self) -> int:
        answer = self._socket.recv(65536)
        self.close()
        return int(answer.split()[1])

    def close(self) -> None:
        self._socket.close()


def test_two_at_once(ann: User, server: Server) -> None:
    content = os.urandom(2 * WRITE)
    path = begin(ann, len(content), "two at once")
    first = Slow(server, ann, path, 0, len(content))
    first.send(content[: WRITE + 10])
    until(lambda: offset_of(ann, path) >= WRITE)
    assert add(ann, path, offset_of(ann, path), b"x").json() == {"error": "locked"}
    assert ann.delete(path, headers=SPOKEN).json() == {"error": "locked"}
    first.send(content[WRITE + 10 :])
    assert first.status() == 204
    assert hash_of(ann, "two at once") == sha(content)


def test_broken_off_and_gone_on_with(ann: User, server: Server) -> None:
    content = os.urandom(WRITE)
    path = begin(ann, len(content), "broken off")
    for at in range(0, len(content) - 1, 1_000_000):
        slow = Slow(server, ann, path, at, len(content) - at)
        slow.send(content[at : at + 1_000_000])
        slow.close()
        # what the broken connection has brought is kept, all of it
        until(lambda at=at: how_far(ann, path) == min(at + 1_000_000, len(content)))
        until(lambda: redis_says(server, "hget", redis_key(server, path), "holder") == [""])
    rest = offset_of(ann, path)
    assert rest == len(content) or add(ann, path, rest, content[rest:]).status_code == 204
    assert hash_of(ann, "broken off") == sha(content)


def how_far(user: User, path: str) -> int:
    """The offset; -1 while a file is made of it, which is 423."""
    got = user.head(path, headers=SPOKEN)
    assert got.status_code in (200, 423)
    return int(got.headers.get("upload-offset", -1))


def redis_key(server: Server, path: str) -> str:
    (found,) = redis_says(server, "keys", f"upload:*:{path.rpartition('/')[2]}")
    return found


def test_one_that_stalls_is_taken_over(ann: User, server: Server) -> None:
    """Its connection may long be dead. What it still sends can do no harm, though it holds the same offset."""
    content = os.urandom(3 * WRITE)
    path = begin(ann, len(content), "stalls")
    stalled = Slow(server, ann, path, 0, len(content))
    stalled.send(content[: WRITE + 100_000])
    until(lambda: offset_of(ann, path) >= WRITE)
    at, end = offset_of(ann, path), time.monotonic() + LEASE + 5
    while (got := add(ann, path, at, content[at : at + WRITE])).status_code == 423:
        assert time.monotonic() < end
        time.sleep(0.2)
    assert got.status_code == 204, got.text
    stalled.send(b"evil" * 300_000)
    assert stalled.status() == 423
    at = offset_of(ann, path)
    assert add(ann, path, at, content[at:]).status_code == 204
    assert hash_of(ann, "stalls") == sha(content)


def test_bytes_that_nobody_has_acknowledged(ann: User, server: Server) -> None:
    """A worker that died between writing and saying so leaves bytes behind those that count."""
    content = os.urandom(200_000)
    for name, evil_at in (("junk", 100_000), ("junk at the end", 200_000)):
        path = begin(ann, len(content) + (evil_at == 200_000), name)
        assert add(ann, path, 0, content[:evil_at]).status_code == 204
        ((blob, size),) = json.loads(redis_says(server, "hget", redis_key(server, path), "pieces")[0])
        with (server.data / "files" / "contents" / blob[:2] / blob).open("ab") as file:
            file.write(b"evil")
        rest = (content + b"!")[size:] if evil_at == 200_000 else content[size:]
        assert add(ann, path, size, rest).status_code == 204
        assert hash_of(ann, name) == sha(content[:size] + rest)
        assert blob not in on_disk(server)


def test_bytes_that_the_disk_has_lost(ann: User, server: Server) -> None:
    """The client is told to begin anew, never that something is whole which isn't."""
    path = begin(ann, 10, "lost")
    assert add(ann, path, 0, b"12345").status_code == 204
    ((blob, _),) = json.loads(redis_says(server, "hget", redis_key(server, path), "pieces")[0])
    (server.data / "files" / "contents" / blob[:2] / blob).unlink()
    before = on_disk(server)
    assert add(ann, path, 5, b"67890").json() == {"error": "upload"}
    assert ann.head(path, headers=SPOKEN).status_code == ann.get("/files/content/lost").status_code == 404
    assert on_disk(server) == before and "files.lost" in server.said()


class Resuming(threading.Thread):
    """Uploads as a client does: ask how far it is, and go on, until it is whole. Counts what broke."""

    def __init__(self, user: User, path: str, content: bytes):
        super().__init__()
        self.broken = 0
        self.done = False
        self._user = user
        self._path = path
        self._content = content

    def run(self) -> None:
        end = time.monotonic() + 120
        while not self.done and time.monotonic() < end:
            try:
                self._go_on()
            except httpx.TransportError:
                self.broken += 1
            time.sleep(0.1)

    def _go_on(self) -> None:
        got = self._user.head(self._path, headers=SPOKEN)
        if got.status_code == 200:
            at = int(got.headers["upload-offset"])
            self.done = at == len(self._content)
            if self.done:
                return
            got = add(self._user, self._path, at, self._slowly(at), content_length=str(len(self._content) - at))
        self.broken += got.status_code == 503
        assert got.status_code in (200, 204, 409, 423, 503), got.text

    def _slowly(self, at: int) -> Iterator[bytes]:
        for start in range(at, len(self._content), 300_000):
            yield self._content[start : start + 300_000]
            time.sleep(0.01)


@pytest.mark.parametrize("what", ["workers", "engine", "both"])
def test_killed_in_the_middle(tmp_path: Path, what: str) -> None:
    content = os.urandom(60 << 20)
    with serving(KEEPING, tmp_path) as server, person(server, "kim") as user:
        path = begin(user, len(content), "killed")
        client = Resuming(user, path, content)
        client.start()
        at = 0
        for _ in range(3):
            until(lambda at=at: client.done or offset_of(user, path) > at)
            victims = [] if what == "engine" else server.workers()
            victims += [] if what == "workers" else [server.engine()]
            for each in victims:
                each.kill()
            assert not client.done
            until(lambda: httpx.get(f"{server.url}/health").status_code == 200)
            at = offset_of(user, path) + 1_000_000  # what comes beyond it, a request under way brings
        client.join()
        # an engine that is back soon is waited for, and the client notices nothing
        assert client.done and (client.broken >= 3 or what == "engine")
        assert server.said().count("engine.died" if what == "engine" else "worker.died") >= 3
        assert hash_of(user, "killed") == sha(content)
        assert user.get("/files/usage").json()["bytes"] == len(content)
        # whatever was cut has left nothing: one content, and no piece beside it
        assert user.delete(path, headers=SPOKEN).status_code == 204
        assert list(on_disk(server).values()) == [len(content)]


def test_what_expires_is_collected(tmp_path: Path) -> None:
    settings = {"files": {"free": 0, "unfinished": 3600.0}}
    sweep = "server.app.uploads.sweep()"
    with serving(KEEPING, tmp_path, settings=settings) as server, person(server, "kim") as user:
        whole = begin(user, 5, "whole")
        add(user, whole, 0, b"12345")
        path = begin(user, 1000, "expires")
        before = time.time()
        got = add(user, path, 0, b"12345")
        said = parsedate_to_datetime(got.headers["upload-expires"]).timestamp()
        assert before + 3599 <= said <= time.time() + 3600  # whole seconds
        run_in_application(server, sweep)
        assert offset_of(user, path) == 5 and len(on_disk(server)) == 2
        for each in (whole, path):
            redis_says(server, "hset", redis_key(server, each), "expires", "1")
        assert user.head(path, headers=SPOKEN).status_code == add(user, path, 5, b"6").status_code == 404
        run_in_application(server, sweep)  # it isn't looked for yet
        assert len(on_disk(server)) == 2
        for member in redis_says(server, "zrange", "uploads:{all}", "0", "-1"):
            redis_says(server, "zadd", "uploads:{all}", "1", member)
        other = begin(user, 1000, "goes on")
        add(user, other, 0, b"123")
        run_in_application(server, sweep)
        assert sorted(on_disk(server).values()) == [3, 5] and offset_of(user, other) == 3
        assert user.delete(other, headers=SPOKEN).status_code == 204 and uploads_in_redis(server) == []
        assert user.get("/files/content/whole").text == "12345"


def test_a_user_who_leaves(tmp_path: Path) -> None:
    with serving(KEEPING, tmp_path) as server, person(server, "kim") as user:
        for name in ("a", "b"):
            add(user, begin(user, 10, name), 0, b"12345")
        add(user, begin(user, 5, "c"), 0, b"12345")
        got = user.post("/auth/destroy", json={"password": PASSWORD})
        assert got.status_code == 200
        until(lambda: on_disk(server) == {} and uploads_in_redis(server) == [])


def test_the_quota_counts_what_is_to_come(tmp_path: Path) -> None:
    settings = {"files": {"free": 0, "quota": 1_000_000 + 2 * RECORD}}
    with serving(KEEPING, tmp_path, settings=settings) as server, person(server, "kim") as user:

        def try_to_begin(length: int) -> httpx.Response:
            return user.post("/files/tus", headers={**SPOKEN, "upload-length": str(length), **named("q")})

        assert try_to_begin(1_000_001 + RECORD).json() == {"error": "quota"}
        first = begin(user, 600_000, "first")
        assert try_to_begin(500_000).json() == {"error": "quota"}
        later = user.post("/files/tus", headers={**SPOKEN, "upload-defer-length": "1", **named("l")}).headers[
            "location"
        ]
        assert add(user, later, 0, bytes(300_000)).status_code == 204
        assert add(user, later, 300_000, bytes(300_000)).json() == {"error": "quota"}
        assert add(user, later, 300_000, b"", upload_length="400001").json() == {"error": "quota"}
        assert offset_of(user, later) == 300_000
        assert add(user, later, 300_000, bytes(100_000), upload_length="400000").status_code == 204
        assert add(user, first, 0, os.urandom(600_000)).status_code == 204
        assert user.get("/files/usage").json()["bytes"] == 1_000_000
        assert try_to_begin(1).json() == {"error": "quota"}
        # what was bought with an upload that was given up is had back
        user.post("/files/erase", json={"ids": [user.post("/files/delete", json={"name": "first"}).json()["id"]]})
        second = begin(user, 600_000, "second")
        assert user.delete(second, headers=SPOKEN).status_code == 204
        assert user.delete(begin(user, 600_000, "third"), headers=SPOKEN).status_code == 204


def test_memory_stays_the_same(tmp_path: Path) -> None:
    size, chunk = 200 << 20, (7 << 20) + 1
    block = os.urandom(chunk)
    content = (block * (size // chunk + 1))[:size]
    settings = {"upload_limit": LIMIT}
    with serving(KEEPING, tmp_path, settings=settings, workers=1) as server, person(server, "kim") as user:
        (worker,) = server.workers()
        small = begin(user, 3 * chunk, "small")
        for at in range(0, 3 * chunk, chunk):
            add(user, small, at, block)
        before, most = worker.memory_info().rss, 0
        path = begin(user, size, "large")
        for at in range(0, size, chunk):
            got = add(user, path, at, content[at : at + chunk])
            assert got.status_code == 204
            most = max(most, worker.memory_info().rss)
        assert got.headers["upload-file"] and hash_of(user, "large") == sha(content)
        assert most - before < 40 << 20, (before, most)


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


async def pieces(*content: bytes) -> AsyncIterator[bytes]:
    for each in content:
        yield each


def run(engine: Engine, folder: Path, story) -> None:
    async def tell() -> None:
        from backlore.clients.redis.client import Redis

        async with Redis(unix_socket_path=engine.path) as redis:
            await redis.flushall()
            await story(House(redis, folder, None))

    asyncio.run(tell())


@pytest.mark.parametrize("junk", [b"", b"evil"])
def test_cut_before_the_file_was_kept(engine: Engine, tmp_path: Path, junk: bytes) -> None:
    async def story(house: House) -> None:
        uploads = house.uploads
        made = await uploads.create(ANN, "cut", 10, "*")
        async with uploads.receive(ANN, made.id) as receiver:
            await receiver.take(pieces(b"12345", b"67890"), 10)
        ((blob, _),) = receiver.transfer.pieces
        if junk:
            await house.disk.append(blob, 10, junk)  # of one that it was taken over from
        # the worker ends here; whoever asks has the file made
        found = await uploads.find(ANN, made.id)
        file = await house.files.find(ANN, "cut")
        assert found.is_whole and (found.file, file.hash, file.size) == (file.id, sha(b"1234567890"), 10)
        assert found.pieces == [] and len(await house.disk.names()) == 1

    run(engine, tmp_path, story)


def test_cut_after_the_file_was_kept(engine: Engine, tmp_path: Path) -> None:
    async def story(house: House) -> None:
        uploads = house.uploads
        made = await uploads.create(ANN, "cut", 10, "*")
        async with uploads.receive(ANN, made.id) as receiver:
            await receiver.take(pieces(b"1234567890"), 10)
            draft = await uploads._gather(ANN, receiver.transfer)
            file = await house.files.keep(ANN, "cut", draft, "*")
            await draft.discard()
        # cut before that was said: it is the same file still, though "none of this name" was asked for
        assert (await uploads.find(ANN, made.id)).file == file.id
        other = await uploads.create(ANN, "other", 10, "*")
        async with uploads.receive(ANN, other.id) as receiver:
            await receiver.take(pieces(b"1234567890"), 10)
        await house.files.put(ANN, "other", b"another")
        with pytest.raises(Exists):
            await uploads.find(ANN, other.id)

    run(engine, tmp_path, story)


def test_ended_while_bytes_come(engine: Engine, tmp_path: Path) -> None:
    async def story(house: House) -> None:
        uploads, append = house.uploads, house.files.store.append

        async def end_first(*given: object, **options: bool) -> None:
            await uploads.wipe(ANN)
            await append(*given, **options)

        for number in range(2):  # ended before its first bytes were written, or later ones
            made = await uploads.create(ANN, "ended", 10)
            with pytest.raises(NoUpload):
                async with uploads.receive(ANN, made.id) as receiver:
                    if number:
                        await receiver.take(pieces(b"12345"), 10)
                    house.files.store.append = end_first
                    await receiver.take(pieces(b"67890"), 10)
            house.files.store.append = append
            assert await house.disk.names() == [] and await house.redis.keys("*") == ["usage:{all}"]

    run(engine, tmp_path, story)


def test_taken_over_just_before_it_writes(engine: Engine, tmp_path: Path) -> None:
    """It has asked, it is its own still, and then it hangs: what it writes at last must not count."""

    async def story(house: House) -> None:
        uploads, append = house.uploads, house.files.store.append
        made = await uploads.create(ANN, "hangs", 10)

        async def hang(*given: object, **options: bool) -> None:
            house.files.store.append = append
            await house.redis.hset(key("upload", ANN, made.id), "until", 0)
            async with uploads.receive(ANN, made.id) as other:
                await other.take(pieces(b"12345"), 10)
            await append(*given, **options)

        async with uploads.receive(ANN, made.id) as receiver:
            await receiver.take(pieces(b"12"), 10)
        house.files.store.append = hang
        with pytest.raises(Locked):
            async with uploads.receive(ANN, made.id) as receiver:
                await receiver.take(pieces(b"evil"), 10)
        async with uploads.receive(ANN, made.id) as receiver:
            assert receiver.transfer.offset == 7
            await receiver.take(pieces(b"890"), 10)
            await uploads.finish(receiver)
        assert (await house.files.find(ANN, "hangs")).hash == sha(b"1212345890")

    run(engine, tmp_path, story)


def test_too_much_is_not_written(engine: Engine, tmp_path: Path) -> None:
    async def story(house: House) -> None:
        uploads = house.uploads
        made = await uploads.create(ANN, "much", -1)
        for _ in range(3):
            with pytest.raises(Quota):
                async with uploads.receive(ANN, made.id) as receiver:
                    await receiver.take(pieces(*[bytes(1 << 20)] * 13), 20 << 20)
        found = await uploads.find(ANN, made.id)
        assert sum(size for _, size, _ in await house.disk.names()) == found.offset == 8 << 20

    run(engine, tmp_path, story)


def test_on_file_servers(engine: Engine, tmp_path: Path) -> None:
    """One of them dies between two requests; a node dies between writing and saying so; the server is back."""
    content = os.urandom(3 * WRITE)

    async def story() -> None:
        async with living(engine, tmp_path, None, servers, quota=100 << 20) as house:
            uploads = house.uploads
            made = await uploads.create(ANN, "far away", len(content))
            for kill in range(3):
                at = (await uploads.find(ANN, made.id)).offset
                async with uploads.receive(ANN, made.id) as receiver:
                    await receiver.take(pieces(content[at : at + WRITE]), len(content))
                if kill == 0:
                    servers[0].kill()
                if kill == 1:  # what was written, but not said
                    blob, size = receiver.transfer.pieces[-1]
                    await house.files.store.append(blob, size, b"evil")
                    servers[0].start()
            assert (await uploads.find(ANN, made.id)).file
            file = await house.files.find(ANN, "far away")
            assert file.hash == sha(content) and await read(house.files, ANN, file) == content
            # one that was away when the pieces were deleted is asked again when the upload expires
            await house.redis.hset(key("upload", ANN, made.id), "expires", 1)
            async with asyncio.timeout(20):  # it is known to be back only once it was asked
                while set.union(*(server.names() for server in servers)) != {file.blobs[0][0]}:
                    await house.redis.zadd(key("uploads", "all"), {f"{ANN} {made.id}": 1}, xx=True)
                    await house.uploads.sweep()
                    await asyncio.sleep(0.1)

    with file_servers(tmp_path, 2) as servers:
        asyncio.run(story())


def test_nobody_begins_too_many(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from backlore.services.uploads import transfers

    monkeypatch.setattr(transfers, "MOST", 3)

    async def story(house: House) -> None:
        uploads = house.uploads
        made = [await uploads.create(ANN, f"n{number}", 10) for number in range(3)]
        with pytest.raises(transfers.Crowd):
            await uploads.create(ANN, "n4", 10)
        await uploads.end(ANN, made[0].id)
        await uploads.create(ANN, "n4", 10)

    run(engine, tmp_path, story)
