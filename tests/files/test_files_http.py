"""Users' files over HTTP, on a real server."""

import hashlib
import io
import os
import socket
import time
import zipfile
from collections.abc import Iterator
from email.parser import BytesParser
from pathlib import Path

import httpx
import pytest

from backlore.core.temporary import FOLDER
from tests.conftest import KEEPING, PASSWORD, Server, User, mail_to, serving, token_in
from tests.kit.contents import path, put

CONTENT = bytes(range(256)) * 5000  # 1,280,000 bytes


@pytest.fixture(scope="module")
def ann(keeping: Server) -> Iterator[User]:
    with User(keeping, "ann@example.com") as user:
        yield user.sign_up()


@pytest.fixture(scope="module")
def bob(keeping: Server) -> Iterator[User]:
    with User(keeping, "bob@example.com") as user:
        yield user.sign_up()


def test_a_file_and_its_life(ann: User, bob: User) -> None:
    made = put(ann, "a/b c.bin", CONTENT)
    assert made.status_code == 200, made.text
    file = made.json()
    assert (file["name"], file["size"], file["hash"]) == (
        "a/b c.bin",
        len(CONTENT),
        hashlib.sha256(CONTENT).hexdigest(),
    )
    got = ann.get(path("a/b c.bin"))
    assert got.content == CONTENT and got.headers["content-disposition"] == 'attachment; filename="b c.bin"'
    assert ann.get("/files").json()["files"] == [file]
    assert ann.get("/files/usage").json() == {"bytes": len(CONTENT), "files": 1, "quota": 10 << 30}
    assert bob.get(path("a/b c.bin")).status_code == 404 and bob.get("/files").json()["files"] == []
    assert put(ann, "a/b c.bin", b"x", expected="*").json() == {"error": "exists"}
    assert put(ann, "a/b c.bin", b"x", expected="nosuch").json() == {"error": "changed"}
    other = put(ann, "a/b c.bin", b"x", expected=file["id"]).json()
    (dead,) = ann.get("/files/trash").json()["files"]
    assert dead["id"] == file["id"] and dead["deleted"] >= file["changed"]
    assert ann.post("/files/undelete", json={"id": file["id"]}).json() == {"error": "exists"}
    assert bob.post("/files/undelete", json={"id": file["id"]}).status_code == 404
    assert ann.post("/files/delete", json={"name": "a/b c.bin"}).json() == {"id": other["id"]}
    assert ann.post("/files/delete", json={"name": "a/b c.bin"}).json() == {"error": "file"}
    back = ann.post("/files/undelete", json={"id": file["id"], "name": "back"})
    assert back.json()["name"] == "back" and ann.get(path("back")).content == CONTENT
    assert ann.post("/files/erase", json={"ids": [other["id"], "nosuch"]}).json() == {"erased": 1}
    assert ann.get("/files/trash").json() == {"files": [], "before": 0}
    assert ann.post("/files/delete", json={"name": "back"}).status_code == 200


def test_pages(bob: User) -> None:
    for number in range(7):
        put(bob, f"p{number}", b"%d" % number)
    names, before = [], 0
    for _ in range(3):
        page = bob.get("/files", params={"limit": 3, "before": before}).json()
        names += [file["name"] for file in page["files"]]
        before = page["before"]
    assert names == [f"p{number}" for number in reversed(range(7))] and before == 0


def test_conditions(ann: User) -> None:
    put(ann, "c", CONTENT)
    tag = ann.get(path("c")).headers["etag"]
    for headers, status in (
        ({"if-none-match": tag}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": '"other"'}, 200),
        ({"if-match": tag}, 200),
        ({"if-match": f'"x", {tag}'}, 200),
        ({"if-match": '"other"'}, 412),
        ({"if-match": f"W/{tag}"}, 412),
        ({"if-match": "*", "if-none-match": tag}, 304),
        ({"range": "bytes=0-9", "if-range": tag}, 206),
        ({"range": "bytes=0-9", "if-range": '"other"'}, 200),
        ({"range": "bytes=0-9", "if-range": "Tue, 24 Nov 2026 21:00:00 GMT"}, 200),
    ):
        assert ann.get(path("c"), headers=headers).status_code == status, headers
    assert ann.get(path("c"), headers={"if-match": '"other"'}).json() == {"error": "changed"}
    head = ann.head(path("c"))
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(CONTENT)), b"")
    put(ann, "c", b"new")
    assert ann.get(path("c")).headers["etag"] != tag


