"""Periodic tasks and leases with a real redis: they are restarted, doubled, killed, and their nodes' clocks differ."""

import asyncio
import signal
import subprocess
import sys
from functools import partial

import pytest
import uvloop
from redis.exceptions import ConnectionError

from backlore.clients.redis import lease as leases
from backlore.clients.redis.client import Redis
from backlore.clients.redis.errors import Unready
from backlore.clients.redis.lease import LeaseLost, lease
from backlore.core.keys import key
from backlore.core.notify import Notify
from backlore.services import tasks as service
from backlore.services.tasks import Tasks, supervise

LONG = 30.0  # seconds in which anything here must have happened
HOUR = 3600


@pytest.fixture
def told():
    return []


@pytest.fixture
def run(engine, told):
    """Runs an async function with a client of an empty redis, and gives what it returns."""

    def run(function):
        async def main():
            redis = Redis(unix_socket_path=engine.path, timeout=2.0)
            try:
                await redis.flushall()
                async with asyncio.timeout(LONG):
                    return await function(redis)
            finally:
                await redis.aclose()

        return uvloop.run(main())

    return run


class Node:
    """The tasks of one node, with the others' redis. `runs` has the names of what has run."""

    def __init__(self, redis, told, name="node"):
        self.tasks = Tasks(redis, Notify(told.append), name)
        self.runs = []
        self.changed = asyncio.Event()

    def every(self, seconds, name, each=False):
        async def work():
            self.runs.append(name)
            self.changed.set()

        self.tasks.add(seconds, work, each, name)

    async def until(self, name, times=1):
        """Until a task has run so often, from its start on; then the node is stopped."""
        running = asyncio.create_task(self.tasks.run())
        while self.runs.count(name) < times:
            self.changed.clear()
            await self.changed.wait()
        running.cancel()
        await asyncio.wait([running])


def test_a_daily_task_runs_with_a_restart_each_hour(run, told):
    """At once when it never has; then a day after it began, whatever is restarted."""
    ran = []

    async def work(redis):
        for _ in range(50):
            node = Node(redis, told)
            node.every(24 * HOUR, "daily")
            node.every(HOUR / 2, "often")
            await node.until("often")
            ran.append("daily" in node.runs)
            for name in ("daily", "often"):
                await redis.hincrby(key("task", name), "last", -HOUR * 1_000_000)

    run(work)
    assert [hour for hour, did in enumerate(ran) if did] == [0, 24, 48]


def test_each_node_runs_its_own(run, told):
    async def work(redis):
        for name in ("one", "two", "one", "two"):
            node = Node(redis, told, name)
            node.every(HOUR, "each", each=True)
            node.every(HOUR, "all")
            node.every(0.001, "often")
            await node.until("often", 5)
            runs.append([each for each in node.runs if each != "often"])

    runs = []
    run(work)
    assert [sorted(each) for each in runs] == [["all", "each"], ["each"], [], []]


def test_never_twice_at_once(run, told, monkeypatch):
    """It takes longer than its period, and longer than a lease lasts; another node waits for it."""
    monkeypatch.setattr(leases, "LASTS", 2.0)
    monkeypatch.setattr(service, "HELD", 0.01)
    under_way, most, ends = 0, 0, asyncio.Event()

    async def work(redis):
        async def slow():
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(5)
            under_way -= 1
            ends.set()

        nodes = [Node(redis, told, name) for name in ("one", "two")]
        for each in nodes:
            each.tasks.add(0.1, slow, False, "slow")
        running = [asyncio.create_task(each.tasks.run()) for each in nodes]
        for _ in range(3):
            ends.clear()
            await ends.wait()
        for each in running:
            each.cancel()
        await asyncio.wait(running)

    run(work)
    assert most == 1 and not told


KILLED = """
import asyncio, sys
from backlore.clients.redis.client import Redis
from backlore.core.notify import Notify
from backlore.services.tasks import Tasks
async def work():
    print("began", flush=True)
    await asyncio.sleep(1000)
async def main():
    tasks = Tasks(Redis(unix_socket_path=sys.argv[1]), Notify(), "other")
    tasks.add(86400, work, False, "daily")
    await tasks.run()
asyncio.run(main())
"""


def test_of_a_killed_process_it_is_due_again_soon(run, told, engine):
    """Once its lease has ended, by itself, though its period has not."""

    async def work(redis):
        command = [sys.executable, "-c", KILLED, engine.path]
        other = await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.PIPE)
        assert await asyncio.to_thread(other.stdout.readline) == b"began\n"
        other.send_signal(signal.SIGKILL)
        await asyncio.to_thread(other.wait)
        node = Node(redis, told)
        node.every(24 * HOUR, "daily")
        await node.until("daily")

    run(work)
    assert leases.LASTS + service.HELD < 30


