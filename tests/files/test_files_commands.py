"""Files for who sits at the server and for admins: `backlore check`, `backlore files …` and the admins' routes, beside
a real server with a real S3 behind it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import KEEPING, Server, User, engine_cli
from tests.kit.buckets import KEYS, S3Server

SETTINGS = {"admins": ["admin@example.com"], "files": {"free": 0, "total": 3 << 20}}


@pytest.fixture(scope="module")
def server(bucket: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(KEEPING, tmp_path_factory.mktemp("keeping"), settings={**SETTINGS, "bucket": bucket.bucket})
    (made.folder / "secret.py").write_text(f"SECRET = {KEYS | {'cookie': 'only for tests ' * 4}}\n")
    try:
        yield made.start()
        made.stop()
    finally:
        made.kill()


@pytest.fixture(scope="module")
def ann(server: Server) -> Iterator[User]:
    with User(server, "ann@example.com") as user:
        yield user.sign_up()


@pytest.fixture(scope="module")
def boss(server: Server) -> Iterator[User]:
    with User(server, "admin@example.com") as user:
        yield user.sign_up()


def backlore(server: Server, *words: str | Path, status: int = 0) -> str:
    """What the command says on standard output."""
    command = [sys.executable, "-m", "backlore.cli", *map(str, words)]
    command += ["--app", str(server.folder), "--data", str(server.data)]
    got = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "200"})
    assert got.returncode == status, (got.stdout, got.stderr)
    return got.stdout or got.stderr


def put(user: User, name: str, content: bytes) -> httpx.Response:
    return user.post("/files", files={"file": ("f", content, "x/y")}, data={"name": name})


def id_of(user: User) -> str:
    return user.get("/auth/csrf").json()["user"]["id"]


def wait_until_moved(server: Server) -> None:
    """Until S3 has what it should."""
    due = [*engine_cli(server), "zcount", "moves:{all}", "-inf", str(int(time.time() * 1e6) + 60_000_000)]
    until = time.monotonic() + 30
    while subprocess.run(due, check=True, capture_output=True, text=True).stdout.strip() != "0":
        assert time.monotonic() < until, "moves wait for ever"
        time.sleep(0.05)


def contents(server: Server) -> list[Path]:
    return sorted(server.data.glob("files/contents/*/*"))


def test_files_of_a_user(server: Server, ann: User, tmp_path: Path) -> None:
    source = tmp_path / "letter.txt"
    source.write_text("Dear Bob")
    assert backlore(server, "files", "put", ann.email, source) == "letter.txt: 8 bytes kept\n"
    assert (
        backlore(server, "files", "put", ann.email, source, "--as", "mail/copy.txt") == "mail/copy.txt: 8 bytes kept\n"
    )
    assert ann.get("/files/content/mail/copy.txt").text == "Dear Bob"
    assert backlore(server, "files", "get", ann.email, "letter.txt") == "Dear Bob"
    backlore(server, "files", "get", ann.email, "letter.txt", "-o", tmp_path / "got")
    assert (tmp_path / "got").read_text() == "Dear Bob"
    listed = backlore(server, "files", "list", ann.email).splitlines()
    assert [line.split()[-1] for line in listed] == ["mail/copy.txt", "letter.txt"]
    for text in ("second", "third"):
        put(ann, "letter.txt", text.encode())
    dead = [line.split() for line in backlore(server, "files", "trash", ann.email).splitlines()]
    assert [words[-1] for words in dead] == ["letter.txt"] * 2 and dead[0][2:4] == ["6", dead[0][3]]
    assert "There is a file of this name" in backlore(server, "files", "undelete", ann.email, "letter.txt", status=1)
    said = backlore(server, "files", "undelete", ann.email, "letter.txt", "--as", "before")
    assert said == "before: is back\n" and ann.get("/files/content/before").text == "second"  # the last of that name
    backlore(server, "files", "undelete", ann.email, dead[1][3], "--as", "first")
    assert ann.get("/files/content/first").text == "Dear Bob"
    assert backlore(server, "files", "trash", ann.email) == ""


def test_what_can_not_be_done_is_one_line(server: Server, ann: User, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"x" * (4 << 20))
    for words, why in (
        (("list", "nobody@example.com"), "There is no user nobody@example.com."),
        (("get", ann.email, "nosuch"), "There is no file nosuch."),
        (("undelete", ann.email, "nosuch"), "There is no file nosuch."),
        (("put", ann.email, big), "It would go over the quota."),
        (("put", ann.email, big, "--as", "../x"), "Each part of a name has something that is no dot and no space."),
    ):
        assert backlore(server, "files", *words, status=1) == f"Error: {why}\n"
    stopped = Server(KEEPING, tmp_path)
    for words in (["check"], ["files", "restore"], ["files", "list", "ann@example.com"]):
        assert "is the application running?" in backlore(stopped, *words, status=1)


def test_a_total_over_http(server: Server, ann: User, boss: User) -> None:
    """Of all users together."""
    assert put(ann, "most", b"m" * (2 << 20)).status_code == 200
    assert put(boss, "more", b"n" * (1 << 20)).json() == {"error": "quota"}
    assert put(boss, "less", b"n" * (1 << 19)).status_code == 200
    for user, name in ((ann, "most"), (boss, "less")):
        dead = user.post("/files/delete", json={"name": name}).json()["id"]
        assert user.post("/files/erase", json={"ids": [dead]}).json() == {"erased": 1}
    assert put(boss, "more", b"n" * (1 << 20)).status_code == 200


def test_check_and_mend(server: Server, ann: User) -> None:
    put(ann, "checked", b"checked" * 100)
    wait_until_moved(server)
    assert backlore(server, "check", "--deep") == "All is well.\n"
    hash = ann.get("/files").json()["files"][0]["hash"]
    (path,) = [path for path in contents(server) if hashlib.sha256(path.read_bytes()).hexdigest() == hash]
    path.unlink()
    said = backlore(server, "check", status=1)
    assert "absent" in said and "1 problem is left." in said and not path.exists()
    said = backlore(server, "check", "--mend")
    assert said.splitlines()[-1] == "All is mended." and path.read_bytes() == b"checked" * 100
    path.write_bytes(b"damaged" * 100)
    assert backlore(server, "check") == "All is well.\n"  # by size alone
    assert "different" in backlore(server, "check", "--deep", status=1)
    assert "All is mended." in backlore(server, "check", "--deep", "--mend")
    assert backlore(server, "check", "--deep") == "All is well.\n"
    assert ann.get("/files/content/checked").content == b"checked" * 100


def test_restore(server: Server, ann: User) -> None:
    for number in range(40):
        put(ann, f"restored {number}", os.urandom(1000))
    wait_until_moved(server)
    before = {path: path.read_bytes() for path in contents(server)}
    shutil.rmtree(server.data / "files" / "contents")
    said = backlore(server, "files", "restore", "--at-once", "4")
    assert f"{len(before)} of {len(before)} contents brought back" in said and "0 files failed" in said
    assert {path: path.read_bytes() for path in contents(server)} == before
    assert backlore(server, "check", "--deep") == "All is well.\n"


def test_admins_see_names_and_undelete(server: Server, ann: User, boss: User) -> None:
    put(ann, "hers", b"hers")
    path = f"/admin/files/{id_of(ann)}"
    page = boss.get(path, params={"limit": 1}).json()
    assert [file["name"] for file in page["files"]] == ["hers"] and page["before"] > 0
    assert boss.get(path, params={"before": page["before"], "limit": 1}).json()["files"][0]["name"] != "hers"
    dead = ann.post("/files/delete", json={"name": "hers"}).json()["id"]
    found = boss.get(f"{path}/trash", params={"limit": 1}).json()["files"]
    assert [(file["name"], file["id"]) for file in found] == [("hers", dead)] and found[0]["deleted"] > 0
    assert boss.post(f"{path}/undelete", json={"id": "nosuch"}).json() == {"error": "file"}
    assert boss.post(f"{path}/undelete", json={"id": dead, "name": "a/../b"}).json()["error"] == "payload"
    assert boss.post(f"{path}/undelete", json={"id": dead}).json()["name"] == "hers"
    assert ann.get("/files/content/hers").text == "hers"
    again = ann.post("/files/delete", json={"name": "hers"}).json()["id"]
    put(ann, "hers", b"new")
    assert boss.post(f"{path}/undelete", json={"id": again}).json() == {"error": "exists"}
    assert boss.post(f"{path}/undelete", json={"id": again, "name": "old"}).json()["name"] == "old"
    assert boss.get("/admin/files/nobody").json() == {"files": [], "before": 0}
    for event in ("admin.files", "admin.trash", "admin.undelete"):
        server.wait_said(f"{event} admin={id_of(boss)} user={id_of(ann)}")


def test_nobody_else_is_an_admin_of_files(server: Server, ann: User, boss: User) -> None:
    path = f"/admin/files/{id_of(boss)}"
    for user, word in ((ann, "admin"), (User(server), "nocookie")):
        assert user.get(path).json() == user.get(f"{path}/trash").json() == {"error": word}
        assert user.post(f"{path}/undelete", json={"id": "x"}).json() == {"error": word}
    assert boss.post(f"{path}/undelete", json={"id": "x"}, headers={"x-csrf-token": "no"}).json() == {"error": "csrf"}
    promised = json.loads(boss.get("/openapi.json").text)["paths"]
    assert {"200", "404", "409"} <= set(promised["/admin/files/{user}/undelete"]["post"]["responses"])
