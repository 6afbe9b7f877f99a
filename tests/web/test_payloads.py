"""What is sent and what is refused: JSON, forms, uploads, files. Each over HTTP, each with its error."""

import time

import pytest

from backlore.core.temporary import FOLDER
from tests.conftest import Server, User

TEXT = b'{"text":"a"'
DEEP = 100_000

JSON = [
    # raw body, status, error, where
    (b'{"text":"a"}', 200, None, None),
    (b' {"text" : "\\u00e9\\n" } ', 200, None, None),
    (b'{"text":"\xc3\xa9\xf0\x9f\x98\x80"}', 200, None, None),
    (b'{"text":"text"}', 200, None, None),  # a value that looks like a key
    (b'{"text":"a","inner":{"id":1},"many":[{"id":1},{"id":2}]}', 200, None, None),
    (b"", 400, "json", None),
    (b"{", 400, "json", None),
    (b'{"text":"a"} x', 400, "json", None),
    (b'{"text":"a",}', 400, "json", None),
    (b"{'text':'a'}", 400, "json", None),
    (b'\xef\xbb\xbf{"text":"a"}', 400, "json", None),
    (b'{"text":"\xff"}', 400, "json", None),
    (b'{"text":"\\ud800"}', 400, "json", None),  # a lone surrogate is no text
    (b'{"text":"a\x01"}', 400, "json", None),
    (TEXT + b',"ratio":NaN}', 400, "json", None),
    (TEXT + b',"ratio":Infinity}', 400, "json", None),
    (TEXT + b',"ratio":1e400}', 400, "payload", "ratio"),
    (TEXT + b',"count":1e400}', 400, "payload", "count"),
    (TEXT + b',"count":' + b"9" * 5000 + b"}", 400, "payload", "count"),
    (TEXT + b',"count":10}', 400, "payload", "count"),
    (TEXT + b',"count":-1}', 400, "payload", "count"),
    (TEXT + b',"count":1.5}', 400, "payload", "count"),
    (TEXT + b',"count":"1"}', 400, "payload", "count"),
    (TEXT + b',"count":true}', 400, "payload", "count"),
    (TEXT + b',"count":null}', 400, "payload", "count"),
    (TEXT + b',"flag":1}', 400, "payload", "flag"),
    (b"[]", 400, "payload", ""),
    (b'"text"', 400, "payload", ""),
    (b"null", 400, "payload", ""),
    (b"{}", 400, "payload", "text"),
    (b'{"text":""}', 400, "payload", "text"),
    (b'{"text":"12345678901"}', 400, "payload", "text"),
    (b'{"text":{"a":1}}', 400, "payload", "text"),
    (b'{"text":["a"]}', 400, "payload", "text"),
    (TEXT + b',"extra":1}', 400, "payload", "extra"),
    (TEXT + b',"__proto__":{}}', 400, "payload", "__proto__"),
    (TEXT + b',"inner":{"id":1,"admin":true}}', 400, "payload", "inner.admin"),
    (TEXT + b',"inner":{"name":"x"}}', 400, "payload", "inner.id"),
    (TEXT + b',"many":[{"id":1},{"id":"x"}]}', 400, "payload", "many[1].id"),
    (TEXT + b',"many":[{"id":1},{"id":1},{"id":1},{"id":1}]}', 400, "payload", "many"),
    (TEXT + b',"many":{"0":{"id":1}}}', 400, "payload", "many"),
    (TEXT + b',"text":"b"}', 400, "payload", "text"),
    (TEXT + b',"te\\u0078t":"b"}', 400, "payload", "text"),
    (TEXT + b',"inner":{"id":1,"id":2}}', 400, "payload", "id"),
    (TEXT + b',"many":[{"id":1,"id":2}]}', 400, "payload", "id"),
    (TEXT + b',"open":{"a":1,"a":2}}', 400, "payload", "a"),
    (TEXT + b',"open":{"a":{"b":{"c":[1,2]}}}}', 200, None, None),
    (TEXT + b',"open":' + b'{"a":' * 100 + b"1" + b"}" * 101, 400, "payload", ""),
    (TEXT + b',"extra":' + b"[" * 9000, 400, "payload", "extra"),
    (TEXT + b',"open":' + b'{"a":' * 3000, 400, "payload", ""),
    (b"[" * 15000, 400, "payload", ""),
    (TEXT + b',"open":{"a":"' + b"x" * 20_000 + b'"}}', 413, "size", None),
]


@pytest.mark.parametrize(("raw", "status", "error", "where"), JSON, ids=lambda v: str(v)[:50])
def test_json(anyone: User, raw: bytes, status: int, error: str | None, where: str | None) -> None:
    got = anyone.post("/echo", content=raw, headers={"content-type": "application/json"})
    assert got.status_code == status, got.text
    if error:
        assert (got.json()["error"], got.json().get("where")) == (error, where)
    if where is not None:
        assert got.json()["why"].endswith(".") and "`" not in got.json()["why"]


