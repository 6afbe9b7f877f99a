"""A redis that is empty for each test, one that may be killed, and either event loop."""

import asyncio
import socket

import pytest
import uvloop

from tests.kit.engines import redis_engine


@pytest.fixture(scope="module")
def shared_server():
    with redis_engine() as server:
        yield server


@pytest.fixture
def server(shared_server):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(shared_server.path)
        connection.sendall(b"FLUSHALL\r\nSCRIPT FLUSH\r\nFUNCTION FLUSH\r\n")
        reply = b""
        while reply.count(b"\n") < 3:
            reply += connection.recv(100)
    return shared_server


@pytest.fixture
def mortal():
    """A server that the test may kill."""
    with redis_engine() as server:
        yield server


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Run a coroutine on either event loop."""

    def run_on_loop(coroutine):
        with asyncio.Runner(loop_factory=request.param) as runner:
            problems = []
            runner.get_loop().set_exception_handler(lambda _, context: problems.append(context))
            result = runner.run(coroutine)
        assert problems == []
        return result

    return run_on_loop
