"""Bytes on a socket that no good client sends: an error of HTTP or of the contract, never a 500, never a hang."""

import json
import re
import resource
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.conftest import SHOEBOX, Server, User

HOST = b"Host: x\r\n"
JSON = HOST + b"Content-Type: application/json\r\n"
CHUNKED = JSON + b"Transfer-Encoding: chunked\r\n"


def send(server: Server, raw: bytes, seconds: float = 5.0) -> bytes:
    """All that comes back until the server closes, or has replied and keeps the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        received = b""
        try:
            connection.sendall(raw)
            while chunk := connection.recv(65536):
                received += chunk
                if complete(received):
                    break
        except ConnectionError:
            pass
        return received


def complete(received: bytes) -> bool:
    head, found, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return bool(found) and (not length or len(body) >= int(length[1]))


def status(received: bytes) -> int:
    return int(received.split(b" ", 2)[1]) if received.startswith(b"HTTP/1.") else 0


CHUNK = b"3e8\r\n" + b" " * 1000 + b"\r\n"
MULTIPART = HOST + b"Content-Type: multipart/form-data; boundary=x\r\n"
UPGRADE = HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
GET = b"GET /health HTTP/1.1\r\n"
POST = b"POST /echo HTTP/1.1\r\n"
RAW = {
    # name: (bytes, statuses allowed; 0: closed without a reply)
    "good": (GET + HOST + b"\r\n", {200}),
    "http 1.0": (b"GET /health HTTP/1.0\r\n\r\n", {200}),
    "garbage": (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", {400}),
    "no version": (b"GET /health\r\n\r\n", {400}),
    "unknown version": (b"GET /health HTTP/7.3\r\n\r\n", {505}),
    "unknown method": (b"BREW /health HTTP/1.1\r\n" + HOST + b"\r\n", {405}),
    "connect": (b"CONNECT a:443 HTTP/1.1\r\n" + HOST + b"\r\n", {501}),
    "options of everything": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", {404}),
    "absolute target": (b"GET http://evil.example/health HTTP/1.1\r\n" + HOST + b"\r\n", {200}),
    "bytes in path": (b"GET /\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "NUL in path": (b"GET /\x00 HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "escaped NUL in path": (b"GET /files/%00 HTTP/1.1\r\n" + HOST + b"\r\n", {404}),
    "bad UTF-8 in path": (b"GET /word/%ff%fe HTTP/1.1\r\n" + HOST + b"\r\n", {404}),
    "overlong UTF-8 in path": (b"GET /word/%c0%ae HTTP/1.1\r\n" + HOST + b"\r\n", {404}),
    "surrogate in path": (b"GET /word/%ed%a0%80 HTTP/1.1\r\n" + HOST + b"\r\n", {404}),
    "half an escape in path": (b"GET /word/%f HTTP/1.1\r\n" + HOST + b"\r\n", {200, 404}),
    "no hex in escape": (b"GET /word/%zz HTTP/1.1\r\n" + HOST + b"\r\n", {200, 404}),
    "bad UTF-8 in query": (b"GET /query?tags=%ff HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "no hex in query": (b"GET /query?size=%zz HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "bytes in query": (b"GET /query?tags=\xff HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "long query": (b"GET /query?" + b"a" * 3000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", {414}),
    "long path": (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", {414}),
    "deep path": (b"GET " + b"/a" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", {404}),
    "bytes in cookie": (b"GET /who HTTP/1.1\r\n" + HOST + b"Cookie: kinds=\xff\xfe.\xfe\r\n\r\n", {403}),
    "escapes in cookie": (b"GET /who HTTP/1.1\r\n" + HOST + b"Cookie: kinds=%ff%00\r\n\r\n", {403}),
    "NUL in cookie": (b"GET /who HTTP/1.1\r\n" + HOST + b"Cookie: kinds=\x00\r\n\r\n", {400}),
    "empty cookie": (b"GET /who HTTP/1.1\r\n" + HOST + b"Cookie: \r\n\r\n", {403}),
    "only semicolons": (b"GET /who HTTP/1.1\r\n" + HOST + b"Cookie: ;;;=;kinds;=kinds\r\n\r\n", {403}),
    "CR in header": (GET + HOST + b"X: a\rb\r\n\r\n", {400}),
    "bare LF": (b"GET /health HTTP/1.1\nHost: x\n\n", {200, 400}),
    "space before colon": (GET + b"Host : x\r\n\r\n", {400}),
    "folded header": (GET + HOST + b"X: a\r\n b\r\n\r\n", {400}),
    "header without name": (GET + HOST + b": a\r\n\r\n", {400}),
    "1 MB header": (GET + HOST + b"X: " + b"a" * 1_000_000 + b"\r\n\r\n", {431}),
    "1000 headers": (GET + HOST + b"".join(b"X%d: a\r\n" % n for n in range(1000)) + b"\r\n", {431}),
    "two lengths": (POST + JSON + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", {400}),
    "negative length": (POST + JSON + b"Content-Length: -5\r\n\r\nhello", {400}),
    "length no number": (POST + JSON + b"Content-Length: 5x\r\n\r\nhello", {400}),
    "huge length": (POST + JSON + b"Content-Length: 99999999999999999999\r\n\r\nhello", {400}),
    "declared too long": (POST + JSON + b"Content-Length: 20001\r\n\r\n{", {413}),
    "chunks": (POST + CHUNKED + b'\r\nc\r\n{"text":"a"}\r\n0\r\n\r\n', {200}),
    "chunks too long": (POST + CHUNKED + b"\r\n" + CHUNK * 21, {413}),
    "chunk size no hex": (POST + CHUNKED + b"\r\nzz\r\n{}\r\n0\r\n\r\n", {400}),
    "chunk size huge": (POST + CHUNKED + b"\r\nfffffffffffffffff\r\n{}\r\n", {400}),
    "chunk longer than said": (POST + CHUNKED + b"\r\n1\r\n{}\r\n0\r\n\r\n", {400}),
    "unknown coding": (POST + JSON + b"Transfer-Encoding: gzip\r\n\r\n{}", {400}),
    "body never comes": (POST + JSON + b"Content-Length: 100\r\n\r\n{", {408}),
    "chunks never end": (POST + CHUNKED + b"\r\n1\r\n{\r\n", {408}),
    "upload never ends": (b"POST /form HTTP/1.1\r\n" + MULTIPART + b"Content-Length: 999\r\n\r\n--x\r\n", {408}),
    "headers never end": (GET + HOST + b"X: ", {408}),
    "expect continue": (POST + JSON + b'Expect: 100-continue\r\nContent-Length: 12\r\n\r\n{"text":"a"}', {100, 200}),
    "websocket": (b"GET /who HTTP/1.1\r\n" + UPGRADE + b"Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n", {403}),
    "http 2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400}),
}  # fmt: skip


@pytest.mark.parametrize("name", RAW)
def test_raw(kinds: Server, name: str) -> None:
    raw, allowed = RAW[name]
    received = send(kinds, raw)
    assert status(received) in allowed, received[:300]
    if status(received) in (403, 404, 405, 408, 413) and b"HEAD" not in raw:
        assert "error" in json.loads(received.partition(b"\r\n\r\n")[2]), received[:300]


def test_smuggled_request_is_none(kinds: Server) -> None:
    """After a body that we refuse, what follows on the connection is not taken for a request."""
    inner = b"GET /teapot HTTP/1.1\r\n" + HOST + b"\r\n"
    received = send(kinds, POST + JSON + b"Content-Length: 20001\r\n\r\n" + inner)
    assert status(received) == 413 and b"teapot" not in received
    # both lengths: nobody knows which counts, and the connection ends (RFC 9112, §6.1)
    both = b'Content-Length: 5\r\n\r\nc\r\n{"text":"a"}\r\n0\r\n\r\n'
    received = send(kinds, POST + CHUNKED + both + inner)
    assert status(received) == 400 and b"connection: close" in received and b"teapot" not in received


def test_a_body_that_nobody_takes_is_no_part_of_the_next_one(kinds: Server) -> None:
    body = JSON + b'Content-Length: 12\r\n\r\n{"text":"a"}'
    with socket.create_connection(("127.0.0.1", kinds.port), timeout=5) as connection:
        for raw, wanted in ((b"POST /nowhere HTTP/1.1\r\n" + body, b"404"), (POST + body, b"200")) * 2:
            connection.sendall(raw)
            received = b""
            while not complete(received):
                received += connection.recv(65536)
            assert received[9:12] == wanted, received


def test_malformed_for_every_route_of_the_example(shoebox: Server) -> None:
    """Deep, doubled, wrongly typed: the contract's error from every route, by the routes' own description."""
    user = User(shoebox, "wire@example.com").sign_up()
    deep = b'{"a":' * 100_000
    bad = [deep, b"[" * 100_000, b'"x"', b"[]", b"3", b"null", b"1e400", b'{"__proto__":{"admin":true}}', b"{", b"\xff"]
    bad += [b'{"text":{},"tags":"x","email":[],"password":{}}', b'{"text":"a","text":"b"}', b'{"text":1e400}']
    paths = httpx.get(f"{shoebox.url}/openapi.json").json()["paths"]
    tried = 0
    for path, methods in paths.items():
        for raw in bad if "post" in methods else []:
            if path == "/auth/logout":
                continue  # it would end our session; its body is that of every route without one
            if "*/*" in methods["post"].get("requestBody", {}).get("content", {}):
                continue  # it takes bytes of any kind, and says itself what is wrong with them: test_tus.py
            got = user.post(path.replace("{id}", "1"), content=raw, headers={"content-type": "application/json"})
            refused, status = ({"admin"}, 403) if methods["post"]["tags"] == ["admin"] else ({"json", "payload"}, 400)
            if got.status_code == 413 and len(raw) > 64 << 10 and path.startswith(("/auth/", "/admin/users")):
                refused, status = {"size"}, 413  # routes of accounts take no more
            assert got.status_code == status, (path, raw[:50], got.text)
            assert got.json()["error"] in refused, got.text
            tried += 1
    assert tried >= 5 * len(bad)
    assert user.get("/auth/csrf").status_code == 200


def test_ten_thousand_slow_clients(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Headers byte by byte from 10,000 clients, while others are served; then the slow ones are cut."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 10_000
    if hard < wanted + 1000:
        pytest.fail(f"a limit of {hard} open files is too low for this test: raise it (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    from tests.conftest import serving

    slow: list[socket.socket] = []
    stop = threading.Event()

    def trickle() -> None:
        while not stop.is_set():
            for connection in slow:
                try:
                    connection.send(b"a")
                except OSError:
                    continue
            time.sleep(0.5)

    try:
        with serving(SHOEBOX, tmp_path_factory.mktemp("slow")) as server, ThreadPoolExecutor(1) as pool:
            for number in range(wanted):
                connection = socket.socket()
                # 28,000 ports are not enough for repeated runs from one address
                connection.bind((f"127.0.0.{2 + number % 50}", 0))
                connection.connect(("127.0.0.1", server.port))
                connection.setblocking(False)
                connection.send(b"GET / HTTP/1.1\r\nX: ")
                slow.append(connection)
            trickling = pool.submit(trickle)
            served = [httpx.get(f"{server.url}/health", timeout=3).status_code for _ in range(50)]
            assert served == [200] * 50
            # header_timeout is 10 s: then they are cut, though a byte came twice a second
            until = time.monotonic() + 20
            while time.monotonic() < until and not all(is_cut(connection) for connection in slow[::500]):
                time.sleep(0.2)
            assert all(is_cut(connection) for connection in slow[::500])
            assert httpx.get(f"{server.url}/health", timeout=3).status_code == 200
            stop.set()
            trickling.result(10)
    finally:
        stop.set()
        for connection in slow:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def is_cut(connection: socket.socket) -> bool:
    try:
        return connection.recv(1000) == b"" or is_cut(connection)
    except BlockingIOError:
        return False
    except OSError:
        return True
