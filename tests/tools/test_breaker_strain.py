"""A busy machine is no finding; what never comes is one, also there."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from backlore.tools.breaker.breaker import Breaker
from backlore.tools.breaker.judge import ANY
from backlore.tools.breaker.strain import strain
from backlore.tools.breaker.wire import Sent, Wire

BUSY = 12  # processes on the one CPU of this test
pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="CPUs are chosen on Linux only")
PLAIN = {"x-content-type-options": "nosniff", "x-frame-options": "DENY", "referrer-policy": "same-origin"}
DOCUMENT = {"paths": {"/a": {"post": {"responses": {"200": {"content": {"*/*": {}}}}}}}, "components": {"schemas": {}}}


class Worker(BaseHTTPRequestHandler):
    """Takes as many milliseconds of CPU time, and then of sleep, as its headers say."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        until = time.thread_time() + int(self.headers.get("x-work", 0)) / 1000
        while time.thread_time() < until:
            pass
        time.sleep(int(self.headers.get("x-sleep", 0)) / 1000)
        self.send_response(200)
        for name, value in (PLAIN | {"content-length": "2", "content-type": "text/plain"}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def breaker() -> Iterator[Breaker]:
    """Of a server that shares one CPU with whoever else is started here."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), Worker)
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Breaker(Wire(f"http://127.0.0.1:{server.server_port}"), DOCUMENT)
    finally:
        server.shutdown()
        server.server_close()
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def busy() -> Iterator[None]:
    spin = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    processes = [subprocess.Popen(spin, stdout=subprocess.PIPE) for _ in range(BUSY)]
    try:
        for each in processes:
            assert each.stdout and each.stdout.readline()
        yield
    finally:
        for each in processes:
            each.kill()
            each.wait()


def attack(breaker: Breaker, **headers: str) -> None:
    operation = breaker.operation("POST", "/a")
    assert operation
    sent = Sent("POST", "/a", b"{}", {f"x-{name}": value for name, value in headers.items()})
    breaker.attack(operation, sent, ANY, "work")


def test_what_only_the_machine_makes_slow_is_no_finding(breaker: Breaker) -> None:
    for _ in range(50):
        attack(breaker)
    with busy():
        assert strain() > 2
        attack(breaker, work="150")  # 13 times as long here
    assert not breaker.findings


def test_what_never_comes_is_found_on_any_machine(breaker: Breaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backlore.tools.breaker.breaker.PATIENCE", 0.5)  # of the repetitions
    for _ in range(50):
        attack(breaker)
    with busy():
        attack(breaker, sleep="60000")
    assert [kind for _, kind in breaker.findings] == ["hang"]
