"""How many connections, and for how long: what is too much is refused in words, and the others are served."""

import contextlib
import time
from typing import Any

from backlore.web.door.connection import Connection
from backlore.web.door.door import Bounds, Door
from tests.kit.doors import Opened, answer, opened, read_all, statuses

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await answer(send, b"{}")


def fill(door: Opened, stack: contextlib.ExitStack, count: int) -> list[Any]:
    clients = [stack.enter_context(door.connect()) for _ in range(count)]
    for client in clients:
        client.sendall(GET)
        assert statuses(client.recv(1000)) == [200]
    return clients


def test_too_many_connections_are_refused_in_words() -> None:
    for bounds in ({"connections": 20}, {"per_address": 20}):
        with opened(application, **bounds, linger=1.0) as door, contextlib.ExitStack() as stack:
            clients = fill(door, stack, 20)
            for _ in range(5):
                got = door.ask(b"")
                assert statuses(got) == [503] and b"retry-after: 1\r\n" in got
                assert got.endswith(b'{"error":"unavailable"}')
            clients[0].sendall(GET)
            assert statuses(clients[0].recv(1000)) == [200]
            clients.pop().close()
            end = time.monotonic() + 5
            while statuses(door.ask(GET.replace(b"Host", b"Connection: close\r\nHost"))) != [200]:
                assert time.monotonic() < end


def test_one_customer_is_one_address() -> None:
    """Of IPv6 each has a /64 at least, and could come from another address of it each time."""
    door = Door(application, Bounds(per_address=3), lambda address: address == "2001:db8::9", lambda *_: None)

    def connected(address: str) -> Connection:
        connection = Connection(door)
        connection.client = address, 1
        return connection

    mine = [connected(f"2001:db8::{number}") for number in range(1, 5)]
    assert [door.admit(each) for each in mine] == [True, True, True, False]
    assert door.admit(connected("2001:db8::9")) and door.admit(connected("2001:db8:0:1::1"))
    assert door.admit(connected("192.0.2.1")) and not door.admit(connected("2001:db8::ffff"))
    for each in mine:
        door.leave(each)
    assert door.admit(connected("2001:db8::ffff"))


def test_each_kind_of_silence_ends() -> None:
    with opened(application, head=1.0, idle=1.0, linger=1.0) as door:
        assert door.ask(b"") == b""
        assert statuses(door.ask(GET)) == [200]
        assert statuses(door.ask(GET[:-2])) == [408]
        assert statuses(door.ask(GET + GET[:-2])) == [200, 408]
        with door.connect() as client:  # byte by byte is no progress
            with contextlib.suppress(ConnectionError):
                for byte in GET[:-2] + b"X: " + b"y" * 100:
                    client.send(bytes([byte]))
                    time.sleep(0.05)
            assert statuses(read_all(client)) in ([408], [])
        end = time.monotonic() + 8
        while door.run(lambda: len(door.door.connections)):
            assert time.monotonic() < end
            time.sleep(0.05)


def test_old_clients() -> None:
    with opened(application) as door:
        got = door.ask(b"GET / HTTP/1.0\r\n\r\n")
        assert statuses(got) == [200] and b"connection: close" in got
        got = door.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + b"GET / HTTP/1.0\r\n\r\n")
        assert statuses(got) == [200, 200] and got.count(b"connection: keep-alive") == 1
