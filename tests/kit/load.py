"""Clients that keep a server busy, and know what it has acknowledged."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.conftest import Server, User


class Load:
    """Clients that keep counting up in redis, and remember what was acknowledged."""

    def __init__(self, server: Server, clients: int = 8):
        self.acknowledged: list[int] = []
        self.outcomes: Counter[str] = Counter()
        self._server = server
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(clients)
        self._running = [self._pool.submit(self._run) for _ in range(clients)]

    def _run(self) -> None:
        with User(self._server) as user:
            while not self._stop.is_set():
                try:
                    got = user.post("/count", timeout=10)
                except httpx.TransportError as error:
                    self.outcomes[type(error).__name__] += 1
                    continue
                self.outcomes[str(got.status_code)] += 1
                if got.status_code == 200:
                    self.acknowledged.append(got.json()["count"])

    def stop(self) -> None:
        self._stop.set()
        for each in self._running:
            each.result(30)
        self._pool.shutdown()


def check_counted(server: Server, load: Load) -> None:
    """No acknowledged step was lost and none given twice."""
    assert len(set(load.acknowledged)) == len(load.acknowledged) > 0
    assert httpx.post(f"{server.url}/count").json()["count"] > max(load.acknowledged)
