"""One connection: requests in order, however they come and end; what an application does wrong stays its own fault."""

import asyncio
import contextlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kit.doors import Opened, answer, opened, read_all, read_body, statuses

HOST = b" HTTP/1.1\r\nHost: a\r\n"
LAST = HOST + b"Connection: close\r\n"
CHUNKED = HOST + b"Transfer-Encoding: chunked\r\n\r\n"
BIG = 16 << 20  # bytes: more than systems keep for a socket
MARK = b"%d;"  # what numbered replies end with


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    path = scope["path"].strip("/").partition("/")
    match path[0]:
        case "slow":
            await asyncio.sleep(0.05)
            await answer(send, path[2].encode() + b";")
        case "read":
            try:
                await answer(send, b"<" + await read_body(receive) + b">")
            except ConnectionError:
                await answer(send, b"broken", 400)
        case "late":  # it begins to reply, then looks whether more comes
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            waiting = asyncio.ensure_future(receive())
            await asyncio.sleep(0.05)
            waiting.cancel()
            await send({"type": "http.response.body", "body": b"second"})
        case "big":
            await answer(send, bytes(BIG))
        case "bodiless":
            await answer(send, b"")
        case "file":
            await send_file(send)
        case "half":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"a part", "more_body": True})
            raise RuntimeError
        case "raises":
            raise RuntimeError
        case "headless":
            await send({"type": "http.response.body", "body": b""})
        case "silent":
            pass
        case "header":
            name, _, value = path[2].partition("/")
            await answer(send, b"four", 200, (name.encode(), value.replace("~", "\r\n").encode()))
        case "status":
            await answer(send, b"null", int(path[2]))
        case _:
            await answer(send, path[2].encode() + b";")


async def send_file(send: Any) -> None:
    with tempfile.TemporaryFile() as file:
        os.truncate(file.fileno(), BIG)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % BIG)]})
        where = {"file": file.fileno(), "offset": 0, "count": BIG}
        await send({"type": "http.response.zerocopysend", **where})


@pytest.fixture(scope="module")
def door() -> Iterator[Opened]:
    with opened(application, head=2.0, stall=2.0, linger=2.0) as made:
        yield made


