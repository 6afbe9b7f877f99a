"""A large upload that is refused early: each client sees our status and body, and no broken connection.

Direct and behind nginx. RFC 9112, §9.6: who ends a connection goes on reading for a while.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest
import requests

from tests.conftest import KINDS, Server, serving
from tests.door.test_door_fronts import nginx, running
from tests.kit.browser import opened

TIMES = int(os.environ.get("REFUSALS", "1"))  # of each: with more, all of the 200 MB
SIZE = 32 << 20 if TIMES == 1 else 200 << 20  # more than any system keeps for a socket
PIECE = bytes(1 << 20)
# path, headers, whether its length is said, what is seen
CASES: dict[str, tuple[str, bool, int, dict[str, str]]] = {
    "too large as declared": ("/measure", True, 413, {"error": "size"}),
    "too large as it comes": ("/measure", False, 413, {"error": "size"}),
    "without a session": ("/measure/private", True, 403, {"error": "nocookie"}),
    "without a session, in chunks": ("/measure/private", False, 403, {"error": "nocookie"}),
    "no such route": ("/nowhere", True, 404, {"error": "route"}),
}
Seen = tuple[int, dict[str, str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(KINDS, tmp_path_factory.mktemp("kinds"), settings={"upload_limit": 1 << 20}) as made:
        yield made


@pytest.fixture(scope="module")
def urls(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    words, port = nginx(tmp_path_factory.mktemp("nginx"), server.port, False)
    folder = Path(words[-1])
    folder.write_text(folder.read_text().replace("access_log off;", "access_log off; client_max_body_size 0;"))
    with running(words, port):
        yield {"direct": server.url, "nginx": f"http://127.0.0.1:{port}"}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "file"
    path.touch()
    os.truncate(path, SIZE)
    return path


def pieces() -> Iterator[bytes]:
    for _ in range(SIZE // len(PIECE)):
        yield PIECE


def curl(url: str, large: Path, declared: bool, expect: str) -> Seen:
    words = ["curl", "-sS", "-m", "60", "-w", "\n%{http_code}", "-X", "POST", "-T", str(large), "-H", expect]
    words += [] if declared else ["-H", "Transfer-Encoding: chunked"]
    got = subprocess.run([*words, url], capture_output=True, text=True)
    assert got.returncode == 0, got.stderr
    body, _, status = got.stdout.rpartition("\n")
    return int(status), json.loads(body)


def curl_expecting(url: str, large: Path, declared: bool) -> Seen:
    return curl(url, large, declared, "Expect: 100-continue")


def curl_plain(url: str, large: Path, declared: bool) -> Seen:
    return curl(url, large, declared, "Expect:")


def with_requests(url: str, large: Path, declared: bool) -> Seen:
    with large.open("rb") as file:
        got = requests.post(url, data=file if declared else pieces(), timeout=60)
        return got.status_code, got.json()


def with_httpx(url: str, large: Path, declared: bool) -> Seen:
    headers = {"content-length": str(SIZE)} if declared else {}
    got = httpx.post(url, content=pieces(), headers=headers, timeout=60)
    return got.status_code, got.json()


def with_aiohttp(url: str, large: Path, declared: bool) -> Seen:
    async def ask() -> Seen:
        async def each():
            for piece in pieces():
                yield piece

        with large.open("rb") as file:
            async with aiohttp.ClientSession() as client, client.post(url, data=file if declared else each()) as got:
                return got.status, await got.json()

    return asyncio.run(ask())


NODE_FETCH = """
const [url, path, declared] = process.argv.slice(1), fs = require("fs");
const body = declared ? await fs.openAsBlob(path) : fs.createReadStream(path);
const got = await fetch(url, { method: "POST", body, duplex: "half" });
console.log(JSON.stringify([got.status, await got.json()]));
"""
NODE_HTTP = """
const [url, path, declared] = process.argv.slice(1), fs = require("fs"), http = require("http");
const headers = declared ? { "content-length": fs.statSync(path).size } : {};
const asked = http.request(url, { method: "POST", headers }, got => {
    let text = "";
    got.on("data", part => text += part);
    got.on("end", () => { console.log(JSON.stringify([got.statusCode, JSON.parse(text)])); process.exit(0); });
});
fs.createReadStream(path).pipe(asked);
"""


def node(program: str, url: str, large: Path, declared: bool) -> Seen:
    program = f"(async () => {{ {program} }})()"
    words = ["node", "-e", program, url, str(large), "yes" if declared else ""]
    got = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert got.returncode == 0 and got.stdout, got.stderr
    status, body = json.loads(got.stdout)
    return status, body


def node_fetch(url: str, large: Path, declared: bool) -> Seen:
    return node(NODE_FETCH, url, large, declared)


def node_http(url: str, large: Path, declared: bool) -> Seen:
    return node(NODE_HTTP, url, large, declared)


CLIENTS = {
    each.__name__: each
    for each in (curl_expecting, curl_plain, with_requests, with_httpx, with_aiohttp, node_fetch, node_http)
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", ["direct", "nginx"])
@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_sees_the_refusal(urls: dict[str, str], large: Path, client: str, way: str, case: str) -> None:
    path, declared, status, body = CASES[case]
    for _ in range(TIMES):
        assert CLIENTS[client](urls[way] + path, large, declared) == (status, body)


FETCH = """
const [path, size, done] = arguments, part = new Uint8Array(1 << 20);
fetch(path, { method: "POST", body: new Blob(Array(size >> 20).fill(part)) })
    .then(async got => done([got.status, await got.json()])).catch(error => done(String(error)));
"""


@pytest.mark.parametrize("way", ["direct", "nginx"])
def test_a_browser_sees_the_refusal(urls: dict[str, str], tmp_path: Path, way: str) -> None:
    with opened(tmp_path) as browser:
        browser.get(urls[way] + "/whole/1")
        browser.set_script_timeout(60)
        for path, declared, status, body in CASES.values():
            for _ in range(TIMES if declared else 0):  # a browser sends no chunks but over HTTP/2
                assert browser.execute_async_script(FETCH, path, SIZE) == [status, body], path


def test_who_never_stops_sending_is_ended(server: Server) -> None:
    """Bounded by bytes; a client that declared more than that has no more of our time."""
    with socket.create_connection(("127.0.0.1", server.port), 30) as client:
        client.sendall(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 404 ")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 1 << 30:
                sent += client.send(PIECE)
        assert sent < 512 << 20
