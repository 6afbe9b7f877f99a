"""The redis client against a real server: redis-py's word holds; no command is doubled or left hanging."""

import asyncio
import contextlib
import gc
import signal
import socket
import time

import pytest
import uvloop
from redis.asyncio import Redis as StockRedis
from redis.client import NEVER_DECODE
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    DataError,
    ExecAbortError,
    NoScriptError,
    RedisError,
    ResponseError,
    WatchError,
)

from backlore.clients.redis.address import Address
from backlore.clients.redis.client import Redis
from backlore.clients.redis.failures import Interrupted, Unavailable
from backlore.clients.redis.node import PART, Node
from backlore.clients.redis.refusals import NOT_NOW, NOT_TAKEN, Unready, parse_error
from backlore.clients.redis.script import Script
from tests.kit.engines import redis_engine

NEVER_HANGS = 3.0  # seconds


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


class Proxy:
    """A TCP server before the real one, that can cut a connection after so many bytes of replies."""

    def __init__(self, server):
        self.server, self.left, self.connections, self.writers, self.serving = server, None, 0, [], []

    async def __aenter__(self):
        self.listener = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.listener.close()
        for writer in self.writers:
            writer.close()
        await asyncio.gather(*self.serving)

    async def serve(self, reader, writer):
        self.connections += 1
        self.serving.append(asyncio.current_task())
        far_reader, far_writer = await asyncio.open_unix_connection(self.server.path)
        self.writers += [writer, far_writer]
        there = asyncio.create_task(self.pump(reader, far_writer, False))
        back = asyncio.create_task(self.pump(far_reader, writer, True))
        await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        writer.close()
        far_writer.close()
        await asyncio.wait([there, back])

    async def pump(self, reader, writer, replies):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if replies and self.left is not None:
                    data, self.left = data[: self.left], self.left - len(data)
                writer.write(data)
                if replies and self.left is not None and self.left <= 0:
                    self.left = None
                    await writer.drain()
                    return


async def outcomes(awaitables):
    return await asyncio.wait_for(asyncio.gather(*awaitables, return_exceptions=True), NEVER_HANGS)


async def until(attempt):
    """Try until it works."""
    deadline = time.monotonic() + NEVER_HANGS
    while True:
        try:
            return await attempt()
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


async def nobody_blocks(redis):
    if any("b" in client["flags"] for client in await redis.client_list()):
        raise ConnectionError("somebody blocks")


# redis-py's surface


async def every(iterator):
    return sorted([item async for item in iterator])


