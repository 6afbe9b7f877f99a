"""Connections of a real server whose workers come, go, die, and have no files left to open."""

import asyncio
import contextlib
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import KINDS, Server
from tests.kit.doors import read_all, statuses
from tests.kit.waiting import until

LAST = b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
LARGE = 24 << 20  # bytes: more than systems keep for a socket

OWN = f"""

async def large(request):
    return reply(200, bytes({LARGE}))


async def hour(request):
    await asyncio.sleep(3600)


async def bye():
    app.notify("info", "bye")


app.web.on_stop.append(bye)
app.routes(public.get("/large", large), public.get("/hour", hour))
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(KINDS, tmp_path, settings={"drain": 5})
    (made.folder / "server.py").write_text((made.folder / "server.py").read_text() + OWN)
    try:
        yield made.start()
    finally:
        made.kill()


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), 20)


async def ask_until(port: int, stop: asyncio.Event, failed: list[str]) -> int:
    """One client after another request, on a connection that is kept as long as the server lets it."""
    count, stream = 0, None
    while not stop.is_set():
        if stream is None:
            stream = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = stream
        try:
            writer.write(b"GET /pid HTTP/1.1\r\nHost: a\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            assert length and head.startswith(b"HTTP/1.1 200"), head
            await reader.readexactly(int(length[1]))
        except Exception as error:
            failed.append(repr(error))
            return count
        count += 1
        if b"connection: close" in head:
            writer.close()
            stream = None
        await asyncio.sleep(0.05)
    return count


def test_reloads_under_500_connections_fail_no_request(server: Server) -> None:
    async def race() -> tuple[int, list[str]]:
        stop, failed = asyncio.Event(), []
        clients = [asyncio.ensure_future(ask_until(server.port, stop, failed)) for _ in range(500)]
        for number in range(1, 4):
            await asyncio.sleep(0.5)
            server.process.send_signal(signal.SIGHUP)
            await asyncio.to_thread(until, lambda n=number: server.said().count("master.reloaded") == n, 60)
        stop.set()
        return sum(await asyncio.gather(*clients)), failed

    count, failed = asyncio.run(race())
    assert not failed and count > 500, (count, failed[:5])


@pytest.mark.parametrize("sign", [signal.SIGHUP, signal.SIGTERM])
def test_a_reply_that_is_written_but_not_taken_yet_goes_out_whole(server: Server, sign: signal.Signals) -> None:
    with connect(server) as client:
        client.sendall(b"GET /large" + LAST)
        got = client.recv(1000)
        server.process.send_signal(sign)
        time.sleep(0.5)  # the worker drains: to it, the request is answered
        got += read_all(client)
    assert len(got.partition(b"\r\n\r\n")[2]) == LARGE, got[-20:]


def test_what_never_ends_is_ended_within_the_time_for_draining(server: Server) -> None:
    """And then the application's own end still has its time."""
    with connect(server) as client:
        client.sendall(b"GET /hour" + LAST)
        time.sleep(0.3)
        assert server.stop() == 0
        assert read_all(client) in (b"", b"reset")
    assert server.said().count('"bye"') + server.said().count(" bye") >= 2, server.said()


def test_a_worker_killed_with_a_thousand_requests_waiting(server: Server) -> None:
    """None is answered out of order or in part, none is done twice, and the next worker serves."""
    before = int(httpx.post(f"{server.url}/count").json()["count"])
    ask = b"POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    with connect(server) as client:
        client.sendall(ask * 1000)
        got = client.recv(100)
        for each in server.workers():
            each.kill()
        got += read_all(client)
    counts = [int(number) for number in re.findall(rb'{"count":(\d+)}', got)]
    assert counts == list(range(before + 1, before + 1 + len(counts)))
    assert set(statuses(got)) <= {200}
    until(lambda: httpx.get(f"{server.url}/pid").status_code == 200)
    after = int(httpx.post(f"{server.url}/count").json()["count"])
    assert before + len(counts) < after <= before + 1001


def test_a_worker_without_files_left_goes_on(server: Server) -> None:
    """Who comes too late waits or is refused; the others are served, and the worker doesn't spin."""
    workers = server.workers()
    for each in workers:
        most = each.num_fds() + 50
        each.rlimit(psutil.RLIMIT_NOFILE, (most, most))
    kept = connect(server)
    kept.sendall(b"GET /pid HTTP/1.1\r\nHost: a\r\n\r\n")
    assert statuses(kept.recv(1000)) == [200]
    clients = []
    for _ in range(300):
        with contextlib.suppress(OSError):
            clients.append(connect(server))
    time.sleep(0.5)
    used = [sum(each.cpu_times()[:2]) for each in workers]
    time.sleep(2)
    spent = [sum(each.cpu_times()[:2]) - known for each, known in zip(workers, used, strict=True)]
    kept.sendall(b"GET /pid HTTP/1.1\r\nHost: a\r\n\r\n")
    assert statuses(kept.recv(1000)) == [200]
    for client in clients:
        client.close()
    until(lambda: httpx.get(f"{server.url}/pid").status_code == 200)
    assert {each.pid for each in server.workers()} == {each.pid for each in workers}, server.said()[-2000:]
    assert max(spent) < 1, spent
