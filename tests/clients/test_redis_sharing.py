"""One connection for all: what would change or block it is refused, or gets one of its own."""

import asyncio
import signal

import pytest
from redis.exceptions import DataError, RedisError

from backlore.clients.redis.client import Redis
from tests.kit.engines import redis_engine
from tests.kit.outcomes import NEVER_HANGS, nobody_blocks, outcomes, until

CHANGES = [
    *[
        ("SELECT", 1),
        ("SELECT 1",),
        ("select\t1",),
        (memoryview(b"SELECT"), 1),
        ("AUTH", "x"),
        ("HELLO", 2),
        ("RESET",),
    ],
    *[("QUIT",), ("MULTI",), ("EXEC",), ("DISCARD",), ("watch", "k"), (" WATCH k",), ("UNWATCH",), ("MONITOR",)],
    *[(b"SUBSCRIBE", "c"), ("PSUBSCRIBE", "c"), ("ssubscribe", "c"), ("UNSUBSCRIBE",), ("PSYNC", "?", -1), ("SYNC",)],
    *[("REPLCONF", "ACK", 0), ("READONLY",), ("READWRITE",), ("ASKING",), ("SCRIPT", "DEBUG", "YES")],
    *[("CLIENT", "REPLY", "OFF"), ("CLIENT REPLY OFF",), ("client", b"tracking", "ON"), ("CLIENT CACHING", "YES")],
    *[("CLIENT", "SETNAME", "x"), ("CLIENT", "SETINFO", "lib-name", "x"), ("CLIENT", "NO-EVICT", "ON")],
    *[("CLIENT", "NO-TOUCH", "ON"), ("CLIENT", "CAPA", "redirect"), ("CLIENT", "IMPORT-SOURCE", "ON")],
    ("CLIENT", "OF-A-SERVER-TO-COME"),
]


def test_what_would_change_a_connection_is_refused(server, run):
    """Alone, and in each kind of pipeline: of those some have a connection that goes back to the pool."""

    async def main():
        async with Redis(unix_socket_path=server.path) as redis:
            for words in CHANGES:
                with pytest.raises(RedisError, match=r"client\(\)"):
                    await redis.execute_command(*words)
                for pipe in (redis.pipeline(), redis.pipeline(transaction=False)):
                    with pytest.raises(RedisError, match=r"client\(\)"):
                        pipe.execute_command(*words)
                if words == ("UNWATCH",):
                    continue  # a pipeline's own, once it watches
                async with redis.pipeline() as pipe:
                    await pipe.watch("k")
                    with pytest.raises(RedisError, match=r"client\(\)"):
                        await pipe.execute_command(*words)
                    pipe.multi()
                    with pytest.raises(RedisError, match=r"client\(\)"):
                        pipe.execute_command(*words)
                    await pipe.set("k", "v").execute()
            assert await redis.get("k") == "v" and await redis.client_getname() == "backlore"
            assert await redis.rpush("queue", "here") == 1
            assert await redis.blpop("queue", timeout=1) == ["queue", "here"]  # on the connection of the pool

    run(main())


def test_a_connection_of_ones_own(server, run):
    async def main():
        async with Redis(unix_socket_path=server.path) as redis:
            async with redis.client() as own:
                await own.execute_command("SELECT", 1)
                await own.set("only", "here")
            assert await redis.get("only") is None
            async with redis.client() as own:
                assert await own.get("only") is None

    run(main())


def test_a_command_without_a_name_is_refused(server, run):
    """It would get no reply, and the next one's be taken for it."""

    async def main():
        async with Redis(unix_socket_path=server.path) as redis:
            for name in ("", "  ", b"", b"\t"):
                with pytest.raises(DataError):
                    await redis.execute_command(name)
                for transaction in (True, False):
                    with pytest.raises(DataError):
                        await redis.pipeline(transaction).set("k", "v").execute_command(name).execute()
            assert await outcomes([redis.echo("a"), redis.echo("b")]) == ["a", "b"]

    run(main())


def test_watch_outside_of_a_transaction_is_refused(server, run):
    async def main():
        async with Redis(unix_socket_path=server.path) as redis:
            for name in ("watch", "unwatch"):
                with pytest.raises(RedisError, match=r"pipeline\(\)"):
                    await getattr(redis, name)()

    run(main())


@pytest.mark.parametrize("words", [("WAIT", 1, 100), ("WAIT 1 100",), (b"waitaof", 0, 1, 100)])
def test_waiting_where_it_would_wait_for_nothing_is_refused(server, run, words):
    async def main():
        async with Redis(unix_socket_path=server.path) as redis:
            with pytest.raises(RedisError, match=r"pipeline\(transaction=False\)"):
                await redis.execute_command(*words)
            with pytest.raises(RedisError, match=r"pipeline\(transaction=False\)"):
                redis.pipeline().set("k", "v").execute_command(*words)
            async with redis.pipeline() as pipe:
                await pipe.watch("k")
                pipe.multi()
                with pytest.raises(RedisError, match=r"pipeline\(transaction=False\)"):
                    pipe.execute_command(*words)

    run(main())