def test_content_types(anyone: User) -> None:
    def status(kind: str) -> int:
        return anyone.post("/echo", content=b'{"text":"a"}', headers={"content-type": kind}).status_code

    assert status("application/json; charset=utf-8") == 200
    assert status("Application/JSON") == 200
    assert status("application/json; charset=latin-1") == 415
    assert status("text/plain") == 415
    assert status("") == 415


def test_sentences(anyone: User) -> None:
    """What people read, word for word."""
    for sent, why in [
        ({"text": 3}, "Should be a string, not a whole number."),
        ({"text": ""}, "Should have at least 1 character."),
        ({"text": "a" * 11}, "Should have at most 10 characters."),
        ({"text": "a", "many": [{"id": 1}] * 4}, "Should have at most 3 items."),
        ({"text": "a", "count": 12}, "Should be at most 9."),
        ({"text": "a", "inner": 3}, "Should be an object or null, not a whole number."),
        ({}, "Is missing."),
        ({"text": "a", "b": 1}, "Is not known here."),
    ]:
        assert anyone.post("/echo", json=sent).json()["why"] == why
    login = {"email": "nobody", "password": "long enough"}
    assert anyone.post("/auth/signup", json=login).json()["why"] == "Should be an e-mail address."


def test_route_without_body(anyone: User) -> None:
    assert anyone.post("/count").status_code == 200
    assert anyone.post("/count", json={}).status_code == 200
    assert anyone.post("/count", json={"a": 1}).json()["where"] == "a"
    assert anyone.post("/count", content=b"x").status_code == 415


def test_two_routes_of_two_types(anyone: User) -> None:
    """The first passes the request on; the second decodes the same body by its own type."""
    assert anyone.post("/twice", json={"text": "abc"}).json() == {"short": "abc"}
    assert anyone.post("/twice", json={"text": "abcd"}).json()["ratio"] == 0.5
    assert anyone.post("/twice", json={"text": "abcd", "count": 100}).json()["where"] == "count"


def test_urlencoded(anyone: User) -> None:
    def send(raw: bytes) -> dict:
        return anyone.post("/form", content=raw, headers={"content-type": "application/x-www-form-urlencoded"}).json()

    assert send(b"title=a+b%C3%A9&tags=x&tags=y") | {"path": None} == {
        "title": "a bé",
        "tags": ["x", "y"],
        "file": None,
        "path": None,
    }
    assert send(b"title=%ff")["error"] == "json"
    assert send(b"title=\xff")["error"] == "json"
    assert send(b"title=a&title=b")["where"] == "title"
    assert send(b"title=a&file=x")["where"] == "file"
    assert send(b"")["where"] == "title"


def test_upload(kinds: Server, anyone: User) -> None:
    data = bytes(range(256)) * 1000
    got = anyone.post("/form", data={"title": "t", "tags": ["a", "b"]}, files={"file": ("é.bin", data, "image/png")})
    assert got.status_code == 200, got.text
    assert got.json()["file"] == ["é.bin", "image/png", len(data), len(data)]
    assert got.json()["tags"] == ["a", "b"]
    assert leftovers(kinds) == []
    assert anyone.post("/form/fails", data={"title": "t"}, files={"file": data}).status_code == 500
    assert leftovers(kinds) == []


def leftovers(server: Server) -> list[str]:
    """Files of uploads that are still there a moment after the reply."""
    until = time.monotonic() + 3
    while (left := [p.name for p in (server.data / FOLDER).iterdir()]) and time.monotonic() < until:
        time.sleep(0.02)
    return left


def test_upload_limits(kinds: Server, anyone: User) -> None:
    def status(**sent: object) -> int:
        return anyone.post("/form", **sent).status_code  # type: ignore[arg-type]

    assert status(data={"title": "t"}, files={"file": b"x" * 1_100_000}) == 413
    assert status(data={"title": "t" * 30_000}, files={"file": b"x"}) == 413
    assert status(files=[("file", b"x")] * 6) == 413
    assert status(files=[("file", b"x")] * 2, data={"title": "t"}) == 400
    assert status(files={"title": b"x"}) == 400
    for raw in (b"--x\r\nbad", b"", b"--x--\r\n", b'--x\r\nContent-Disposition: form-data; name="title"\r\n\r\nabc'):
        got = anyone.post("/form", content=raw, headers={"content-type": "multipart/form-data; boundary=x"})
        assert (got.status_code, got.json()["error"] in ("json", "payload")) == (400, True), (raw, got.text)
    got = anyone.post("/form", content=b"--x--\r\n", headers={"content-type": "multipart/form-data"})
    assert got.json() == {"error": "json"}
    assert leftovers(kinds) == []


