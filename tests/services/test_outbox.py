"""The outbox's page: mails that a server has sent, and files that nobody should have to trust."""

import re
import socket
from collections.abc import Iterator
from email.message import EmailMessage
from html import unescape
from pathlib import Path

import httpx
import pytest

from backlore.web.static import POLICY
from tests.conftest import MANY_USERS, PASSWORD, Server, User, developer, mail_to, serving

APPLICATION = """
from backlore import Backend
from config import CONFIG

app = Backend(CONFIG)
"""
EVIL = '"><script>alert(1)</script>'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("outbox")
    known = {"name": "letters", "proxies": ["127.0.0.1"], "verify_email": True, "whitelist": None} | MANY_USERS
    (folder / "source").mkdir()
    (folder / "source" / "config.py").write_text(f"CONFIG = {known}\n")
    (folder / "source" / "server.py").write_text(APPLICATION)
    with serving(folder / "source", folder, workers=1) as made:
        yield made


@pytest.fixture
def outbox(server: Server) -> Iterator[Path]:
    """The folder, empty, and emptied again."""
    folder = server.data / "outbox"
    folder.mkdir(exist_ok=True)
    yield folder
    for file in folder.iterdir():
        file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
    folder.rmdir()


def get(server: Server, path: str, **headers: str) -> httpx.Response:
    with developer(server) as client:
        return client.get(path, headers=headers)


def put(folder: Path, number: int = 0, text: str = "Hello.\n", **headers: str) -> str:
    """Leave a mail; its name."""
    message = EmailMessage()
    for name, value in ({"From": "a@example.com", "To": "ann@example.com", "Subject": "Hello"} | headers).items():
        message[name] = value
    message.set_content(text)
    name = f"20260101T000000.{number:09}Z-abc.eml"
    (folder / name).write_bytes(message.as_bytes())
    return name


def listed(server: Server) -> list[str]:
    """The names of the list, in order."""
    return re.findall(r'<a href="/outbox/([^"]+)"', get(server, "/outbox").text)


def test_nothing_there(server: Server) -> None:
    answer = get(server, "/outbox")
    assert answer.status_code == 200 and "No mail yet" in answer.text
    assert get(server, "/outbox/any.eml").status_code == 404


def test_a_mail_of_signup(server: Server, outbox: Path) -> None:
    with User(server, "ann@example.com") as ann:
        assert ann.post("/auth/signup", json={"email": ann.email, "password": PASSWORD}).status_code == 200
        link = next(word for word in mail_to(server, ann.email).split() if "#verify=" in word)
        [name] = listed(server)
        row = get(server, "/outbox").text
        assert "ann@example.com" in row and "Confirm your address for Letters" in row and "<time datetime=" in row
        answer = get(server, f"/outbox/{name}")
        [clickable] = set(re.findall(r'<a href="(http[^"]*#verify=[^"]*)"', answer.text))
        assert unescape(clickable) == link
        assert "<dt>Message-ID</dt>" in answer.text and "<dd>ann@example.com</dd>" in answer.text
        token = link.partition("#verify=")[2]
        assert ann.post("/auth/verifyEmail", json={"token": token, "password": PASSWORD}).status_code == 200


def test_what_a_browser_is_told(server: Server, outbox: Path) -> None:
    name = put(outbox)
    for path, kind in (("/outbox", "text/html"), (f"/outbox/{name}", "text/html"), ("/outbox/style.css", "text/css")):
        answer = get(server, path)
        assert answer.status_code == 200 and answer.headers["content-type"] == f"{kind}; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store" and "etag" not in answer.headers
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["x-frame-options"] == "DENY"
        if kind == "text/html":
            assert answer.headers["content-security-policy"] == POLICY[1].decode()
            assert '<link rel="stylesheet" href="/outbox/style.css">' in answer.text
            assert "<script" not in answer.text and "<style" not in answer.text and " style=" not in answer.text
        with developer(server) as client:
            head = client.head(path)
        assert head.status_code == 200 and not head.content


def test_newest_hundred_first(server: Server, outbox: Path) -> None:
    names = [put(outbox, number) for number in range(103)]
    assert listed(server) == names[:2:-1]
    assert get(server, f"/outbox/{names[0]}").status_code == 200


