"""What is sent after a message has turned out to be none."""

import asyncio
import time
from typing import Any

from tests.kit.doors import answer, opened, read_all, read_body, statuses

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_message_that_has_turned_out_bad_stays_bad() -> None:
    """While the application is still busy with its head; and the one who sends on gets the reply."""
    go_on = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        try:
            await answer(send, await read_body(receive))
        except ConnectionError:
            scope["exchange"].whole(400, [], b"bad")

    with opened(application) as door, door.connect() as client:
        client.sendall(HEAD)
        until = time.monotonic() + 10
        while not door.seen:
            assert time.monotonic() < until
            time.sleep(0.01)
        (connection,) = door.run(lambda: list(door.door.connections))
        client.sendall(b"zz\r\n")
        while not connection.ended:
            assert time.monotonic() < until
            time.sleep(0.01)
        client.sendall(b"1\r\na\r\n0\r\n\r\n" + b"x" * (1 << 20))
        door.loop.call_soon_threadsafe(go_on.set)
        got = read_all(client)
    assert statuses(got) == [400] and got.endswith(b"bad"), got