SIZE = len(CONTENT)
# header → the spans that come, None for the whole
RANGES = {
    "bytes=0-0": [(0, 1)],
    "bytes=0-": [(0, SIZE)],
    "bytes=5-9": [(5, 10)],
    f"bytes={SIZE - 1}-": [(SIZE - 1, SIZE)],
    "bytes=-1": [(SIZE - 1, SIZE)],
    "bytes=-99999999999": [(0, SIZE)],
    "bytes=100-99999999999": [(100, SIZE)],
    "bytes=0-0,10-19": [(0, 1), (10, 20)],
    "bytes=10-19, 0-0 ,-5": [(10, 20), (0, 1), (SIZE - 5, SIZE)],
    "bytes=0-0,99999999-": [(0, 1)],
    "BYTES=1-2": [(1, 3)],
    f"bytes={SIZE}-": [],
    "bytes=-0": [],
    "bytes=99999999-,-0": [],
    "bytes=9-5": None,
    "bytes=": None,
    "bytes=-": None,
    "bytes=a-b": None,
    "bytes=1-2,x": None,
    "bytes 1-2": None,
    "lines=1-2": None,
    "bytes=1-2-3": None,
    "bytes=+1-2": None,
    "bytes=0x1-2": None,
    "bytes=" + "9" * 30 + "-": [],
    "bytes=0-,0-,0-": None,
    "bytes=" + ",".join(["0-0"] * 21): None,
    "bytes=" + ",".join(f"{n}-{n}" for n in range(20)): [(n, n + 1) for n in range(20)],
}


@pytest.mark.parametrize("header", RANGES)
def test_ranges(ann: User, header: str) -> None:
    if "r" not in {file["name"] for file in ann.get("/files").json()["files"]}:
        put(ann, "r", CONTENT)
    got = ann.get(path("r"), headers={"range": header})
    spans = RANGES[header]
    if spans is None:
        assert got.status_code == 200 and got.content == CONTENT
    elif not spans:
        assert got.status_code == 416 and got.headers["content-range"] == f"bytes */{SIZE}"
        assert got.json() == {"error": "range"}
    elif len(spans) == 1:
        ((start, end),) = spans
        assert got.status_code == 206 and got.content == CONTENT[start:end]
        assert got.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    else:
        assert got.status_code == 206
        kind = got.headers["content-type"]
        assert kind.startswith("multipart/byteranges; boundary=")
        mail = BytesParser().parsebytes(b"content-type: " + kind.encode() + b"\r\n\r\n" + got.content)
        bodies = [part.get_payload(decode=True) for part in mail.get_payload()]
        assert bodies == [CONTENT[start:end] for start, end in spans]
        said = [part["content-range"] for part in mail.get_payload()]
        assert said == [f"bytes {start}-{end - 1}/{SIZE}" for start, end in spans]


def test_a_file_larger_than_a_piece(ann: User) -> None:
    big = os.urandom(3 << 20)
    put(ann, "big", big)
    assert ann.get(path("big")).content == big
    got = ann.get(path("big"), headers={"range": f"bytes={1 << 20}-{2 << 20}"})
    assert got.content == big[1 << 20 : (2 << 20) + 1]


def test_a_client_that_goes_away_is_noticed(keeping: Server, ann: User) -> None:
    """The server would wait for ever: a worker could not end, and what is read would stay open."""
    put(ann, "long", os.urandom(20 << 20))
    cookie = "; ".join(f"{name}={value}" for name, value in ann.cookies.items())
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50_000)
        client.connect(("127.0.0.1", keeping.port))
        client.sendall(
            f"GET {path('long')} HTTP/1.1\r\nhost: x\r\ncookie: {cookie}\r\nrange: bytes=1-\r\n\r\n".encode()
        )
        assert client.recv(1000).startswith(b"HTTP/1.1 206")
        time.sleep(0.5)  # the server is in the middle and waits for us to read on
    until = time.monotonic() + 10
    while [each for worker in keeping.workers() for each in worker.open_files() if "contents" in each.path]:
        assert time.monotonic() < until, keeping.said()
        time.sleep(0.1)


