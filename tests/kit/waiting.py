"""What is waited for: that something holds, that a server is well, that it ends since it can't start."""

import time
from collections.abc import Callable

import httpx
import psutil

from tests.conftest import Server


def until(check: Callable[[], object], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if check():
                return
        except (httpx.TransportError, psutil.NoSuchProcess, StopIteration):
            pass
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def healthy(server: Server) -> bool:
    return httpx.get(f"{server.url}/health", timeout=3).status_code == 200


def start_fails(server: Server) -> str:
    """What it says when it can't start; it must end by itself, with 1."""
    server.start(wait=False)
    assert server.process.wait(20) == 1, server.said()
    assert not server.family()
    return server.said()