COMMANDS = [
    lambda r: r.set("s", "grün"),
    lambda r: r.set("s", "x", nx=True),
    lambda r: r.set("s", 1.5, get=True),
    lambda r: r.get("s"),
    lambda r: r.get("none"),
    lambda r: r.getrange("s", 0, 1),
    lambda r: r.append("s", "xyz"),
    lambda r: r.mset({"a": 1, "b": "2", "c": b"3"}),
    lambda r: r.mget("a", "b", "c", "none"),
    lambda r: r.incr("n", 5),
    lambda r: r.incrbyfloat("n", 0.5),
    lambda r: r.expire("n", 100),
    lambda r: r.ttl("n"),
    lambda r: r.exists("n", "s", "none"),
    lambda r: r.type("n"),
    lambda r: r.delete("n", "none"),
    lambda r: r.setbit("bits", 7, 1),
    lambda r: r.bitcount("bits"),
    lambda r: r.bitfield("field").set("u8", "#0", 200).incrby("u8", "#0", 10).get("u8", 0).execute(),
    lambda r: r.hset("h", mapping={"a": 1, "b": "ü"}),
    lambda r: r.hgetall("h"),
    lambda r: r.hgetall("none"),
    lambda r: r.hmget("h", "a", "none"),
    lambda r: r.hincrby("h", "a", 3),
    lambda r: r.hscan("h"),
    lambda r: every(r.hscan_iter("h")),
    lambda r: r.hrandfield("h", 2, withvalues=True),
    lambda r: r.sadd("set", 1, 2, 3),
    lambda r: r.smembers("set"),
    lambda r: r.sismember("set", 2),
    lambda r: r.smismember("set", 2, 9),
    lambda r: every(r.sscan_iter("set")),
    lambda r: r.zadd("z", {"a": 1, "b": 2.5, "c": 3}),
    lambda r: r.zadd("z", {"a": 1}, incr=True),
    lambda r: r.zrange("z", 0, -1, withscores=True),
    lambda r: r.zrangebyscore("z", 2, "+inf", withscores=True, score_cast_func=int),
    lambda r: r.zscore("z", "b"),
    lambda r: r.zmscore("z", ["a", "none"]),
    lambda r: r.zpopmin("z"),
    lambda r: every(r.zscan_iter("z")),
    lambda r: r.zrank("z", "c", withscore=True),
    lambda r: r.rpush("l", 1, 2, 3),
    lambda r: r.lrange("l", 0, -1),
    lambda r: r.lpop("l", 2),
    lambda r: r.lmpop(1, "l", direction="LEFT"),
    lambda r: r.xadd("x", {"f": "v"}, id="1-1"),
    lambda r: r.xadd("x", {"f": "w"}, id="1-2"),
    lambda r: r.xrange("x"),
    lambda r: r.xread({"x": "1-1"}),
    lambda r: r.xgroup_create("x", "g", id="0"),
    lambda r: r.xreadgroup("g", "me", {"x": ">"}, count=1),
    lambda r: r.xpending("x", "g"),
    lambda r: r.xack("x", "g", "1-1"),
    lambda r: r.xinfo_stream("x"),
    lambda r: r.xlen("x"),
    lambda r: r.geoadd("geo", [13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania"]),
    lambda r: r.geodist("geo", "Palermo", "Catania", "km"),
    lambda r: r.geopos("geo", "Palermo", "none"),
    lambda r: r.geosearch("geo", member="Palermo", radius=200, unit="km", withdist=True),
    lambda r: r.pfadd("hll", 1, 2, 3),
    lambda r: r.pfcount("hll"),
    lambda r: every(r.scan_iter("*", count=3)),
    lambda r: r.sort("set", desc=True),
    lambda r: r.eval("return {KEYS[1], ARGV[1], 7, {ok='fine'}}", 1, "k", "v"),
    lambda r: r.config_get("maxmemory*"),
    lambda r: r.object("encoding", "set"),
    lambda r: r.ping(),
    lambda r: r.echo("hello"),
    lambda r: r.dbsize(),
    lambda r: r.execute_command("get", "s"),
    lambda r: r.execute_command(b"GET", b"s"),
    lambda r: r.execute_command("CONFIG", "GET", "appendonly"),
    lambda r: r.execute_command("SCRIPT", "EXISTS", "abc"),
    lambda r: r.script_exists("abc"),
    lambda r: r.set("bytes", b"\xff\x00\xfe"),
    lambda r: r.get("bytes"),
    lambda r: r.set("bool", True),
    lambda r: r.lpush("s", 1),
    lambda r: r.execute_command("NOSUCH", 1),
    lambda r: r.dump("s"),
    lambda r: r.slowlog_reset(),
]


async def results(redis):
    found = []
    for command in COMMANDS:
        try:
            found.append(await command(redis))
        except Exception as error:
            found.append((type(error), str(error) if isinstance(error, ResponseError) else ""))
    return found


def test_every_command_answers_as_redis_py_does(server, run):
    async def main():
        stock = StockRedis(
            unix_socket_path=server.path, decode_responses=True, protocol=3, encoding_errors="surrogateescape"
        )
        expected = await results(stock)
        await stock.flushall()
        redis = Redis(unix_socket_path=server.path)
        got = await results(redis)
        await redis.aclose()
        await stock.aclose()
        for command, ours, theirs in zip(COMMANDS, got, expected, strict=True):
            assert ours == theirs, f"COMMANDS, line {command.__code__.co_firstlineno}"

    run(main())


def test_url_forms(server, run):
    async def main():
        for url in (f"unix://{server.path}?db=2", f"redis://127.0.0.1:{server.port}/2"):
            async with Redis.from_url(url) as redis:
                assert await redis.incr("from_url")
        async with Redis(host="127.0.0.1", port=server.port, db=2) as redis:
            assert await redis.get("from_url") == "2"
        async with Redis(unix_socket_path=server.path) as redis:
            assert await redis.get("from_url") is None

    run(main())


def test_used_again_after_closing_and_on_another_loop(server):
    redis = Redis(unix_socket_path=server.path)

    async def main():
        value = await redis.incr("n")
        await redis.aclose()
        return value

    assert [asyncio.run(main()), uvloop.run(main()), asyncio.run(main())] == [1, 2, 3]


def test_a_thousand_at_once_keep_their_order(server, run):
    async def main():
        async with Redis(unix_socket_path=server.path) as redis:
            assert await asyncio.gather(*(redis.incr("n") for _ in range(1000))) == list(range(1, 1001))
            echoes = await asyncio.gather(*(redis.echo(f"{i}") for i in range(1000)))
            assert echoes == [str(i) for i in range(1000)]

    run(main())


def test_one_turn_is_one_write_or_a_few(server, run):
    async def main():
        node = Node(Address(path=server.path))
        await node.send(("PING",))
        writes, write = [], node._link.transport.write

        class Recorder:
            def __getattr__(self, name):
                return getattr(transport, name)

            def write(self, data):
                writes.append(data)
                write(data)

        transport, node._link.transport = node._link.transport, Recorder()
        await asyncio.gather(*(node.send(("ECHO", i)) for i in range(PART)))
        assert len(writes) == 1
        many = await asyncio.gather(*(node.send(("ECHO", i)) for i in range(3 * PART + 1)))
        assert (len(writes), many) == (1 + 4, [str(i) for i in range(3 * PART + 1)])
        await asyncio.gather(*node.send_many([(("ECHO", i), None, None, True) for i in range(3 * PART)]))
        assert len(writes) == 1 + 4 + 1
        await node.close()

    run(main())


def test_bytes_when_asked(server, run):
    async def main():
        async with Redis(unix_socket_path=server.path) as redis:
            await redis.set("b", b"\xff\xfe")
            both = redis.get("b"), redis.execute_command("GET", "b", **{NEVER_DECODE: []}), redis.get("b")
            assert await asyncio.gather(*both) == ["\udcff\udcfe", b"\xff\xfe", "\udcff\udcfe"]
            await redis.set("c", await redis.get("b"))
            assert await redis.execute_command("GET", "c", **{NEVER_DECODE: []}) == b"\xff\xfe"
            await redis.mset({"view": memoryview(b"abc"), "array": bytearray(b"abc")})
            assert await redis.mget("view", "array") == ["abc", "abc"]
            dumped = await redis.dump("b")
            assert isinstance(dumped, bytes)
            await redis.restore("d", 0, dumped)
            assert await redis.get("d") == "\udcff\udcfe"

    run(main())


def test_ten_megabytes(server, run):
    async def main():
        async with Redis(unix_socket_path=server.path, timeout=NEVER_HANGS) as redis:
            value = "0123456789" * 1_000_000
            answers = await asyncio.gather(redis.set("big", value), redis.get("big"), redis.strlen("big"))
            assert answers == [True, value, 10_000_000]

    run(main())


def test_what_cannot_be_sent(server, run):
    async def main():
        async with Redis(unix_socket_path=server.path) as redis:
            for wrong in (None, True, object(), [1], {}):
                with pytest.raises(DataError):
                    await redis.set("k", wrong)
            pipe = redis.pipeline().set("good", 1).set("bad", object())
            with pytest.raises(DataError):
                await pipe.execute()
            assert await redis.exists("k", "good", "bad") == 0

    run(main())


def test_callbacks(server, run):
    async def main():
        async with Redis(unix_socket_path=server.path) as redis:
            await redis.set("k", "v")
            redis.set_response_callback("GET", lambda reply, **_: f"<{reply}>")
            assert await redis.get("k") == "<v>"

            async def later(reply, **_):
                await asyncio.sleep(0)
                return reply * 2

            redis.set_response_callback("GET", later)
            assert await redis.get("k") == "vv"
            assert await redis.pipeline().get("k").execute() == ["vv"]
            assert await redis.pipeline(transaction=False).get("k").execute() == ["vv"]

            def broken(reply, **_):
                raise StopIteration if reply == "v" else ZeroDivisionError

            redis.set_response_callback("GET", broken)
            first, second, third = await outcomes([redis.get("k"), redis.get("none"), redis.echo("after")])
            assert (type(first), type(second), third) == (RuntimeError, ZeroDivisionError, "after")

    run(main())


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


# Pipelines and transactions


@pytest.mark.parametrize("transaction", [True, False])
def test_pipelines_answer_as_redis_py_does(server, run, transaction):
    async def main():
        stock = StockRedis(unix_socket_path=server.path, decode_responses=True, protocol=3)
        seen = []
        for redis in (stock, Redis(unix_socket_path=server.path)):
            await redis.flushall()
            pipe = redis.pipeline(transaction=transaction)
            pipe.set("s", 1).lpush("s", 1).hset("h", mapping={"a": 1}).hgetall("h").zadd("z", {"a": 1})
            pipe.zrange("z", 0, -1, withscores=True).config_get("maxmemory").get("none")
            assert len(pipe) == 8
            answers = await pipe.execute(raise_on_error=False)
            assert len(pipe) == 0
            with pytest.raises(ResponseError) as caught:
                await redis.pipeline(transaction=transaction).incr("n").lpush("s", 1).incr("n").execute()
            assert isinstance(answers[1], ResponseError)
            answers[1] = str(answers[1])
            seen.append((answers, str(caught.value), await redis.get("n"), await pipe.execute()))
            await redis.aclose()
        assert seen[0] == seen[1]

    run(main())


def test_a_transaction_that_is_refused_does_nothing(server, run):
    async def main():
        stock = StockRedis(unix_socket_path=server.path, decode_responses=True, protocol=3)
        texts = []
        for redis in (stock, Redis(unix_socket_path=server.path)):
            with pytest.raises(ResponseError) as caught:
                await redis.pipeline().set("k", 1).execute_command("NOSUCH").execute()
            assert isinstance(caught.value.__cause__, ExecAbortError)
            assert await redis.get("k") is None
            texts.append(str(caught.value))
            await redis.aclose()
        assert texts[0] == texts[1]

    run(main())


def test_transactions_of_many_tasks_do_not_mix(server, run):
    async def main():
        async with Redis(unix_socket_path=server.path) as redis:

            async def move(i):
                for _ in range(20):
                    a, b = await redis.pipeline().incr("a").decr("b").execute()
                    assert a == -b
                    await redis.set(f"noise{i}", a)

            await asyncio.gather(*(move(i) for i in range(20)))
            assert await redis.mget("a", "b") == ["400", "-400"]

    run(main())


def test_watch(server, run):
    async def main():
        async with Redis(unix_socket_path=server.path) as redis:
            await redis.set("k", 1)
            async with redis.pipeline() as pipe:
                await pipe.watch("k")
                value = int(await pipe.get("k"))
                await redis.set("k", 10)
                pipe.multi()
                pipe.set("k", value + 1)
                with pytest.raises(WatchError):
                    await pipe.execute()
            assert await redis.get("k") == "10"

            async def add(pipe):
                value = int(await pipe.get("k"))
                pipe.multi()
                pipe.set("k", value + 1)

            await asyncio.gather(*(redis.transaction(add, "k") for _ in range(10)))
            assert await redis.get("k") == "20"

    run(main())


def test_scripts_and_locks(server, run):
    async def main():
        async with Redis(unix_socket_path=server.path) as redis:
            script = redis.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
            assert await script(keys=["n"], args=[2]) == 2
            await redis.script_flush()
            with pytest.raises(NoScriptError):
                await redis.evalsha(script.sha, 1, "n", 1)
            assert await script(keys=["n"], args=[2]) == 4
            await redis.script_flush()
            pipe = redis.pipeline()
            await script(keys=["n"], args=[2], client=pipe)
            pipe.get("n")
            assert await pipe.execute() == [6, "6"]
            async with redis.lock("lock", timeout=10) as lock:
                assert await lock.owned() and await lock.extend(10)
                assert not await redis.lock("lock").acquire(blocking=False)
            assert await redis.lock("lock", timeout=1).acquire(blocking=False)

    run(main())


def test_functions(server, run):
    async def main():
        async with Redis(unix_socket_path=server.path) as redis:
            code = "redis.register_function('twice', function(keys, args) return args[1] * 2 end)"
            assert await redis.function_load(f"#!lua name=lib\n{code}") == "lib"
            assert await redis.fcall("twice", 0, 21) == 42
            assert [library["library_name"] for library in await redis.function_list()] == ["lib"]
            assert isinstance(await redis.function_dump(), bytes)

    run(main())


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


# What a server can't do now


UNREADY = [  # what brings a server there, what its errors begin with
    (("CONFIG", "SET", "min-replicas-to-write", 1), "NOREPLICAS"),
    (("CONFIG", "SET", "maxmemory", 1), "OOM"),
    (("REPLICAOF", "127.0.0.1", 1), "READONLY"),
    (None, "BUSY"),
]


async def watched(redis):
    async with redis.pipeline() as pipe:
        await pipe.watch("k")
        pipe.multi()
        await pipe.set("k", "v").execute()


async def collected(redis, prepare):
    """A transaction that the server took, and then could not carry out."""
    async with redis.client() as own:
        await own.execute_command("MULTI")
        await own.execute_command("SET", "k", "v")
        await prepare()
        await own.execute_command("EXEC")


WRITES = [
    lambda r: r.set("k", "v"),
    lambda r: r.pipeline().set("k", "v").execute(),
    lambda r: r.pipeline(transaction=False).set("k", "v").execute(),
    lambda r: r.pipeline(transaction=False).set("k", "v").blpop("none", 0.01).execute(),
    lambda r: r.eval("return redis.call('SET', KEYS[1], 'v')", 1, "k"),
    lambda r: Script("return redis.call('SET', KEYS[1], 'w')")(r, ["k"]),
    lambda r: r.pipeline().eval("return redis.call('SET', KEYS[1], 'v')", 1, "k").execute(),
    lambda r: r.blmove("k", "l", 0.01),
    watched,
]


@pytest.mark.parametrize(("words", "code"), UNREADY, ids=[code for _, code in UNREADY])
def test_not_now_is_told_from_never(mortal, run, words, code):
    """A handler that writes then gets 503, by whatever way it writes; what is wrong with the command stays its own."""

    async def main():
        redis = Redis(unix_socket_path=mortal.path, timeout=2)
        await redis.config_set("busy-reply-threshold", 10)

        async def prepare():
            if words:
                await redis.execute_command(*words)
                return
            own.append(await asyncio.open_unix_connection(mortal.path))
            own[0][1].write(b'EVAL "while true do end" 0\r\n')
            while not isinstance((await outcomes([redis.get("k")]))[0], Unready):
                await asyncio.sleep(0.01)

        own = []
        (aborted,) = await outcomes([collected(redis, prepare)])
        assert isinstance(aborted, NOT_NOW) and isinstance(aborted, ResponseError), aborted
        for write in WRITES:
            (answer,) = await outcomes([write(redis)])
            assert isinstance(answer, NOT_TAKEN), (write.__code__.co_firstlineno, answer)
            if type(answer) is Unready:
                assert code in str(answer)
        mortal.kill()
        for _, writer in own:
            writer.close()
        await redis.aclose()

    run(main())


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("NOREPLICAS Not enough good replicas to write. script: on @user_script:1.", False),
        ("MISCONF Errors writing to the AOF file: No space left on device", False),
        ("CLUSTERDOWN Hash slot not served", False),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", False),
        ("TRYAGAIN Multiple keys request during rehashing of slot", False),
        ("MOVED 3999 127.0.0.1:6381", False),
        ("UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)", False),
        ("LOADING Redis is loading the dataset in memory", False),
        # of 6.2
        ("ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -READONLY You can't write", False),
        ("ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -NOREPLICAS Not enough", False),
        ("ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -WRONGTYPE Operation", True),
        ("ERR unknown command 'BUSY', with args beginning with: 'NOREPLICAS ' ", True),
        ("BUSYGROUP Consumer Group name already exists", True),
        ("BUSYKEY Target key name already exists.", True),
        ("CROSSSLOT Keys in request don't hash to the same slot", True),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", True),
        ("NOPERM User x has no permissions to run the 'set' command", True),
    ],
)
def test_which_errors_pass(text, ours):
    assert isinstance(parse_error(text), NOT_TAKEN) is not ours


