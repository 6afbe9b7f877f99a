"""What a door promises whatever the application does: one reply a request, as long as it said, and nothing shared."""

import asyncio
import socket
import tempfile
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from tests.kit.doors import Opened, answer, opened, read_all, statuses

HOST = b" HTTP/1.1\r\nHost: a\r\n"
LAST = HOST + b"Connection: close\r\n\r\n"
LARGE = 200_000  # bytes

whose: ContextVar[str] = ContextVar("whose", default="nobody's")
heard: list[str] = []


async def start(send: Any, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})


async def send_file(send: Any, **stretch: int) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"0123456789" * 10)
        file.flush()
        file.seek(90)
        await send({"type": "http.response.zerocopysend", "file": file.fileno(), **stretch})


async def hear(receive: Any, name: str) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    heard.append(name)


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    ten = (b"content-length", b"10")
    match scope["path"].strip("/").partition("/"):
        case "mine", _, "later":
            await asyncio.sleep(0)
            whose.set("mine")
            await answer(send, b"set;")
        case "mine", _, _:
            whose.set("mine")
            await answer(send, b"set;")
        case "whose", _, _:
            await answer(send, whose.get().encode() + b";")
        case "large", _, _:
            await answer(send, bytes(LARGE))
        case "twice", _, _:
            await start(send)
            await start(send)
        case "twice-later", _, _:
            await start(send)
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            await start(send)
        case "file-too-long", _, _:
            await start(send, ten)
            await send_file(send, offset=0, count=20)
        case "file-rest", _, _:
            await start(send)
            await send_file(send)
        case "too-long-caught", _, _:
            await start(send, ten)
            await send({"type": "http.response.body", "body": b"01234", "more_body": True})
            with pytest.raises(RuntimeError):
                await send({"type": "http.response.body", "body": b"567890"})
            await send({"type": "http.response.body", "body": b""})
        case "cancelled", _, _:
            raise asyncio.CancelledError
        case "raises", _, _:
            raise RuntimeError
        case "unknown", _, _:
            await start(send)
            await send({"type": "http.response.trailers"})
        case "listeners", _, _:
            polling = asyncio.ensure_future(receive())
            listening = asyncio.ensure_future(hear(receive, "first"))
            await asyncio.sleep(0)
            other = asyncio.ensure_future(hear(receive, "second"))
            await asyncio.sleep(0)
            other.cancel()
            await start(send)
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            await asyncio.gather(listening, polling)


@pytest.fixture(scope="module")
def door() -> Iterator[Opened]:
    with opened(application, head=2.0, stall=2.0, linger=2.0) as made:
        yield made


def bodies(got: bytes) -> list[bytes]:
    return [part.partition(b"\r\n\r\n")[2] for part in got.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize("how", [b"at-once", b"later"])
def test_what_a_request_sets_in_its_context_no_other_sees(door: Opened, how: bytes) -> None:
    mine, other = b"GET /mine/" + how + HOST + b"\r\n", b"GET /whose" + HOST + b"\r\n"
    assert bodies(door.ask(mine + other + mine + other + b"GET /whose" + LAST)) == [
        b"set;", b"nobody's;", b"set;", b"nobody's;", b"nobody's;",
    ]  # fmt: skip
    assert bodies(door.ask(mine, b"GET /whose" + LAST)) == [b"set;", b"nobody's;"]


def test_one_that_asks_again_and_again_and_reads_nothing_is_bounded(door: Opened) -> None:
    with door.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
        seen, end = len(door.seen), time.monotonic() + 20
        try:
            while True:  # each in a read of its own
                client.sendall(b"GET /large" + HOST + b"\r\n")
                time.sleep(0.005)
                assert time.monotonic() < end, "it may go on for ever"
        except ConnectionError:
            pass
        assert len(door.seen) - seen < 100


@pytest.mark.parametrize("path", [b"/twice", b"/twice-later", b"/unknown", b"/cancelled"])
def test_what_no_application_may_do_ends_the_connection(door: Opened, path: bytes) -> None:
    got = door.ask(b"GET " + path + HOST + b"\r\nGET /whose" + HOST + b"\r\n")
    assert len(statuses(got)) <= 1 and b"nobody" not in got and not got.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("path", [b"/file-too-long", b"/too-long-caught"])
def test_a_promised_length_is_kept(door: Opened, path: bytes) -> None:
    got = door.ask(b"GET " + path + HOST + b"\r\nGET /whose" + HOST + b"\r\n")
    assert b"nobody" not in got and all(len(body.removesuffix(b"reset")) < 10 for body in bodies(got))


def test_a_file_is_sent_from_where_it_stands(door: Opened) -> None:
    got = door.ask(b"GET /file-rest" + HOST + b"\r\nGET /whose" + LAST)
    assert bodies(got) == [b"0123456789", b"nobody's;"] and b"content-length: 10\r\n" in got


def test_head_has_no_body_whatever_happens(door: Opened) -> None:
    assert bodies(door.ask(b"HEAD /raises" + HOST + b"\r\n")) == [b""]


def test_an_empty_line_begins_no_request(door: Opened) -> None:
    with door.connect() as client:
        client.sendall(b"GET /whose" + HOST + b"\r\n\r\n")
        assert statuses(client.recv(1000)) == [200]
        time.sleep(5)  # more than what a head may take
        client.sendall(b"GET /whose" + LAST)
        assert statuses(read_all(client)) == [200]


def test_all_who_wait_for_the_client_hear_that_it_has_gone(door: Opened) -> None:
    heard.clear()
    with door.connect() as client:
        client.sendall(b"GET /listeners" + HOST + b"\r\n")
        assert client.recv(1000)
    end = time.monotonic() + 10
    while heard != ["first"]:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_slow_reader_of_the_last_reply_gets_all_of_it(door: Opened) -> None:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 10)
    client.settimeout(10)
    client.connect(("127.0.0.1", door.port))
    with client:
        client.sendall(b"GET /large" + LAST)
        got = b""
        while piece := client.recv(4 << 10):
            got += piece
            time.sleep(0.15)
    assert len(bodies(got)[0]) == LARGE


@pytest.mark.parametrize("header", [(b"Content-Length", b"3"), (b"transfer-encoding", b"chunked")])
def test_a_whole_reply_names_no_framing(header: tuple[bytes, bytes]) -> None:
    async def whole(scope: dict[str, Any], receive: Any, send: Any) -> None:
        scope["exchange"].whole(200, [header], b"hello")

    with opened(whole) as door:
        assert statuses(door.ask(b"GET /" + HOST + b"\r\n")) == [500]