def test_a_browser_of_a_stranger_is_text(server: Server, outbox: Path) -> None:
    with User(server, "bob@example.com") as bob:
        bob.post("/auth/signup", json={"email": bob.email, "password": PASSWORD})
        token = re.findall(r"#verify=(\w+)", mail_to(server, bob.email))[0]
        bob.post("/auth/verifyEmail", json={"token": token, "password": PASSWORD})
        bob.log_in()
    with User(server, bob.email) as stranger:
        stranger.headers["user-agent"] = EVIL
        stranger.log_in()
    assert EVIL in mail_to(server, bob.email, 2)
    shown = get(server, f"/outbox/{listed(server)[0]}").text
    assert EVIL not in shown and EVIL in unescape(shown)


MARKUP = [
    ("subject", {"Subject": EVIL}),
    ("to", {"To": '"<b>Ann</b>" <ann@example.com>'}),
    ("header", {"X-Note": "<img src=x onerror=alert(1)>"}),
    ("text", {"text": "<script>alert(1)</script>\n</pre><h1>\n"}),
    ("url", {"text": "See http://x.example/'onclick=alert(1)&\"><b> and javascript:alert(1).\n"}),
    ("format", {"Subject": "{0} {text} {{", "text": "{headers.__class__} %s\n"}),
    ("foreign", {"Subject": "Grüße 👋", "text": "Grüße\n"}),
]


@pytest.mark.parametrize(("what", "given"), MARKUP, ids=[row[0] for row in MARKUP])
def test_nothing_of_a_mail_is_markup(server: Server, outbox: Path, what: str, given: dict[str, str]) -> None:
    name = put(outbox, **given)
    for path in ("/outbox", f"/outbox/{name}"):
        answer = get(server, path)
        assert answer.status_code == 200
        tags = {tag.lower() for tag in re.findall(r"<[a-zA-Z]+", answer.text)}
        assert not tags & {"<script", "<img", "<b"} and answer.text.count("<h1") == 1
        assert set(re.findall(r'href="(\w+):', answer.text)) <= {"http"}
    for value in given.values():
        assert all(line in unescape(re.sub("</?a[^>]*>", "", answer.text)) for line in value.splitlines())


def test_encoded_line_breaks_make_no_header(server: Server, outbox: Path) -> None:
    lines = b"Subject: =?utf-8?q?Hi=0D=0AX-Evil:_1=3Cscript=3E?=\r\nTo: ann@example.com\r\n\r\nHello\r\n"
    (outbox / "a.eml").write_bytes(lines)
    answer = get(server, "/outbox/a.eml")
    assert answer.status_code == 200 and "x-evil" not in answer.headers
    assert "<dt>X-Evil" not in answer.text and "<script>" not in answer.text


URLS = [
    ("https://a.example/x?a=1&b=2#verify=T", "https://a.example/x?a=1&b=2#verify=T"),
    ("Look at http://a.example/x.", "http://a.example/x"),
    ("(http://a.example/x)", "http://a.example/x"),
    ("http://127.0.0.1:8000/#verify=aB3", "http://127.0.0.1:8000/#verify=aB3"),
]


@pytest.mark.parametrize(("text", "url"), URLS)
def test_links_are_clickable(server: Server, outbox: Path, text: str, url: str) -> None:
    shown = get(server, f"/outbox/{put(outbox, text=text)}").text
    assert [unescape(each) for each in re.findall(r'<a href="(http[^"]*)"', shown)] == [url]


BROKEN = [
    ("empty", b""),
    ("binary", bytes(range(256)) * 40),
    ("no mail", b"<script>alert(1)</script>\n"),
    ("no recipient", b"Subject: x\n\ny\n"),
    ("unknown charset", b"To: a@example.com\nContent-Type: text/plain; charset=none\n\ny\n"),
    ("cut", b"To: a@example.com\nContent-Type: multipart/alternative; boundary=b\n\n--b\n\nhalf"),
    ("header that the parser stumbles over", b"To: a@example.com\nMessage-ID: <\nDate: \xff\n\ny\n"),
    ("bad base64", b"To: a@example.com\nContent-Transfer-Encoding: base64\n\n\xff!!\n"),
]


@pytest.mark.parametrize(("what", "content"), BROKEN, ids=[row[0] for row in BROKEN])
def test_broken_files_are_shown(server: Server, outbox: Path, what: str, content: bytes) -> None:
    (outbox / "z.eml").write_bytes(content)
    whole = put(outbox)
    assert listed(server) == ["z.eml", whole]
    answer = get(server, "/outbox/z.eml")
    assert answer.status_code == 200 and "<script" not in answer.text
    if what not in ("header that the parser stumbles over", "bad base64"):  # what they have can be shown as a mail
        assert "no whole mail" in answer.text and "no whole mail" in get(server, "/outbox").text