def test_links(ann: User, keeping: Server) -> None:
    put(ann, "for/others é.txt", b"shared")
    url = ann.post("/files/link", json={"name": "for/others é.txt"}).json()["url"]
    with httpx.Client(base_url=keeping.url) as stranger:
        got = stranger.get(url)
        assert (got.status_code, got.text) == (200, "shared")
        assert stranger.get(url, params={"download": "true"}).headers["content-disposition"].startswith("attachment")
        assert stranger.get(url, headers={"range": "bytes=0-1"}).text == "sh"
        parts = url.split("/")
        for place, value in ((3, "x" * 16), (4, "x" * 26), (5, "9999999999"), (6, "0" * 32), (7, "other")):
            wrong = stranger.get("/".join([*parts[:place], value, *parts[place + 1 :]]))
            assert (wrong.status_code, wrong.json()) == (403, {"error": "token"}), place
        put(ann, "for/others é.txt", b"another version")
        assert stranger.get(url).json() == {"error": "file"}
        signature = url.split("/")[6].removeprefix("signed-")
        assert len(signature) == 32 and signature not in keeping.said()
        for lost in (
            url.replace("/files/linked", "/elsewhere"),
            url.replace("/files/", "/files//"),
            url + "?" + 3000 * "x",
        ):
            assert stranger.get(lost).status_code in (404, 414)
        keeping.wait_said("/elsewhere")
        assert signature not in keeping.said()
    assert ann.post("/files/link", json={"name": "none"}).status_code == 404
    assert ann.post("/files/link", json={"name": "a", "seconds": 0}).status_code == 400


def test_links_end_with_what_lets_their_user_in(tmp_path: Path) -> None:
    with serving(KEEPING, tmp_path, settings={"admins": ["boss@example.com"]}) as server:
        boss, ann, bob = (User(server, f"{name}@example.com").sign_up() for name in ("boss", "ann", "bob"))
        stranger = httpx.Client(base_url=server.url)

        def link(user: User) -> str:
            put(user, "shared", b"shared")
            url: str = user.post("/files/link", json={"name": "shared"}).json()["url"]
            assert stranger.get(url).text == "shared"
            return url

        def has_ended(url: str) -> bool:
            got = stranger.get(url)
            return (got.status_code, got.json()) == (403, {"error": "token"})

        others = link(bob)
        url = link(ann)
        assert ann.post("/files/link/revoke").json() == {} and has_ended(url)
        url = link(ann)
        assert ann.post("/auth/changePassword", json={"old": PASSWORD, "new": "quite another one 7"}).status_code == 200
        assert has_ended(url)
        url = link(ann)
        mail_to(server, ann.email)  # of the change: letters leave side by side, in any order
        stranger.post("/auth/recover", json={"email": ann.email})
        token = token_in(mail_to(server, ann.email, 2), "reset")
        assert stranger.post("/auth/reset", json={"token": token, "password": PASSWORD}).status_code == 200
        assert has_ended(url)
        url = link(ann.log_in())
        id = ann.get("/auth/csrf").json()["user"]["id"]
        assert boss.post(f"/admin/users/{id}/disable").status_code == 200 and has_ended(url)
        assert boss.post(f"/admin/users/{id}/enable").status_code == 200 and has_ended(url)
        url = link(ann.log_in())
        assert ann.post("/auth/destroy", json={"password": PASSWORD}).status_code == 200 and has_ended(url)
        assert stranger.get(others).text == "shared"


def test_zip(keeping: Server) -> None:
    with User(keeping, "zoe@example.com") as zoe:
        zoe.sign_up()
        kept = {"a.txt": b"a", "é/日本.bin": os.urandom(2 << 20), "empty": b"", "z" * 200: b"z" * 100_000}
        for name, content in kept.items():
            put(zoe, name, content)
        everything = zoe.post("/files/zip", json={"archive": "mine é.zip"})
        assert everything.headers["content-type"] == "application/zip"
        assert everything.headers["content-disposition"].endswith("filename*=UTF-8''mine%20%C3%A9.zip")
        with zipfile.ZipFile(io.BytesIO(everything.content)) as archive:
            assert archive.testzip() is None
            assert {name: archive.read(name) for name in archive.namelist()} == kept
        # as a browser's form sends it
        token = zoe.headers.pop("x-csrf-token")
        some = zoe.post("/files/zip", data={"names": ["a.txt", "empty", "a.txt"], "csrf": token})
        zoe.headers["x-csrf-token"] = token
        with zipfile.ZipFile(io.BytesIO(some.content)) as archive:
            assert archive.namelist() == ["a.txt", "empty"]
        assert zoe.post("/files/zip", json={"names": ["a.txt", "none"]}).json() == {"error": "file"}
        assert zoe.post("/files/zip", json={"names": [".."]}).json()["error"] == "payload"