# When things break


def test_a_cancelled_task_does_not_shift_replies(server, run):
    async def main():
        async with Redis(unix_socket_path=server.path) as redis:
            await redis.ping()
            for round in range(20):

                async def ask(i):
                    return await redis.echo(f"{i}")

                tasks = [asyncio.create_task(ask(i)) for i in range(100)]
                for _ in range(round % 4):
                    await asyncio.sleep(0)
                for task in tasks[::3]:
                    task.cancel()
                answers = await outcomes(tasks)
                assert all(answers[i] == str(i) for i in range(100) if i % 3)
                assert any(isinstance(answer, asyncio.CancelledError) for answer in answers)

    run(main())


def test_a_cancelled_pipeline_is_whole(server, run):
    async def main():
        async with Redis(unix_socket_path=server.path) as redis:
            await redis.ping()
            for steps in range(6):
                task = asyncio.create_task(redis.pipeline().incr("a").incr("b").execute())
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                await outcomes([task])
                a, b = await redis.mget("a", "b")
                assert a == b
                assert await redis.echo("after") == "after"

    run(main())


def test_killed_in_flight_then_restarted(mortal, run):
    async def main():
        said = []
        redis = Redis(unix_socket_path=mortal.path, notify=lambda level, event, **_: said.append(event))
        await redis.ping()
        mortal.signal(signal.SIGSTOP)
        futures = [redis.incr("n") for _ in range(100)]
        await asyncio.sleep(0.05)
        mortal.kill()
        answers = await outcomes(futures)
        assert all(isinstance(answer, Interrupted) for answer in answers), answers[0]
        (refused,) = await outcomes([redis.incr("n")])
        assert isinstance(refused, Unavailable)
        assert said == ["redis.lost"]
        mortal.start()
        assert await until(lambda: redis.incr("n")) == 1
        assert said == ["redis.lost", "redis.back"]
        await redis.aclose()

    run(main())