def test_only_an_html_part(server: Server, outbox: Path) -> None:
    (outbox / "a.eml").write_bytes(b"To: a@example.com\nContent-Type: text/html\n\n<b>x</b>\n")
    assert "(no plain text)" in get(server, "/outbox/a.eml").text


NAMES = [
    "..",
    "../secret.py",
    "..%2f..%2fapp%2fsecret.py",
    "..%2f..%2fother.eml",
    "%2e%2e%2f%2e%2e%2fother.eml",
    "..%5c..%5cother.eml",
    ".draft.eml",
    "note.txt",
    "link.eml",
    "folder.eml",
    "a.eml%00",
    "a.eml%2f",
    "a.eml%0a",
    "A.eml",
    "*.eml",
    "%ff.eml",
    "%ed%a0%80.eml",
    "a" * 2000 + ".eml",
    "a.eml/",
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:30])
def test_only_names_of_the_list(server: Server, outbox: Path, name: str) -> None:
    secret = b"To: a@example.com\n\nthe secret\n"
    outside = server.data.parent / "other.eml"
    for file in (outside, outbox / ".draft.eml", outbox / "note.txt", outbox / "a.eml"):
        file.write_bytes(secret)
    (outbox / "link.eml").symlink_to(outside)
    (outbox / "folder.eml").mkdir()
    assert listed(server) == ["a.eml"] and "the secret" in get(server, "/outbox/a.eml").text
    # by hand: a client would tidy the path up
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        cookie = f"letters-dev={server.key()}"
        head = f"Host: localhost\r\nCookie: {cookie}\r\nConnection: close"
        line.sendall(f"GET /outbox/{name} HTTP/1.1\r\n{head}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404 ") and b'{"error":"route"}' in answer


def test_names_that_no_page_can_write(server: Server, outbox: Path) -> None:
    for name in (b"\xff.eml", b"a\nb.eml", b"q'\"<&?#%.eml"):
        Path(outbox, name.decode("utf-8", "surrogateescape")).write_bytes(b"To: a@example.com\n\nHello\n")
    [link] = listed(server)
    assert get(server, f"/outbox/{link}").status_code == 200


FOREIGN = [
    ("a proxy tells of another", {"x-forwarded-for": "203.0.113.5"}),
    ("who claims to be local", {"x-forwarded-for": "127.0.0.1, 203.0.113.5"}),
    ("a local hop behind a foreign one", {"x-forwarded-for": "203.0.113.5, 127.0.0.1"}),
    ("no address", {"x-forwarded-for": "unknown"}),
    ("the other header of proxies", {"forwarded": "for=203.0.113.5"}),
    ("a name turned to loopback", {"host": "evil.example:8000"}),
    ("a name that looks local", {"host": "localhost.evil.example"}),
    ("an address of the network", {"host": "192.168.1.2:8000"}),
]


@pytest.mark.parametrize(("what", "headers"), FOREIGN, ids=[row[0] for row in FOREIGN])
def test_strangers_see_nothing(server: Server, outbox: Path, what: str, headers: dict[str, str]) -> None:
    for path in ("/outbox", f"/outbox/{put(outbox)}", "/outbox/style.css"):
        answer = get(server, path, **headers)
        assert answer.status_code == 404 and answer.json() == {"error": "route"}


LOCAL = [
    {"host": "localhost:8000"},
    {"host": "LOCALHOST"},
    {"host": "letters.localhost:8000"},
    {"host": "[::1]:8000"},
    {"x-forwarded-for": "127.0.0.1"},
    {"x-forwarded-for": "::1, ::ffff:127.0.0.1"},
]


@pytest.mark.parametrize("headers", LOCAL, ids=str)
def test_who_is_local(server: Server, headers: dict[str, str]) -> None:
    assert get(server, "/outbox", **headers).status_code == 200


def test_a_tunnel_that_nobody_configured(tmp_path: Path) -> None:
    """Its connection is local; that it tells for whom it comes is enough, although we don't believe in the rest."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "config.py").write_text('CONFIG = {"name": "letters"}\n')
    (tmp_path / "source" / "server.py").write_text(APPLICATION)
    with serving(tmp_path / "source", tmp_path, workers=1) as made:
        assert get(made, "/outbox").status_code == 200
        assert get(made, "/outbox", **{"x-forwarded-for": "203.0.113.5"}).status_code == 404