NAMES = {
    "plain.txt": 'attachment; filename="plain.txt"',
    "in/a/folder.bin": 'attachment; filename="folder.bin"',
    "naïve.bin": "attachment; filename=\"na_ve.bin\"; filename*=UTF-8''na%C3%AFve.bin",
    'quo"te.bin': "attachment; filename=\"quo_te.bin\"; filename*=UTF-8''quo%22te.bin",
    "100%.bin": "attachment; filename=\"100_.bin\"; filename*=UTF-8''100%25.bin",
    "日本.bin": "attachment; filename=\"__.bin\"; filename*=UTF-8''%E6%97%A5%E6%9C%AC.bin",
    "CON": 'attachment; filename="CON"',
    "a;b=c.bin": 'attachment; filename="a;b=c.bin"',
}


@pytest.mark.parametrize("name", NAMES)
def test_names_reach_the_reader(ann: User, name: str) -> None:
    put(ann, name, b"\0x")
    got = ann.get(path(name), params={"download": True})
    assert got.content == b"\0x" and got.headers["content-disposition"] == NAMES[name]


@pytest.mark.parametrize("name", ["..", "a/../b", "a\0b", "a\nb", "x" * 256, "\u202egpj.exe", ".", "a\\b", " ", "a//b"])
def test_names_that_are_none(ann: User, name: str) -> None:
    assert ann.post("/files/delete", json={"name": name}).json()["error"] == "payload"
    refused = put(ann, name, b"x")
    assert refused.status_code == 400 and refused.json()["where"] == "name", refused.text


def test_what_a_browser_could_run_is_no_page(ann: User) -> None:
    for name, content, kind, shown in (
        ("a.html", b"<script>alert(1)</script>", "text/html", False),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", False),
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(20), "image/png", True),
        ("a.txt", b"text", "text/plain; charset=utf-8", True),
        ("evil.png", b"<script>alert(1)</script>", "application/octet-stream", False),
    ):
        put(ann, name, content)
        headers = ann.get(path(name)).headers
        assert headers["content-type"] == kind and headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("sandbox; default-src 'none'")
        assert headers["content-disposition"].startswith("inline" if shown else "attachment")


def test_strangers(keeping: Server, ann: User) -> None:
    with httpx.Client(base_url=keeping.url) as stranger:
        assert stranger.get("/files").json() == {"error": "nocookie"}
        assert stranger.get(path("c")).json() == {"error": "nocookie"}
    with User(keeping) as other:
        other.cookies = ann.cookies
        assert other.post("/files", files={"file": ("f", b"x")}).json() == {"error": "csrf"}


def test_nothing_of_an_upload_is_left(keeping: Server, ann: User) -> None:
    for _ in range(3):
        put(ann, "again", os.urandom(1000))
    folders = (keeping.data / FOLDER, keeping.data / "files" / "drafts")
    until = time.monotonic() + 3  # they are deleted after the reply
    while left := [each.name for folder in folders for each in folder.iterdir()]:
        assert time.monotonic() < until, left
        time.sleep(0.02)


def test_the_description_names_all(keeping: Server) -> None:
    paths = httpx.get(f"{keeping.url}/openapi.json").json()["paths"]
    assert "/files/content/{name}" in paths and len([each for each in paths if each.startswith("/files")]) >= 9


BESIDE = [
    *("both", "both/inner.txt", "both (2)", "Both/other", "deep/a/b", "deep/a", "deep"),
    *("A.txt", "a.txt", "a.txt.", ".hidden", ".hidden/x", "é" * 127, "x" * 250 + ".bin", "CON", "a:b?*|<>"),
    "/".join("d" * 125 for _ in range(2)),
]


def test_every_zip_can_be_unpacked(keeping: Server, tmp_path: Path) -> None:
    """Also with files whose names are folders of others: by programs that know only disks."""
    with User(keeping, "packer@example.com") as user:
        user.sign_up()
        for name in BESIDE:
            assert put(user, name, name.encode()).status_code == 200, name
        (tmp_path / "all.zip").write_bytes(user.post("/files/zip").content)
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert len({name.casefold() for name in archive.namelist()}) == len(BESIDE)
        archive.extractall(tmp_path / "all")
    there = sorted(path.read_text() for path in (tmp_path / "all").rglob("*") if path.is_file())
    assert there == sorted(BESIDE)
    assert (tmp_path / "all/both/inner.txt").read_text() == "both/inner.txt"
    assert (tmp_path / "all/both (3)").read_text() == "both"  # for there is a both (2)