def test_a_stopped_server_then_recovery(mortal, run):
    async def main():
        redis = Redis(unix_socket_path=mortal.path, timeout=0.4)
        await redis.set("k", "v")
        mortal.signal(signal.SIGSTOP)
        link = redis.node._link
        sent = [redis.get("k") for _ in range(10)]
        for _ in range(12):  # through the stall, the abort and the attempts to reconnect
            answers = await outcomes([redis.incr("n"), redis.pipeline().incr("m").execute()])
            assert all(isinstance(answer, Interrupted | Unavailable) for answer in answers), answers
        assert all(isinstance(answer, Interrupted) for answer in await outcomes(sent))
        assert redis.node._link is not link, "a silent connection is given up"
        mortal.signal(signal.SIGCONT)
        assert await until(lambda: redis.get("k")) == "v"
        await redis.aclose()

    run(main())


def test_a_blocking_command_on_a_stopped_server(mortal, run):
    async def main():
        redis = Redis(unix_socket_path=mortal.path, timeout=0.3)
        assert await redis.blpop("queue", timeout=0.01) is None
        mortal.signal(signal.SIGSTOP)
        (answer,) = await outcomes([redis.blpop("queue", timeout=0.1)])
        assert isinstance(answer, Interrupted)
        mortal.signal(signal.SIGCONT)
        await until(lambda: redis.rpush("queue", 1))
        assert await redis.blpop("queue", timeout=0.1) == ["queue", "1"]
        await redis.aclose()

    run(main())


