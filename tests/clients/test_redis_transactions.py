"""Pipelines and transactions of the redis client, and what a server can't do now."""

import asyncio

import pytest
from redis.asyncio import Redis as StockRedis
from redis.exceptions import ExecAbortError, ResponseError, WatchError

from backlore.clients.redis.client import Redis
from backlore.clients.redis.errors import NOT_NOW, NOT_TAKEN, Unready, parse_error
from backlore.clients.redis.script import Script
from tests.kit.outcomes import outcomes

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
