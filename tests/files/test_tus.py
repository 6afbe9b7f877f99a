"""The protocol tus on a real server, by hand: what is offered, what is refused, and what comes of an upload."""

import hashlib
import os
from collections.abc import Iterator

import httpx
import pytest

from backlore.services.uploads.receiver import WRITE
from backlore.services.uploads.tus import ALGORITHMS
from tests.conftest import KEEPING, Server, User, serving
from tests.kit.tus import (
    LIMIT,
    OCTETS,
    SPOKEN,
    add,
    begin,
    hash_of,
    named,
    offset_of,
    on_disk,
    packed,
    person,
    sha,
    uploads_in_redis,
)


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
