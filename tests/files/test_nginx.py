"""A real nginx in front, by the configuration of docs/nginx.md: it sends the files, and Backlore says to whom."""

import contextlib
import os
import pwd
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from email.parser import BytesParser
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT, Server, User, free_port, run_in_application, serving

PROXY = "127.0.0.2"  # what nginx comes from, so that we can come from elsewhere
CONTENT = bytes(range(256)) * 5000
MAIN = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log; {user}
events {{ }}
http {{
    log_format way '$request_method $uri $status "$upstream_http_x_accel_redirect"';
    access_log {folder}/access.log way; default_type application/octet-stream;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {documented}
}}
"""


def documented(ours: int, port: int, data: Path) -> str:
    """The configuration as the page has it, with our own ports and folder."""
    text = (ROOT / "docs" / "nginx.md").read_text()
    found = re.search(r"```nginx\n(.*?)```", text, re.DOTALL)
    assert found
    config = found[1]
    for old, new in (
        ("server 127.0.0.1:8000;", f"server 127.0.0.1:{ours};"),
        ("client_max_body_size 100m;", "client_max_body_size 8m;"),
        ("listen 80;", f"listen 127.0.0.1:{port};"),
        ("/srv/shoebox/.data/", f"{data}/"),
        ("proxy_pass http://backlore;", f"proxy_pass http://backlore; proxy_bind {PROXY};"),
    ):
        assert config.count(old) == 1, old
        config = config.replace(old, new)
    return config


class Front:
    """nginx, and what stands behind it."""

    def __init__(self, server: Server, folder: Path):
        self.server = server
        self.data = server.data
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        # who may not become others need not say who it is
        user = f"user {pwd.getpwuid(os.getuid()).pw_name};" if os.getuid() == 0 else ""
        config = documented(server.port, self.port, server.data)
        (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=user, documented=config))
        nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        assert nginx, "apt install nginx"
        self.words = [nginx, "-e", str(folder / "nginx-error.log"), "-c", str(folder / "nginx.conf")]
        self.log = folder / "nginx-error.log"
        self._told = folder / "access.log"
        self._read = 0  # lines of it

    @contextlib.contextmanager
    def running(self) -> Iterator["Front"]:
        process = subprocess.Popen(self.words, stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 10
            while not self._listens():
                assert process.poll() is None and time.monotonic() < until, self.log.read_text()
                time.sleep(0.02)
            yield self
        finally:
            process.terminate()
            process.wait(10)

    def sent(self) -> bool:
        """Whether nginx sent the file of the last reply itself: by its log, which has one line more for each."""
        until = time.monotonic() + 10
        while len(lines := self._told.read_text().splitlines()) <= self._read:
            assert time.monotonic() < until, "the log says nothing more"
            time.sleep(0.01)
        self._read = len(lines)
        return lines[-1].partition('"')[2].startswith("/contents/")

    def forget(self) -> None:
        """What the log says of requests until now."""
        time.sleep(0.1)
        self._read = len(self._told.read_text().splitlines())

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    settings = {"files": {"free": 0, "accel": "/contents/"}, "proxies": [PROXY], "upload_limit": 8 << 20}
    folder = tmp_path_factory.mktemp("nginx")
    with (
        serving(ROOT / "tests" / "applications" / "keeping", folder, settings=settings) as server,
        Front(server, folder).running() as it,
    ):
        yield it


@pytest.fixture(scope="module")
def ann(front: Front) -> Iterator[User]:
    with User(front, "ann@example.com") as user:  # type: ignore[arg-type]
        yield user.sign_up()


@pytest.fixture(scope="module")
def direct(front: Front, ann: User) -> Iterator[User]:
    """The same user, past nginx."""
    with User(front.server) as user:
        user.cookies = ann.cookies
        yield user


def put(user: User, name: str, content: bytes) -> dict:
    return user.post("/files", files={"file": ("f", content)}, data={"name": name}).raise_for_status().json()


SAME = (
    "content-type", "content-disposition", "content-security-policy", "x-content-type-options", "x-frame-options",
    "referrer-policy", "cache-control", "etag", "content-length", "accept-ranges",
)  # fmt: skip


@pytest.fixture
def told(front: Front) -> Front:
    """nginx, of whose log only what comes now counts."""
    front.forget()
    return front


@pytest.mark.parametrize(
    ("name", "content"),
    [("a/b c.bin", CONTENT), ("note.txt", b"text"), ("é.png", b"\x89PNG\r\n\x1a\n" + bytes(99)), ("x.svg", b"<svg/>")],
)
def test_a_file_comes_as_from_us(front: Front, ann: User, direct: User, name: str, content: bytes) -> None:
    put(ann, name, content)
    front.forget()
    for call in ("get", "head"):
        through, past = (getattr(user, call)(f"/files/content/{name}") for user in (ann, direct))
        assert front.sent(), call
        assert through.status_code == past.status_code == 200
        assert through.content == past.content == (content if call == "get" else b"")
        assert {each: through.headers.get(each) for each in SAME} == {each: past.headers.get(each) for each in SAME}
        assert "last-modified" not in through.headers and "x-accel-redirect" not in through.headers


def test_nothing_else_comes_by_nginx(front: Front, ann: User) -> None:
    at = next(path for path in (front.data / "files" / "contents").glob("*/*"))
    inside = f"{at.parent.name}/{at.name}"
    for path in (f"/contents/{inside}", "/contents/", f"/x/../contents/{inside}", f"//contents/{inside}"):
        with socket.create_connection(("127.0.0.1", front.port)) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 404 "), (path, answer[:100])
    with httpx.Client(base_url=front.url) as stranger:
        put(ann, "mine", CONTENT)
        assert stranger.get("/files/content/mine").json() == {"error": "nocookie"}
        assert ann.get("/files/content/none").json() == {"error": "file"}


def test_links_lead_to_nginx(told: Front, ann: User) -> None:
    put(ann, "for others", CONTENT)
    url = ann.post("/files/link", json={"name": "for others"}).json()["url"]
    told.forget()
    with httpx.Client(base_url=told.url) as stranger:
        assert stranger.get(url).content == CONTENT and told.sent()


def test_conditions(front: Front, ann: User) -> None:
    """Our tag holds on both ways: a second version of the same size within the same second is another one."""
    put(ann, "c", b"one")
    first = ann.get("/files/content/c").headers["etag"]
    put(ann, "c", b"two")
    tag = ann.get("/files/content/c").headers["etag"]
    assert tag != first
    for headers, status, by_nginx in (
        ({"if-none-match": first}, 200, True),
        ({"if-none-match": tag}, 304, False),
        ({"if-none-match": "*"}, 304, False),
        ({"if-match": tag}, 200, False),
        ({"if-match": first}, 412, False),
        ({"if-match": "*"}, 200, False),
        ({"if-modified-since": "Tue, 24 Nov 2037 21:00:00 GMT"}, 200, True),
        ({"range": "bytes=0-1"}, 206, True),
        ({"range": "bytes=0-1", "if-range": tag}, 206, True),
        ({"range": "bytes=0-1", "if-range": first}, 200, True),
        ({"range": "bytes=0-1", "if-match": tag}, 206, False),
        ({"range": "bytes=3-"}, 416, True),
    ):
        front.forget()
        got = ann.get("/files/content/c", headers=headers)
        assert (got.status_code, front.sent()) == (status, by_nginx), headers
        if status in (200, 206):
            assert got.content == b"two"[: None if status == 200 else 2] and got.headers["etag"] == tag, headers
        assert got.headers.get("etag") in (tag, None)


def test_ranges(front: Front, ann: User) -> None:
    put(ann, "r", CONTENT)
    for header, start, end in (("0-9", 0, 10), ("1000000-", 1_000_000, None), ("-7", len(CONTENT) - 7, None)):
        front.forget()
        got = ann.get("/files/content/r", headers={"range": f"bytes={header}"})
        assert (got.status_code, got.content) == (206, CONTENT[start:end]) and front.sent()
        assert got.headers["content-range"] == f"bytes {start}-{(end or len(CONTENT)) - 1}/{len(CONTENT)}"
        assert got.headers["x-content-type-options"] == "nosniff"
    got = ann.get("/files/content/r", headers={"range": "bytes=0-9,20-29"})
    kind = got.headers["content-type"]
    mail = BytesParser().parsebytes(b"content-type: " + kind.encode() + b"\r\n\r\n" + got.content)
    assert [part.get_payload(decode=True) for part in mail.get_payload()] == [CONTENT[:10], CONTENT[20:30]]


def test_past_nginx_we_send(told: Front, ann: User, direct: User) -> None:
    put(ann, "past", CONTENT)
    told.forget()
    got = direct.get("/files/content/past", headers={"x-forwarded-for": "127.0.0.2"})
    assert got.content == CONTENT and "x-accel-redirect" not in got.headers


def test_a_file_that_grows_is_sent_by_us(front: Front, ann: User) -> None:
    user = ann.get("/auth/csrf").json()["user"]["id"]
    for number in range(2):
        run_in_application(front.server, f"server.app.files.append({user!r}, 'log', b'line {number}\\n')")
    (grown,) = (file for file in ann.get("/files").json()["files"] if file["name"] == "log")
    assert grown["hash"] == ""
    front.forget()
    assert ann.get("/files/content/log").content == b"line 0\nline 1\n" and not front.sent()


def test_who_asks_is_who_asks_nginx(front: Front, ann: User) -> None:
    """What a client says of its address counts for nothing."""
    with User(front, "ann@example.com") as other:  # type: ignore[arg-type]
        other.headers["x-forwarded-for"] = "6.6.6.6"
        other.log_in()
        origins = {each["origin"] for each in other.get("/auth/sessions").json()["sessions"]}
    assert origins == {"127.0.0.1"}


def test_uploads_go_through(front: Front, ann: User, direct: User) -> None:
    """Of more than nginx's one megabyte by default; what is too long it refuses before we would."""
    content = os.urandom(5 << 20)
    put(ann, "long", content)
    assert direct.get("/files/content/long").content == content == ann.get("/files/content/long").content
    assert ann.post("/files", files={"file": ("f", bytes(9 << 20))}).status_code == 413
