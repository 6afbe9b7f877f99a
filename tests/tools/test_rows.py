"""Rows over HTTP: what fits passes, what differs fails and is told well; Shoebox's own rows pass."""

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from backlore.tools.testing import SuiteError, check, get, mail, parallel, post, request, row, run, visitor
from backlore.tools.testing.client import Outgoing, Server
from backlore.tools.testing.compose import to_curl
from backlore.tools.testing.cookies import Cookies
from backlore.tools.testing.kept import fill, fill_path
from backlore.tools.testing.match import find
from tests.conftest import SHOEBOX, free_port

JSON = b"content-type: application/json\r\n"


def answer(body: bytes, head: bytes = JSON, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b" % (status, head, len(body), body)


REPLIES: dict[str, bytes] = {
    "/json": answer(b'{"id":7,"tags":["a","b"],"text":"x","none":null,"is":true}'),
    "/away": answer(b"", b"location: /json\r\n", b"302 Found"),
    "/none": b"HTTP/1.1 204 No Content\r\n\r\n",
    "/same": b'HTTP/1.1 304 Not Modified\r\netag: "a"\r\n\r\n',
    "/chunks": b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    "/big": answer(b"x" * 3_000_000, b"content-type: text/plain\r\n"),
    "/cut": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\nabc",
    "/badlength": b"HTTP/1.1 200 OK\r\ncontent-length: x\r\nconnection: close\r\n\r\nabc",
    "/nothttp": b"hello\r\n\r\n",
    "/cookies": answer(b"{}", JSON + b"set-cookie: a=1; Path=/\r\nset-cookie: b=2; Path=/deep\r\n"),
}


class Talker(BaseHTTPRequestHandler):
    """Says what REPLIES has; /echo tells what came, /count how often it was asked."""

    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        seen: list[Any] = self.server.seen  # type: ignore[attr-defined]
        seen.append((self.command, self.path, dict(self.headers), body, self.client_address[0]))
        told = REPLIES.get(self.path) or answer(b"%d" % len([each for each in seen if each[1] == self.path]))
        self.wfile.write(told.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if self.command == "HEAD" else told)
        self.close_connection = b"connection: close" in told or told.startswith(b"hello")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def talker() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Talker) as server:
        server.daemon_threads = True
        server.seen = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def url_of(talker: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{talker.server_port}"


FIT = [
    # expected, got, the place of the first difference or "" when it fits
    ({"id": int}, {"id": 7}, ""),
    ({"id": int}, {"id": "7"}, "body.id"),
    ({"id": int}, {"id": True}, "body.id"),
    ({"id": 7}, {"id": 7, "more": 1}, "body.more"),
    ({"id": 7, ...: ...}, {"id": 7, "more": 1}, ""),
    ({"id": 7, ...: ...}, {}, "body.id"),
    ([1, ...], [1, 2, 3], ""),
    ([1, 2], [1], "body[1]"),
    ([1], [1, 2], "body[1]"),
    ([..., 2], [1, 2], ""),
    (int | None, None, ""),
    (1, True, "body"),
    (1, 1.0, ""),
    (float, 3, ""),
    (lambda got: got > 3, 4, ""),
    (lambda got: got > 3, 3, "body"),
    (lambda got: None, 3, "body"),
    (lambda got: got["x"], 3, "body"),
    (..., {"any": 1}, ""),
    ("", "", ""),
]


@pytest.mark.parametrize(("expected", "got", "place"), FIT)
def test_matching(expected: Any, got: Any, place: str) -> None:
    found = find(expected, got, "body")
    assert [each.partition(":")[0] for each in found[:1]] == ([place] if place else [])


def test_keeping() -> None:
    kept = {"id": 7, "name": "a b/ü", "link": "/x?y=1"}
    assert fill({"a": ["{id}", "{{id}}", "x{id}"]}, kept) == {"a": [7, "{id}", "x{id}"]}
    assert fill_path("/notes/{id}/{name}", kept) == "/notes/7/a%20b/%C3%BC"
    assert fill_path("{link}", kept) == "/x?y=1"


PASS = [
    row("exact", get("/json"), 200, {"id": 7, "tags": ["a", "b"], "text": "x", "none": None, "is": True}),
    row("partial", get("/json"), 200, {"id": int, ...: ...}, {"content-type": "application/json", "x-none": None}),
    row("not followed", get("/away"), 302, "", {"location": "/json"}),
    row("none", get("/none"), 204, ""),
    row("same", get("/same"), 304, "", {"etag": '"a"'}),
    row("head", request("HEAD", "/json"), 200, ""),
    row("after head", get("/json"), 200, {"id": 7, ...: ...}),
    row("chunks", get("/chunks"), 200, "abcde"),
    row("big", get("/big"), 200, lambda text: len(text) == 3_000_000),
]
FAIL = [
    (row("status", get("/json"), 404), "status: expected 404, got 200"),
    (row("value", get("/json"), 200, {"id": 8, ...: ...}), "body.id: expected 8, got 7"),
    (row("deep", get("/json"), 200, {"tags": ["a", "c"], ...: ...}), "body.tags[1]: expected 'c', got 'b'"),
    (row("unknown", get("/json"), 200, {}), "body.id: unknown, got 7"),
    (row("header", get("/json"), 200, headers={"content-type": None}), "headers.content-type: expected None"),
    (row("no header", get("/json"), 200, headers={"etag": str}), "headers.etag: expected str, got None"),
    (row("keep", get("/json"), 200, keep={"a": "tags.9"}), "keep a: the body has no tags.9"),
    (row("keep by function", get("/json"), 200, keep={"a": lambda reply: 1 / 0}), "ZeroDivisionError"),
    (row("cut", get("/cut"), 200), "no reply: it was cut"),
    (row("no HTTP", get("/nothttp"), 200), "no reply: BadStatusLine"),
    (row("bad length", get("/badlength"), 200, b"other"), "body: expected b'other'"),
    (row("until", get("/json"), 404, until=0.1), "tried for 0.1 s"),
    (row("a file that is not there", post("/json", files={"f": Path("/nowhere/x")}), 200), "a file can't be read"),
]


def test_what_fits_passes(talker: ThreadingHTTPServer) -> None:
    report = run(PASS, url_of(talker))
    assert report.ok and report.count == len(PASS), report
    assert re.fullmatch(r"9 rows, \d+\.\d s", str(report))


@pytest.mark.parametrize(("wrong", "told"), FAIL, ids=lambda value: getattr(value, "name", ""))
def test_what_differs_fails(talker: ThreadingHTTPServer, wrong: Any, told: str) -> None:
    report = run(["chapter", wrong], url_of(talker))
    assert told in str(report) and f"chapter / {wrong.name}" in str(report) and "test_rows.py:" in str(report), report
    with pytest.raises(AssertionError, match=re.escape(told)):
        check([wrong], url_of(talker))


def test_a_mutated_expectation_fails() -> None:
    expected = {"id": 7, "tags": ["a", {"b": None}], "is": True, "text": "x"}
    mutants: list[Any] = [
        expected | {"id": 8}, expected | {"tags": ["a"]}, expected | {"tags": ["a", {"b": 0}]}, expected | {"is": 1},
        expected | {"text": None}, expected | {"more": 1}, {"id": 7}, [expected], None, ...,
    ]  # fmt: skip
    assert find(expected, expected, "body") == []
    assert [bool(find(mutant, expected, "body")) for mutant in mutants] == [True] * 9 + [False]


def test_the_first_failure_ends_the_run_and_all_goes_on(talker: ThreadingHTTPServer) -> None:
    suite = [
        row("loses", get("/json"), 404, keep={"note": "id"}),
        row("needs", get("/json?{note}"), 200, keep={"more": "id"}),
        row("needs that", get("/json?{more}"), 200),
        row("needs none", get("/json"), 200),
    ]
    first, every = run(suite, url_of(talker)), run(suite, url_of(talker), all=True)
    assert (first.count, len(first.failures), first.skipped) == (1, 1, [])
    assert (every.count, len(every.failures)) == (2, 1)
    assert [each.why for each in every.skipped] == ["note was not kept by 'loses'", "more was not kept by 'needs'"]


def test_only_takes_what_is_needed(talker: ThreadingHTTPServer) -> None:
    sent: list[str] = []
    suite = [
        ["first", row("keep", get("/json"), 200, keep={"id": "id"}), row("other", get("/json"), 404)],
        ["second", row("use", get("/x{id}"), 200, 1)],
    ]
    assert run(suite, url_of(talker), only="second", on_row=sent.append).ok
    assert sent == ["first / keep", "second / use"]
    with pytest.raises(SuiteError, match="no row's path"):
        run(suite, url_of(talker), only="third")


def test_until_and_parallel(talker: ThreadingHTTPServer) -> None:
    waiting = [row("in the end", get("/count"), 200, 5, until=10)]
    chapters = [[f"c{n}", row("one", get("/json"), 200, keep={"own": "id"})] for n in range(4)]
    assert run([waiting, parallel(*chapters)], url_of(talker)).ok
    with pytest.raises(SuiteError, match="keeps own"):
        run([parallel(*chapters), row("after", get("/{own}"), 200)], url_of(talker))


def test_users_have_their_own_cookies_and_addresses(talker: ThreadingHTTPServer) -> None:
    suite = [
        visitor("ann"), visitor("bob"),
        row("set", get("/cookies", user="ann"), 200),
        row("path", get("/deep/x", user="ann"), 200),
        row("root", get("/other", user="ann"), 200),
        row("another", get("/bob", user="bob"), 200),
    ]  # fmt: skip
    assert run(suite, url_of(talker)).ok
    seen = {path: (headers.get("cookie"), address) for _, path, headers, _, address in talker.seen}  # type: ignore[attr-defined]
    assert [seen[path][0] for path in ("/deep/x", "/other", "/bob")] == ["b=2; a=1", "a=1", None]
    assert sys.platform == "darwin" or seen["/bob"][1] != seen["/other"][1]


COOKIES = [
    # Set-Cookie, trusted, what is sent to /a/b
    ("a=1", True, "a=1"),
    ("a=1; Path=/c", True, ""),
    ("a=1; Path=/a/b", True, "a=1"),
    ("a=1; Max-Age=0", True, ""),
    ("a=1; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT", True, "a=1"),
    ("a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT", True, ""),
    ("a=1; Domain=evil.example", True, ""),
    ("a=1; Secure", False, ""),
    ("__Host-a=1; Secure; Path=/", True, "__Host-a=1"),
    ("__Host-a=1; Path=/", True, ""),
    ("__Host-a=1; Secure; Path=/a", True, ""),
    ("__Secure-a=1", True, ""),
]


@pytest.mark.parametrize(("line", "trusted", "sent"), COOKIES)
def test_cookies(line: str, trusted: bool, sent: str) -> None:
    jar = Cookies("localhost", trusted)
    jar.take(line, "/a/x")
    assert jar.header("/a/b") == sent


CURLS = [
    post("/json?a=[1]", {"text": 'it\'s "ü" $HOME `x` \\n\n'}, headers={"x-a": "b'c", "x-empty": ""}),
    post("/json", raw=b"\x00\xff\r\n%d'\\"),
    post("/json"),
    post("/json", raw=b"@file"),
    get("/a/../json"),
]


@pytest.mark.parametrize("sent", CURLS, ids=range(len(CURLS)))
def test_curl_repeats_the_request(talker: ThreadingHTTPServer, sent: Any) -> None:
    told = str(run([row("fails", sent, 599)], url_of(talker)))
    command = told[told.index("\n\n") + 2 : told.index("\n\n200\n")]
    subprocess.run(["sh", "-c", command], check=True, capture_output=True, timeout=10)
    (ours, theirs) = talker.seen  # type: ignore[attr-defined]
    assert ours[:2] == theirs[:2] and ours[3] == theirs[3]
    own = {name.lower(): value for name, value in theirs[2].items()} | {"accept": None, "user-agent": None}
    assert {name.lower(): value for name, value in ours[2].items()}.items() <= own.items()


def test_sessions_of_a_server_elsewhere_are_never_told() -> None:
    sent = Outgoing("GET", "/", {"cookie": "a=secret", "authorization": "secret", "x-a": "b"}, None)
    told = to_curl(sent, Server("https://shoebox.example"))
    assert "secret" not in told and "x-a: b" in told and "secret" in to_curl(sent, Server("http://127.0.0.1:1"))


def test_a_server_that_is_gone() -> None:
    report = run([row("gone", get("/"), 200)], f"http://127.0.0.1:{free_port()}")
    assert "no reply: ConnectionRefusedError" in str(report)


WRONG: list[tuple[Callable[[], Any], str]] = [
    (list, "no rows"),
    (lambda: [3], "is no row"),
    (lambda: [row("a", get("x"), 200)], "path should begin"),
    (lambda: [row("a", get("/"), 99)], "status should be"),
    (lambda: [row("a", get("/{b}"), 200)], "keeps b"),
    (lambda: [row("a", get("/", user="ann"), 200)], "nobody called 'ann'"),
    (lambda: [row("a", post("/", {"a": object()}), 200)], "'a'"),
    (lambda: [row("a", post("/", {}, raw=b""), 200)], "one body"),
    (lambda: [row("a", get("/"), 200, {"a": object()})], "can't be compared"),
    (lambda: [row("a", get("/", headers={"a": "b\r\nc"}), 200)], "can't be sent"),
    (lambda: [mail("a@b.example", keep={"a": "("})], "keep 'a'"),
]


@pytest.mark.parametrize(("make", "why"), WRONG, ids=[why for _, why in WRONG])
def test_a_wrong_suite_is_refused(make: Callable[[], Any], why: str) -> None:
    with pytest.raises(SuiteError, match=re.escape(why)):
        run(make(), "http://127.0.0.1:1")


def command(*words: str) -> subprocess.CompletedProcess[str]:
    program = "from backlore.cli.test import test; test()"
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=60, env=environment
    )