def test_a_loop_that_stood_still_blames_nobody(server, run):
    async def main():
        async with Redis(unix_socket_path=server.path, timeout=0.3) as redis:
            await redis.set("k", "v")
            sent = asyncio.ensure_future(redis.get("k"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            time.sleep(1)  # noqa: ASYNC251  # some handler that doesn't know better
            assert await sent == "v"
            await asyncio.sleep(0.3)  # the watchdog sleeps
            unsent = redis.get("k")
            time.sleep(1)  # noqa: ASYNC251
            assert await unsent == "v"

    run(main())


def test_a_machine_that_stood_still_blames_nobody(mortal, run):
    """The loop and the server stop together, and the server comes back a little later."""

    async def main():
        redis = Redis(unix_socket_path=mortal.path, timeout=2)
        await redis.set("k", "v")
        mortal.signal(signal.SIGSTOP)
        sent = redis.get("k")
        await asyncio.sleep(0.2)  # the watchdog looks
        time.sleep(3)  # noqa: ASYNC251
        unsent = redis.get("k")
        await asyncio.sleep(0.3)
        mortal.signal(signal.SIGCONT)
        assert await outcomes([sent, unsent]) == ["v", "v"]
        await redis.aclose()

    run(main())


def test_a_short_stop_costs_nothing(mortal, run):
    async def main():
        redis = Redis(unix_socket_path=mortal.path, timeout=2)
        await redis.ping()
        mortal.signal(signal.SIGSTOP)
        futures = [redis.incr("n") for _ in range(10)]
        await asyncio.sleep(0.2)
        mortal.signal(signal.SIGCONT)
        assert await outcomes(futures) == list(range(1, 11))
        await redis.aclose()

    run(main())


def test_late_replies_keep_their_order(mortal, run):
    """Longer than `timeout`, shorter than what aborts the connection."""

    async def main():
        redis = Redis(unix_socket_path=mortal.path, timeout=0.6)
        await redis.ping()
        link = redis.node._link
        mortal.signal(signal.SIGSTOP)
        late = await outcomes([redis.echo(f"late{i}") for i in range(10)])
        assert all(isinstance(answer, Interrupted) for answer in late)
        (held,) = await outcomes([redis.incr("held")])
        assert isinstance(held, Unavailable), "nothing is sent into a stall"
        mortal.signal(signal.SIGCONT)
        assert await until(lambda: redis.echo("new")) == "new"
        assert await outcomes([redis.echo(f"{i}") for i in range(100)]) == [str(i) for i in range(100)]
        assert redis.node._link is link
        assert await redis.get("held") is None
        await redis.aclose()

    run(main())


@pytest.mark.parametrize("cut", [1, 5, 12, 40, 63])
def test_cut_in_the_middle_of_a_reply(server, run, cut):
    async def main():
        async with Proxy(server) as proxy:
            redis = Redis(host="127.0.0.1", port=proxy.port)
            await redis.set("k", "v" * 20)
            proxy.left = cut
            answers = await outcomes([redis.get("k") for _ in range(3)])
            whole = [answer for answer in answers if answer == "v" * 20]
            broken = [answer for answer in answers if isinstance(answer, Interrupted)]
            assert len(whole) == cut // 27 and len(whole) + len(broken) == 3
            assert await redis.get("k") == "v" * 20
            assert proxy.connections == 2
            await redis.aclose()

    run(main())


def test_unsent_commands_survive_a_reconnect(mortal, run):
    async def main():
        redis = Redis(unix_socket_path=mortal.path, timeout=10)
        await redis.ping()
        mortal.kill()
        await asyncio.sleep(0.1)  # it knows
        futures = [redis.incr("n") for _ in range(10)]
        batch = asyncio.create_task(redis.pipeline().get("n").incr("n").execute())
        await asyncio.sleep(0.1)
        assert not any(future.done() for future in futures)
        mortal.start()
        assert await outcomes(futures) == list(range(1, 11))
        assert await batch == ["10", 11]
        await redis.aclose()

    run(main())


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


def test_counters_agree_with_what_was_acknowledged(mortal, run):
    """acknowledged <= value <= acknowledged + interrupted, through kills of the connection and stops."""

    async def main():
        redis = Redis(unix_socket_path=mortal.path, timeout=0.3)
        killer = StockRedis(unix_socket_path=mortal.path)
        count = {"acknowledged": 0, "interrupted": 0, "unavailable": 0}
        done = False

        async def work():
            while not done:
                try:
                    await redis.incr("n")
                    count["acknowledged"] += 1
                except Interrupted:
                    count["interrupted"] += 1
                except Unavailable:
                    count["unavailable"] += 1

        tasks = [asyncio.create_task(work()) for _ in range(16)]
        for round in range(12):
            await asyncio.sleep(0.15)
            if round % 4 == 3:
                mortal.signal(signal.SIGSTOP)
                await asyncio.sleep(0.5)
                mortal.signal(signal.SIGCONT)
            else:
                await killer.client_kill_filter(_type="normal", skipme=True)
        done = True
        await outcomes(tasks)
        value = int(await until(lambda: redis.get("n")))
        assert count["acknowledged"] <= value <= count["acknowledged"] + count["interrupted"], (value, count)
        assert count["acknowledged"] > 100 and count["interrupted"] > 0
        await redis.aclose()
        await killer.aclose()

    run(main())


def test_close_waits_for_what_is_under_way(server, run):
    async def main():
        redis = Redis(unix_socket_path=server.path)
        futures = [redis.incr("n") for _ in range(10)]
        await redis.aclose()
        assert [future.result() for future in futures] == list(range(1, 11))

    run(main())