def test_waiting_for_replicas(mortal, run):
    """WAIT tells whether the writes before it have reached a replica, and keeps nobody else waiting."""

    async def main(replica):
        patient = Redis(unix_socket_path=mortal.path, timeout=20)
        async with patient as redis, Redis(unix_socket_path=replica.path) as copy:
            await copy.replicaof("127.0.0.1", mortal.port)
            while (await redis.info("replication")).get("slave0", {}).get("state") != "online":
                await asyncio.sleep(0.05)
            assert await redis.pipeline(transaction=False).set("k", 1).wait(1, 15_000).execute() == [True, 1]
            assert await copy.get("k") == "1"
            replica.signal(signal.SIGSTOP)
            waiting = asyncio.create_task(redis.pipeline(transaction=False).set("k", 2).wait(1, 500).execute())
            while await redis.get("k") != "2":  # the others go on
                await asyncio.sleep(0.01)
            assert not waiting.done()
            assert await waiting == [True, 0]
            replica.signal(signal.SIGCONT)
            async with redis.client() as own:
                await own.set("k", 3)
                assert await own.wait(1, 15_000) == 1
            assert await copy.get("k") == "3"

    with redis_engine() as replica:
        run(main(replica))


def test_waiting_for_the_file(run):
    async def main(server):
        async with Redis(unix_socket_path=server.path, timeout=20) as redis:
            pipe = redis.pipeline(transaction=False).set("k", 1).waitaof(1, 0, 15_000)
            assert await pipe.execute() == [True, [1, 0]]

    with redis_engine("--appendonly", "yes") as server:
        run(main(server))


# What can't share a connection


@pytest.mark.parametrize("kind", ["unix", "redis"])
def test_publish_and_subscribe(server, run, kind):
    url = f"unix://{server.path}" if kind == "unix" else f"redis://127.0.0.1:{server.port}"

    async def main():
        async with Redis(url) as redis, redis.pubsub() as pubsub:
            await pubsub.subscribe("news")
            await pubsub.psubscribe("n*s")
            got = {}
            for _ in range(2):
                assert (await pubsub.get_message(timeout=NEVER_HANGS))["type"].endswith("subscribe")
            assert await redis.publish("news", "hello") == 2
            async with asyncio.timeout(NEVER_HANGS):
                async for message in pubsub.listen():
                    got[message["type"]] = message["data"]
                    if {"message", "pmessage"} <= set(got):
                        break
            assert got["message"] == got["pmessage"] == "hello"

    run(main())


def test_a_blocking_command_blocks_nobody(server, run):
    async def main():
        async with Redis(unix_socket_path=server.path, timeout=0.3) as redis:
            waiting = asyncio.ensure_future(redis.blpop("queue", timeout=0))
            stream = asyncio.ensure_future(redis.xread({"stream": "$"}, block=5000))
            for _ in range(10):  # longer than `timeout`, which isn't theirs
                assert await redis.ping()
                await asyncio.sleep(0.05)
            assert not waiting.done() and not stream.done()
            await redis.pipeline().rpush("queue", "item").xadd("stream", {"a": 1}, id="5-5").execute()
            assert await asyncio.wait_for(waiting, NEVER_HANGS) == ["queue", "item"]
            assert await asyncio.wait_for(stream, NEVER_HANGS) == {"stream": [[("5-5", {"a": "1"})]]}
            assert await redis.blpop("queue", timeout=0.05) is None
            assert await redis.pipeline().blpop("queue", timeout=1).ping().execute() == [None, True]
            pipe = redis.pipeline(transaction=False).blpop("queue", timeout=0.1).ping()
            waiting = asyncio.create_task(pipe.execute())
            await asyncio.sleep(0.02)
            assert await redis.ping() and not waiting.done()
            assert await waiting == [None, True]

    run(main())


def test_a_cancelled_blocking_command_takes_nothing_later(server, run):
    async def main():
        async with Redis(unix_socket_path=server.path) as redis:
            waiting = asyncio.ensure_future(redis.blpop("queue", timeout=0))
            await asyncio.sleep(0.05)
            waiting.cancel()
            await outcomes([waiting])
            await until(lambda: nobody_blocks(redis))
            await redis.rpush("queue", 1)
            assert await redis.blpop("queue", timeout=0.5) == ["queue", "1"]

    run(main())