def test_shoebox() -> None:
    got = command("--app", str(SHOEBOX), "--all")
    assert (got.returncode, got.stderr) == (0, "") and re.fullmatch(r"\d+ rows, \d+\.\d s\n", got.stdout), got
    assert int(got.stdout.split()[0]) > 150


SUITES = [
    # test.py, status, what is told
    ("from backlore.tools.testing import *\nROWS = [row('a', get('/none'), 200)]", 1, "status: expected 200, got 302"),
    ("from backlore.tools.testing import *\nROWS = [row('a', get('/none'), 99)]", 2, "the row 'a'"),
    ("x = 1 / 0", 2, "Error: test.py:1: ZeroDivisionError: division by zero\n"),
    ("x = [", 2, "Error: test.py:1: SyntaxError: '[' was never closed\n"),
    ("x = 1", 2, "has no ROWS"),
]


@pytest.mark.parametrize(("text", "status", "told"), SUITES, ids=range(len(SUITES)))
def test_the_command(talker: ThreadingHTTPServer, tmp_path: Path, text: str, status: int, told: str) -> None:
    (tmp_path / "test.py").write_text(text.replace("/none", "/away"))
    got = command(url_of(talker), "--app", str(tmp_path))
    assert got.returncode == status and told in got.stdout + got.stderr, got
    with contextlib.suppress(FileNotFoundError):
        (tmp_path / "test.py").unlink()
    assert command("--app", str(tmp_path)).returncode == 2
