"""Behind nginx, HAProxy and node: whatever a client sends, the application sees no request that the front didn't.

A front marks each request that it passes on. What comes without the mark, it took for a part of something else.
"""

import contextlib
import os
import pwd
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backlore.web.door.reading import BadMessage, Reader
from tests.conftest import free_port
from tests.door.test_door_reading import CASES
from tests.kit.ambiguous import messages, with_byte
from tests.kit.doors import Opened, answer, opened, read_body

MARK = "x-front"
SECRET = "9f1c5b"
NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log crit; {user}
events {{ }}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    underscores_in_headers {lax}; ignore_invalid_headers {strict}; proxy_request_buffering {strict};
    client_body_timeout 1s; client_header_timeout 1s; proxy_read_timeout 2s;
    upstream door {{ server 127.0.0.1:{door}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port}; merge_slashes off;
        location / {{
            proxy_pass http://door; proxy_http_version 1.1;
            proxy_set_header Connection ""; proxy_set_header {mark} {secret};
        }}
    }}
}}
"""
HAPROXY = """
global
    maxconn 200
defaults
    mode http
    timeout client 1s
    timeout http-request 1s
    timeout server 2s
    timeout connect 2s
    http-reuse always
    retries 0
frontend front
    bind 127.0.0.1:{port}
    {invalid}
    http-request set-header {mark} {secret}
    default_backend door
backend door
    server door 127.0.0.1:{door} maxconn 8
"""
NODE = """
const http = require("http"), lax = {lax};
const agent = new http.Agent({{ keepAlive: true, maxSockets: 8 }});
const pass = (request, reply) => {{
    request.on("error", () => {{}});
    const headers = {{ ...request.headers, "{mark}": "{secret}" }};
    delete headers.connection;
    try {{
        const onward = http.request({{ host: "127.0.0.1", port: {door}, agent, method: request.method,
            path: request.url, headers }}, got => {{ reply.writeHead(got.statusCode, got.headers); got.pipe(reply) }});
        onward.on("error", () => reply.destroy());
        request.on("close", () => request.complete || onward.destroy());
        request.pipe(onward);
    }} catch {{ reply.destroy() }}  // what it took, it can't send
}};
const server = http.createServer({{ insecureHTTPParser: lax, requireHostHeader: !lax }}, pass);
server.on("clientError", (error, socket) => socket.destroy());
server.on("checkContinue", pass);
server.on("checkExpectation", pass);
server.requestTimeout = 1000; server.headersTimeout = 1000; server.listen({port}, "127.0.0.1");
"""


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    marks = [value for name, value in scope["headers"] if name == MARK.encode()]
    path = scope["path"]
    with contextlib.suppress(ConnectionError):
        await read_body(receive)
        if marks != [SECRET.encode()]:
            UNMARKED.append((scope["method"], path))
        await answer(send, path.encode())


UNMARKED: list[tuple[str, str]] = []


@pytest.fixture(scope="module")
def door() -> Iterator[Opened]:
    with opened(application, head=2.0, linger=1.0) as made:
        yield made


def configured(folder: Path, template: str, **options: object) -> tuple[str, int]:
    port = free_port()
    path = folder / "config"
    path.write_text(template.format(folder=folder, port=port, mark=MARK, secret=SECRET, **options))
    return str(path), port


def nginx(folder: Path, door: int, lax: bool) -> tuple[list[str], int]:
    user = f"user {pwd.getpwuid(os.getuid()).pw_name};" if os.getuid() == 0 else ""
    words = {"lax": "on", "strict": "off"} if lax else {"lax": "off", "strict": "on"}
    path, port = configured(folder, NGINX, door=door, user=user, **words)
    return ["nginx", "-e", str(folder / "error.log"), "-c", path], port


def haproxy(folder: Path, door: int, lax: bool) -> tuple[list[str], int]:
    path, port = configured(folder, HAPROXY, door=door, invalid="option accept-invalid-http-request" if lax else "")
    return ["haproxy", "-q", "-f", path], port


def node(folder: Path, door: int, lax: bool) -> tuple[list[str], int]:
    path, port = configured(folder, NODE, door=door, lax=str(lax).lower())
    return ["node", path], port


FRONTS = {each.__name__: each for each in (nginx, haproxy, node)}


@contextlib.contextmanager
def running(words: list[str], port: int) -> Iterator[None]:
    found = shutil.which(words[0], path=f"{os.environ['PATH']}:/usr/sbin")
    assert found, f"apt install {words[0]}"
    process = subprocess.Popen([found, *words[1:]], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 10
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert process.poll() is None and time.monotonic() < until, words
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


def send(port: int, raw: bytes, patience: float) -> bytes:
    """What comes back, until nothing more does."""
    got = b""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(raw)
        client.settimeout(patience)
        while piece := client.recv(1 << 16):
            got += piece
    return got


@pytest.mark.parametrize("lax", [False, True], ids=["as it is", "as lax as it can be"])
@pytest.mark.parametrize("front", FRONTS)
def test_no_input_makes_two_requests_of_one(door: Opened, tmp_path: Path, front: str, lax: bool) -> None:
    words, port = FRONTS[front](tmp_path, door.port, lax)
    seen = len(door.seen)

    def attack(at: int, raw: bytes) -> None:
        send(port, raw, 0.2)
        if at % 10 == 0:  # another client, on the front's connections to us: who asks gets their own reply
            got = send(port, b"GET /own/%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % at, 20)
            assert got.endswith((b"/own/%d" % at, b"/own/%d\r\n0\r\n\r\n" % at)), (raw, got)

    with running(words, port), ThreadPoolExecutor(24) as pool:
        inputs = [raw for raw, _ in CASES.values()] + messages()
        list(pool.map(attack, range(len(inputs)), inputs))
    assert not UNMARKED
    paths = [path for _, path, _ in door.seen[seen:]]
    assert sum(path.startswith("/own/") for path in paths) >= len(inputs) // 10
    assert sum(path.startswith("/outer/") for path in paths) > 100  # they do come through


Found = list[tuple[bytes, bytes]]


def read(raw: bytes) -> Found:
    reader, found = Reader(), []
    with contextlib.suppress(BadMessage):
        while raw:
            raw = reader.feed(raw)
            if not reader.complete:
                break
            assert reader.head
            found.append((reader.head.line.raw_path, reader.take()))
            reader.reset()
    return found


def test_nothing_is_hidden_from_us_by_one_byte() -> None:
    """By all of them: either we count chunks or bytes where nobody could do otherwise, or there is no message."""
    for value in range(256):
        for raw in with_byte(bytes([value])):
            assert not re.search(rb"chunked", raw) or read(raw) in ([], read_naively(raw)), raw


def read_naively(raw: bytes) -> Found:
    """As one who knows no chunks: that is right where the line that says them is another header's."""
    head, _, body = raw.partition(b"\r\n\r\n")
    length = re.search(rb"\r\nContent-Length: (\d+)", head)
    assert length
    found = [(b"/outer/0000", body[: int(length[1])])]
    if body[int(length[1]) :].startswith(b"GET"):
        found.append((b"/smuggled/0000", b""))
    return found
