"""The redis client against a real server: its commands, scripts and locks answer as redis-py's do."""

import asyncio

import pytest
import uvloop
from redis.asyncio import Redis as StockRedis
from redis.client import NEVER_DECODE
from redis.exceptions import DataError, NoScriptError, ResponseError

from backlore.clients.redis.address import Address
from backlore.clients.redis.client import Redis
from backlore.clients.redis.node import PART, Node
from tests.kit.outcomes import NEVER_HANGS, outcomes


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
