"""The redis client and servers that are away, refuse the login, or talk nonsense."""

import asyncio
import gc
import signal

from redis.exceptions import AuthenticationError, ResponseError

from backlore.clients.redis.client import Redis
from backlore.clients.redis.failures import Unavailable
from tests.kit.engines import redis_engine
from tests.kit.outcomes import outcomes


def test_no_server_at_all(run):
    async def main():
        for address in ({"unix_socket_path": "/nowhere/redis.sock"}, {"host": "127.0.0.1", "port": 1}):
            redis = Redis(**address, timeout=0.2)
            answers = await outcomes([redis.ping(), redis.pipeline().ping().execute(), redis.blpop("q")])
            assert all(isinstance(answer, Unavailable) for answer in answers), answers
            assert "did not run" in str(answers[0])
            await redis.aclose()

    run(main())


def test_the_queue_is_bounded(mortal, run):
    async def main():
        redis = Redis(unix_socket_path=mortal.path, limit=100, timeout=5)
        await redis.ping()
        answers = await outcomes([redis.ping() for _ in range(120)])
        assert [answer is True for answer in answers] == [True] * 100 + [False] * 20
        for answer in answers[100:]:
            assert isinstance(answer, Unavailable) and "100 commands" in str(answer)
        mortal.signal(signal.SIGSTOP)
        before = [redis.ping() for _ in range(60)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        pipe = redis.pipeline()
        for _ in range(39):
            pipe.incr("n")
        (whole,) = await outcomes([pipe.execute()])  # 41 with MULTI and EXEC
        assert isinstance(whole, Unavailable) and "100 commands" in str(whole)
        mortal.signal(signal.SIGCONT)
        assert await outcomes(before) == [True] * 60
        assert await redis.get("n") is None
        await redis.aclose()

    run(main())


def test_wrong_password_and_wrong_database(run):

    async def main():
        for password in ("wrong", None):
            redis = Redis(unix_socket_path=server.path, password=password)
            for _ in range(2):
                (answer,) = await outcomes([redis.ping()])
                assert isinstance(answer, AuthenticationError)
                assert "Check the username and the password" in str(answer)
            await redis.aclose()
        redis = Redis(unix_socket_path=server.path, password="right", db=99)
        (answer,) = await outcomes([redis.ping()])
        assert isinstance(answer, ResponseError) and "Check the database number" in str(answer)
        await redis.aclose()
        async with Redis(unix_socket_path=server.path, password="right", username="default") as redis:
            assert await redis.ping()
            assert await redis.acl_whoami() == "default"

    with redis_engine("--requirepass", "right") as server:
        run(main())


def test_a_server_without_hello(run):
    async def main():
        async def old(reader, writer):
            await reader.readline()
            writer.write(b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n")
            await reader.read()
            writer.close()

        listener = await asyncio.start_server(old, "127.0.0.1", 0)
        redis = Redis(host="127.0.0.1", port=listener.sockets[0].getsockname()[1])
        (answer,) = await outcomes([redis.ping()])
        assert isinstance(answer, ResponseError) and "6.0 or newer" in str(answer)
        await redis.aclose()
        listener.close()

    run(main())


def test_a_greeting_that_is_cut_is_told_by_no_future(run):
    """Of HELLO and SELECT both fail; the second one must not be left for the loop to complain about."""

    async def main():
        async def cut(reader, writer):
            await reader.readline()
            writer.close()

        listener = await asyncio.start_server(cut, "127.0.0.1", 0)
        redis = Redis(host="127.0.0.1", port=listener.sockets[0].getsockname()[1], db=1, timeout=0.2)
        (answer,) = await outcomes([redis.ping()])
        assert isinstance(answer, Unavailable)
        await redis.aclose()
        listener.close()
        gc.collect()

    run(main())


def test_a_server_that_talks_nonsense(run):
    async def main():
        async def nonsense(reader, writer):
            await reader.readline()
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await reader.read()
            writer.close()

        listener = await asyncio.start_server(nonsense, "127.0.0.1", 0)
        redis = Redis(host="127.0.0.1", port=listener.sockets[0].getsockname()[1], timeout=0.3)
        (answer,) = await outcomes([redis.ping()])
        assert isinstance(answer, Unavailable)
        await redis.aclose()
        listener.close()

    run(main())