def test_file_input_with_nothing_chosen(anyone: User) -> None:
    """What browsers send for it is no Upload; a file that is empty, or has no name, is one."""
    part = b'--b\r\ncontent-disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'

    def send(*parts: tuple[bytes, bytes, bytes], path: str = "/form") -> dict:
        body = b"".join(part % each for each in parts) + b"--b--\r\n"
        return anyone.post(path, content=body, headers={"content-type": "multipart/form-data; boundary=b"}).json()

    title, nothing = (b"title", b"", b"t"), b'; filename=""\r\ncontent-type: application/octet-stream'
    assert send(title, (b"file", nothing, b""))["file"] is None
    assert send(title, (b"file", b'; filename="a"', b""))["file"] == ["a", "application/octet-stream", 0, 0]
    assert send(title, (b"file", b'; filename=""', b"abc"))["file"] == ["", "application/octet-stream", 3, 3]
    assert send((b"pictures", nothing, b""), path="/pictures") == {"pictures": 0}
    assert send((b"pictures", nothing, b""), (b"pictures", b'; filename="a"', b""), path="/pictures") == {"pictures": 1}
    assert send((b"file", nothing, b""), path="/picture") == {"error": "payload", "where": "file", "why": "Is missing."}


def test_no_file_from_json(anyone: User) -> None:
    """A client can't name a file of ours as its upload."""
    named = {"path": "/etc/passwd", "name": "a", "type": "b", "size": 1}
    for file in (named, "/etc/passwd", 3):
        got = anyone.post("/form", json={"title": "t", "file": file})
        assert (got.status_code, got.json()["where"]) == (400, "file")


RANGES = [
    # Range, status, content, Content-Range; the file is "hello, range"
    ("bytes=0-4", 206, b"hello", "bytes 0-4/12"),
    ("bytes=7-", 206, b"range", "bytes 7-11/12"),
    ("bytes=-5", 206, b"range", "bytes 7-11/12"),
    ("bytes=-500", 206, b"hello, range", "bytes 0-11/12"),
    ("bytes=7-500", 206, b"range", "bytes 7-11/12"),
    ("bytes=12-", 416, None, "bytes */12"),
    ("bytes=-0", 416, None, "bytes */12"),
    ("bytes=5-2", 200, b"hello, range", None),
    ("bytes=0-1,3-4", 206, None, None),
    ("lines=0-1", 200, b"hello, range", None),
    ("bytes=a-b", 200, b"hello, range", None),
    ("bytes=-", 200, b"hello, range", None),
]


@pytest.mark.parametrize(("header", "status", "content", "span"), RANGES)
def test_range(anyone: User, header: str, status: int, content: bytes | None, span: str | None) -> None:
    got = anyone.get("/files/hello.txt", headers={"range": header})
    assert (got.status_code, got.headers.get("content-range")) == (status, span)
    if content is not None:
        assert got.content == content and int(got.headers["content-length"]) == len(content)


def test_file(kinds: Server, anyone: User) -> None:
    first = anyone.get("/files/hello.txt")
    etag = first.headers["etag"]
    assert (first.content, first.headers["content-type"]) == (b"hello, range", "text/plain; charset=utf-8")
    assert anyone.get("/files/hello.txt", headers={"if-none-match": etag}).status_code == 304
    assert anyone.get("/files/hello.txt", headers={"range": "bytes=0-1", "if-range": etag}).status_code == 206
    assert anyone.get("/files/hello.txt", headers={"range": "bytes=0-1", "if-range": '"x"'}).status_code == 200
    head = anyone.head("/files/hello.txt")
    assert (head.content, head.headers["content-length"], head.headers["etag"]) == (b"", "12", etag)
    (kinds.folder / "files" / "hello2.txt").write_bytes(b"other")
    assert anyone.get("/files/hello2.txt").headers["etag"] != etag


def test_large_file(kinds: Server, anyone: User) -> None:
    data = bytes(range(256)) * 8000
    (kinds.folder / "files" / "large.bin").write_bytes(data)
    assert anyone.get("/files/large.bin").content == data
    assert anyone.get("/files/large.bin", headers={"range": "bytes=100000-1900000"}).content == data[100_000:1_900_001]


def test_empty_file(kinds: Server, anyone: User) -> None:
    (kinds.folder / "files" / "empty").write_bytes(b"")
    got = anyone.get("/files/empty")
    assert (got.status_code, got.content) == (200, b"")
    assert anyone.get("/files/empty", headers={"range": "bytes=0-"}).status_code == 416


def test_files_that_are_not_served(kinds: Server, anyone: User) -> None:
    (kinds.folder / "files" / "link").unlink(missing_ok=True)
    (kinds.folder / "files" / "link").symlink_to(kinds.folder / "secret.py")
    for path in (
        ".hidden", "folder", "folder/", "", "link", "../secret.py", "%2e%2e/secret.py", "..%2fsecret.py",
        "folder/../../secret.py", "folder/%2e%2e/%2e%2e/secret.py", "%2e%2e%5csecret.py", "..\\secret.py",
        "hello.txt%00", "hello.txt/", "//etc/passwd", "%2fetc/passwd", "nothing", "x" * 3000, "%ff",
    ):  # fmt: skip
        got = anyone.get(f"{kinds.url}/files/{path}")
        assert (got.status_code, got.json()) == (404, {"error": "route"}), path