def test_of_one_that_ended_in_order_it_is_due_at_once(run, told, monkeypatch):
    monkeypatch.setattr(service, "HELD", LONG)  # so that nobody comes who found it taken

    async def work(redis):
        began = asyncio.Event()

        async def slow():
            began.set()
            await asyncio.sleep(1000)

        node = Node(redis, told)
        node.tasks.add(HOUR, slow, False, "daily")
        running = asyncio.create_task(node.tasks.run())
        await began.wait()
        running.cancel()
        await asyncio.wait([running])
        node = Node(redis, told)
        node.every(HOUR, "daily")
        await node.until("daily")

    run(work)


async def send_digest():
    pass


NAMES = [
    ([(send_digest, ""), (send_digest, "")], "two tasks are named"),
    ([(send_digest, "digest"), (partial(send_digest), "digest")], "two tasks are named"),
    ([(partial(send_digest), "")], "has no name"),
    ([(lambda: send_digest(), "")], "has no name"),
    ([(partial(send_digest), "a"), (lambda: send_digest(), "b"), (send_digest, "")], ""),
]


@pytest.mark.parametrize(("given", "why"), NAMES)
def test_names(given, why):
    tasks = Tasks(None, Notify(), "node")
    *first, last = given
    for function, name in first:
        tasks.add(60, function, False, name)
    if why:
        with pytest.raises(ValueError, match=why):
            tasks.add(60, *last[:1], False, last[1])
    else:
        tasks.add(60, *last[:1], False, last[1])
        assert list(tasks._tasks) == ["a", "b", f"{__name__}.send_digest"]


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_periods(seconds):
    with pytest.raises(ValueError):
        Tasks(None, Notify(), "node").add(seconds, send_digest, False, "")


BREAKS = [ValueError("broken"), asyncio.CancelledError(), SystemExit(1)]


@pytest.mark.parametrize("error", BREAKS, ids=repr)
def test_what_breaks_ends_nothing_else(run, told, monkeypatch, error):
    """Neither a task nor a loop: each is told, and begins again."""
    monkeypatch.setattr(service, "PAUSE", (0.01, 0.1))
    broke = []

    async def work(redis):
        async def breaks():
            broke.append(1)
            raise error

        node = Node(redis, told)
        node.every(0.01, "often")
        node.tasks.add(0.01, breaks, False, "breaks")
        running = asyncio.create_task(node.tasks.run(loop=breaks))
        while len(broke) < 8 or node.runs.count("often") < 8:
            await node.changed.wait()
            node.changed.clear()
        assert not running.done()
        running.cancel()
        await asyncio.wait([running])
        node.tasks._notify.flush()

    run(work)
    assert {"breaks", "loop"} == {record["task"] for record in told}


def test_a_record_that_cannot_be_read(run, told):
    async def work(redis):
        await redis.hset(key("task", "daily"), "last", "{yesterday}")
        node = Node(redis, told)
        node.every(HOUR, "daily")
        await node.until("daily")

    run(work)


def test_redis_gone_and_back(run, told, engine):
    async def work(redis):
        node = Node(redis, told)
        node.every(0.05, "often")
        running = asyncio.create_task(node.tasks.run())
        await node.changed.wait()
        await asyncio.to_thread(engine.kill)
        await asyncio.to_thread(engine.start)
        before = len(node.runs)
        while len(node.runs) < before + 2:
            node.changed.clear()
            await node.changed.wait()
        running.cancel()
        await asyncio.wait([running])

    run(work)


# Leases


def test_a_lease_has_one_holder(run):
    async def work(redis):
        async with lease(redis, "work") as first, lease(redis, "work") as second, lease(redis, "other") as other:
            assert (first, second, other) == (True, False, True)
        async with lease(redis, "work") as again:
            assert again
        assert not await redis.keys("*")

    run(work)


@pytest.mark.parametrize("loss", ["taken", "forgotten", "redis away"])
def test_who_loses_a_lease_is_stopped(run, engine, monkeypatch, loss):
    monkeypatch.setattr(leases, "LASTS", 1.0)

    async def work(redis):
        with pytest.raises(LeaseLost):
            async with lease(redis, "work"):
                if loss == "taken":
                    await redis.set(key("lease", "work"), "somebody else's")
                elif loss == "forgotten":
                    await redis.delete(key("lease", "work"))
                else:
                    engine.signal(signal.SIGSTOP)
                try:
                    await asyncio.sleep(1000)
                finally:
                    engine.signal(signal.SIGCONT)
        assert await redis.get(key("lease", "work")) in (None, "somebody else's")

    run(work)


def test_a_failure_within_stays_what_it_is(run):
    async def work(redis):
        with pytest.raises(TimeoutError):
            async with lease(redis, "work"):
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(1000)

    run(work)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError, [2, 4, 8, 16, 32, 60, 60, 60, 60]),
        (Unready, [2, 4, 8, 10, 10, 10, 10, 10, 10]),  # there is nothing wrong with us: soon after redis takes it
        (ConnectionError, [1, 1, 1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_supervised_pauses_grow(told, monkeypatch, error, expected):
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 9:
            raise asyncio.CancelledError

    async def breaks():
        raise error

    monkeypatch.setattr(service.asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(supervise("loop", breaks, Notify(told.append)))
    assert pauses == expected