def bodies(answer: bytes) -> list[bytes]:
    return [part.partition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 ")[1:]]


def tasks(door: Opened) -> int:
    return door.run(lambda: len(asyncio.all_tasks()))


def wait_until_calm(door: Opened, before: int) -> None:
    end = time.monotonic() + 15
    while door.run(lambda: len(door.door.connections)) or tasks(door) > before:
        assert time.monotonic() < end, door.run(asyncio.all_tasks)
        time.sleep(0.05)


def test_a_body_that_nobody_takes_is_no_part_of_the_next(door: Opened) -> None:
    for unread in (b"Content-Length: 5\r\n\r\nstale", b"Transfer-Encoding: chunked\r\n\r\n5\r\nstale\r\n0\r\n\r\n"):
        got = door.ask(b"POST /x" + HOST + unread + b"POST /read" + LAST + b"Content-Length: 3\r\n\r\nnew")
        assert statuses(got) == [200, 200] and got.endswith(b"<new>")


@pytest.mark.parametrize("kind", [b"x", b"slow"])
def test_who_says_that_nothing_more_comes_gets_what_was_asked(door: Opened, kind: bytes) -> None:
    count = 10 if kind == b"slow" else 1000
    with door.connect() as client:
        client.sendall(b"".join(b"GET /%b/%d" % (kind, at) + HOST + b"\r\n" for at in range(count)))
        client.shutdown(socket.SHUT_WR)
        assert bodies(read_all(client)) == [MARK % at for at in range(count)]


def test_half_a_request_at_the_end_is_none(door: Opened) -> None:
    with door.connect() as client:
        client.sendall(b"GET /x/1" + HOST + b"\r\nGET /x/2" + HOST)
        client.shutdown(socket.SHUT_WR)
        assert bodies(read_all(client)) == [b"1;"]


def test_order_is_kept_in_a_mixture(door: Opened) -> None:
    kinds: list[tuple[bytes, int, bytes]] = [
        (b"GET /x/a" + HOST + b"\r\n", 200, b"a;"),
        (b"HEAD /x/a" + HOST + b"\r\n", 200, b""),
        (b"GET /slow/b" + HOST + b"\r\n", 200, b"b;"),
        (b"POST /read" + HOST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi", 200, b"<hi>"),
        (b"POST /read" + CHUNKED + b"1\r\na\r\n2;e\r\nbc\r\n0\r\nX: y\r\n\r\n", 200, b"<abc>"),
        (b"GET http://b/x/c" + HOST + b"Upgrade: h2c\r\nConnection: upgrade\r\n\r\n", 200, b"c;"),
    ]
    script = [kinds[at * 7 % len(kinds)] for at in range(240)]
    got = door.ask(*[each[0] for each in script], b"GET /x/end" + LAST + b"\r\nGET /x/never" + HOST + b"\r\n")
    assert statuses(got) == [each[1] for each in script] + [200]
    assert bodies(got) == [each[2] for each in script] + [b"end;"]


def test_a_refusal_in_the_middle_is_the_last(door: Opened) -> None:
    good = b"GET /x/1" + HOST + b"\r\n"
    got = door.ask(good, good, b"GET /x/1" + HOST + b"Host: b\r\n\r\n", good)
    assert statuses(got) == [200, 200, 400] and b"connection: close" in got
    # the body doesn't come whole: what stands behind it may be anything
    got = door.ask(b"POST /x/1" + HOST + b"Content-Length: 99\r\n\r\n" + good)
    assert statuses(got) == [200] and b"connection: close" in got


def test_bad_chunks_are_refused_wherever_they_are_cut(door: Opened) -> None:
    """And what comes behind the bad one is nothing, least of all the rest of the body."""
    for pause in (0.0, 0.1):
        with door.connect() as client:
            client.sendall(b"POST /read" + CHUNKED + b"3\r\nabc\r\n")
            time.sleep(pause)
            client.sendall(b"zz\r\n")
            time.sleep(pause)
            client.sendall(b"1\r\na\r\n0\r\n\r\nGET /smuggled" + HOST + b"\r\n")
            assert statuses(read_all(client)) == [400]
    assert ("GET", "/smuggled", b"") not in door.seen


def test_small_chunks_hold_up_nobody(door: Opened) -> None:
    with door.connect() as client:
        client.sendall(b"POST /read" + CHUNKED)
        sender = threading.Thread(target=lambda: client.sendall(b"1\r\na\r\n" * 100_000), daemon=True)
        sender.start()
        while sender.is_alive():  # took half a minute once
            assert statuses(door.ask(b"GET /x/1" + LAST + b"\r\n")) == [200]
        client.sendall(b"0\r\n\r\n")
        assert statuses(client.recv(1000)) == [200]


def test_continue_is_said_when_the_body_is_wanted(door: Opened) -> None:
    expecting = b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    with door.connect() as client:
        client.sendall(b"POST /read" + HOST + expecting)
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"hi")
        assert client.recv(1000).endswith(b"<hi>")
    with door.connect() as client:
        client.sendall(b"POST /x/1" + HOST + expecting)
        assert statuses(client.recv(1000)) == [200]
    with door.connect() as client:  # never in the middle of a reply
        client.sendall(b"POST /late" + HOST + expecting)
        assert b" 100 " not in read_all(client)
    with door.connect() as client:  # HTTP/1.0 doesn't know it
        client.sendall(b"POST /read HTTP/1.0\r\n" + expecting + b"hi")
        assert statuses(read_all(client)) == [200]


def test_who_sends_on_before_they_read_gets_the_refusal_as_long_as_they_do(door: Opened) -> None:
    """Longer than a silent client may stay; who sends little, or nothing, is ended."""
    with door.connect() as quick, door.connect() as slow:
        for client in (quick, slow):
            client.sendall(b"POST /x/1" + HOST + b"Content-Length: 99999999\r\n\r\n")
        for _ in range(24):
            quick.sendall(bytes(1 << 20))
            with contextlib.suppress(ConnectionError):
                slow.send(b"a")
            time.sleep(0.25)
        assert statuses(quick.recv(1000)) == [200]
        with pytest.raises(ConnectionError):
            for _ in range(20):
                slow.send(b"a")
                time.sleep(0.25)


@pytest.mark.parametrize("path", [b"file", b"big"])
def test_who_reads_nothing_ends_and_who_reads_slowly_goes_on(door: Opened, path: bytes) -> None:
    before, files = tasks(door), len(os.listdir("/proc/self/fd"))
    idle, slow = door.connect(), door.connect()
    for client in (idle, slow):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
        client.sendall(b"GET /" + path + LAST + b"\r\n")
    got, end = 0, time.monotonic() + 60
    while door.run(lambda: len(door.door.connections)) < 2:
        time.sleep(0.01)
    while door.run(lambda: len(door.door.connections)) > 1:  # until the one who takes nothing has lost its connection
        got += len(slow.recv(16 << 10))
        time.sleep(0.02)
        assert time.monotonic() < end and got < BIG
    while piece := slow.recv(1 << 20):
        got += len(piece)
    assert got > BIG
    assert len(read_all(idle)) < BIG
    idle.close()
    slow.close()
    wait_until_calm(door, before)
    assert len(os.listdir("/proc/self/fd")) <= files


def test_gone_in_the_middle_of_a_file_leaves_nothing(door: Opened) -> None:
    before, files = tasks(door), len(os.listdir("/proc/self/fd"))
    clients = [door.connect() for _ in range(50)]
    for client in clients:
        client.sendall(b"GET /file" + HOST + b"\r\n")
    for client in clients:
        client.recv(1000)
        client.close()
    wait_until_calm(door, before)
    assert len(os.listdir("/proc/self/fd")) <= files


def test_ten_thousand_requests_of_one_that_reads_nothing_are_not_taken(door: Opened) -> None:
    seen = len(door.seen)
    with door.connect() as client:
        client.setblocking(False)
        sent, ask = 0, b"GET /big" + HOST + b"\r\n"
        try:
            for _ in range(10_000):
                sent += client.send(ask)
        except BlockingIOError:
            pass
        time.sleep(0.5)
        assert len(door.seen) - seen < 5
        taken = door.run(lambda: [len(each._unread) for each in door.door.connections])
        assert sum(taken) < 512 << 10


WRONG = {
    "raises": b"/raises",
    "says nothing": b"/silent",
    "a body without a head": b"/headless",
    "a header of two lines": b"/header/x-a/b~x-evil: 1",
    "a name with a colon": b"/header/x:a/b",
    "a length that is none": b"/header/content-length/-1",
    "a status that ends nothing": b"/status/100",
}


@pytest.mark.parametrize("name", WRONG)
def test_an_application_that_fails_before_its_reply(door: Opened, name: str) -> None:
    got = door.ask(b"GET " + WRONG[name].replace(b" ", b"%20") + HOST + b"\r\n", b"GET /x/1" + HOST + b"\r\n")
    assert statuses(got) == [500] and got.endswith(b'{"error":"server"}'), got


def test_an_application_that_fails_after_half_a_reply(door: Opened) -> None:
    for path in (b"/half", b"/header/Content-Length/9", b"/header/Content-Length/2"):
        got = door.ask(b"GET " + path + HOST + b"\r\nGET /x/1" + HOST + b"\r\n")
        assert b"x/1" not in got and not got.endswith(b"0\r\n\r\n") and not got.endswith(b"four"), got


def test_the_framing_of_a_reply_is_ours(door: Opened) -> None:
    got = door.ask(b"GET /header/Transfer-Encoding/chunked" + HOST + b"\r\n", b"GET /x/1" + LAST + b"\r\n")
    assert bodies(got) == [b"four", b"1;"] and b"ransfer" not in got
    for status in (204, 304):
        got = door.ask(b"GET /status/%d" % status + HOST + b"\r\n", b"GET /x/1" + LAST + b"\r\n")
        assert statuses(got) == [status, 200] and bodies(got) == [b"", b"1;"]
    got = door.ask(b"HEAD /big" + HOST + b"\r\n", b"GET /x/1" + LAST + b"\r\n")
    assert b"content-length: %d\r\n" % BIG in got and bodies(got) == [b"", b"1;"]
    got = door.ask(b"HEAD /bodiless" + HOST + b"\r\n", b"GET /x/1" + LAST + b"\r\n")
    assert b"content-length: 0" not in got and bodies(got) == [b"", b"1;"]
