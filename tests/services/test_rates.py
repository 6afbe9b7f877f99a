"""Rate limits against a real redis: what is allowed, what is refused, for how long; who is told apart."""

import asyncio
import math

import pytest

from backlore.clients.redis.client import Redis
from backlore.core.addresses import normalize
from backlore.core.origins import origin_of
from backlore.services.rates import DEFAULTS, Rates, account_of, attempt_of, rate_key

SLOW = {"slow": (5, 300), "slower": (2, 600), "quick": (2, 4), "crowd": (20, 600)}
ORIGIN = "203.0.113.7"


@pytest.fixture
def run(engine):
    """Run a coroutine function that takes an empty redis and limits on it."""

    def run_test(test):
        async def body():
            redis = Redis(unix_socket_path=engine.path)
            try:
                await redis.flushall()
                return await test(redis, Rates(redis, SLOW))
            finally:
                await redis.aclose()

        return asyncio.run(body())

    return run_test


def test_burst_then_refusal(run):
    async def test(redis, rates):
        assert [await rates.take("slow", ORIGIN) for _ in range(5)] == [0.0] * 5
        assert 58 < await rates.take("slow", ORIGIN) <= 60
        assert 118 < await rates.take("slow", ORIGIN, cost=2) <= 120
        assert await rates.take("slow", "198.51.100.1") == 0.0

    run(test)


def test_hammering_does_not_prolong(run):
    async def test(redis, rates):
        await rates.take("slow", ORIGIN, cost=5)
        before = await redis.get(rate_key("slow", ORIGIN))
        waits = await asyncio.gather(*(rates.take("slow", ORIGIN) for _ in range(200)))
        assert min(waits) > 0 and max(waits) <= 60
        assert await redis.get(rate_key("slow", ORIGIN)) == before

    run(test)


def test_refill(run):
    async def test(redis, rates):
        assert await rates.take("quick", ORIGIN, cost=2) == 0.0
        wait = await rates.take("quick", ORIGIN)
        assert 0 < wait <= 2
        await asyncio.sleep(wait + 0.005)
        assert await rates.take("quick", ORIGIN) == 0.0  # one came back
        await asyncio.sleep(4.1)
        assert await rates.take("quick", ORIGIN, cost=2) == 0.0  # all did, and no more than all
        assert await rates.take("quick", ORIGIN) > 0

    run(test)


def test_many_at_once(run, engine):
    async def test(redis, rates):
        other = Redis(unix_socket_path=engine.path)
        both = (rates, Rates(other, SLOW))
        waits = await asyncio.gather(*(both[number % 2].take("crowd", ORIGIN) for number in range(50)))
        await other.aclose()
        assert waits.count(0.0) == 20

    run(test)


def test_two_nodes_share(run, engine):
    async def test(redis, rates):
        other = Redis(unix_socket_path=engine.path)
        assert await rates.take("slow", ORIGIN, cost=3) == 0.0
        assert await Rates(other, SLOW).take("slow", ORIGIN, cost=2) == 0.0
        await other.aclose()
        assert await rates.take("slow", ORIGIN) > 0

    run(test)


def test_refund_and_clear(run):
    async def test(redis, rates):
        await rates.refund("slow", ORIGIN)  # nothing to give back: still no more than five
        assert await redis.keys() == []
        await rates.take("slow", ORIGIN, cost=5)
        await rates.refund("slow", ORIGIN)
        assert await rates.take("slow", ORIGIN) == 0.0
        assert await rates.take("slow", ORIGIN) > 0
        await rates.clear("slow", ORIGIN)
        assert await redis.keys() == []
        assert await rates.take("slow", ORIGIN, cost=5) == 0.0

    run(test)


def test_taken_and_given_back_leaves_nothing(run):
    async def test(redis, rates):
        await rates.take("slow", ORIGIN)
        await rates.refund("slow", ORIGIN)
        assert await redis.keys() == []

    run(test)


def test_several_in_one_command(run):
    async def test(redis, rates):
        limits = (("slow", origin_of(ORIGIN)), ("slower", attempt_of(ORIGIN, "ann@example.com")))
        await rates.take_all(*limits)  # the script is there from now on
        before = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
        assert await rates.take_all(*limits) == 0.0
        assert 298 < await rates.take_all(*limits) <= 300  # slower's wait; slow has three left, and keeps them
        assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] == before + 2
        assert await rates.take("slow", ORIGIN, cost=3) == 0.0
        assert await rates.take("slow", ORIGIN) > 0
        for wrong in [(), (limits[0], limits[0]), (limits[0], ("slower", "198.51.100.1"))]:
            with pytest.raises(ValueError):
                await rates.take_all(*wrong)

    run(test)


def test_keys_expire(run):
    async def test(redis, rates):
        await rates.take("slow", ORIGIN)
        assert 58_000 < await redis.pttl(rate_key("slow", ORIGIN)) <= 60_000
        await rates.take("quick", ORIGIN, cost=2)
        assert 0 < await redis.pttl(rate_key("quick", ORIGIN)) <= 4000
        await asyncio.sleep(4.1)
        assert await redis.keys() == [rate_key("slow", ORIGIN)]

    run(test)


def test_key(run):
    async def test(redis, rates):
        who = attempt_of("2001:db8::1", "ann@example.com")
        await rates.take("slow", who)
        (name,) = await redis.keys()
        tag = rate_key("login", origin_of("2001:db8::1"))[:10]
        assert name == f"{tag}slow:2001:db8::/64,{account_of('ann@example.com')}"
        assert tag[:6] + tag[9:] == "rate:{}" and int(tag[6:9], 16) >= 0
        moment, (seconds, microseconds) = int(await redis.get(name)), await redis.time()
        assert 58e6 < moment - seconds * 1_000_000 - microseconds <= 60e6

    run(test)


def test_moment_too_far(run):
    """When redis's clock went back, or the period became shorter, nobody waits longer than the new period."""

    async def test(redis, rates):
        far = (await redis.time())[0] + 86_400
        await redis.set(rate_key("slow", ORIGIN), far * 1_000_000)
        assert await rates.take("slow", ORIGIN) == 60.0
        assert 298_000 < await redis.pttl(rate_key("slow", ORIGIN)) <= 300_000

    run(test)


def test_script_lost(run):
    async def test(redis, rates):
        await rates.take("slow", ORIGIN, cost=4)
        await redis.script_flush()
        assert await rates.take("slow", ORIGIN) == 0.0
        await redis.script_flush()
        assert await rates.take("slow", ORIGIN) > 0

    run(test)


def test_never_allowed(run):
    async def test(redis, rates):
        for cost in (6, 0, -1):
            with pytest.raises(ValueError):
                await rates.take("slow", ORIGIN, cost=cost)
        for method in (rates.take, rates.refund, rates.clear):
            with pytest.raises(KeyError):
                await method("nothing", ORIGIN)
        assert await redis.keys() == []

    run(test)


def test_rates_of_the_config(run):
    async def test(redis, rates):
        assert await rates.take("login", ORIGIN, cost=DEFAULTS["login"][0]) == 0.0
        strict = Rates(redis, {"login": (1, 60), "export": (1, 60)})
        assert await strict.take("login", "198.51.100.1") == 0.0
        assert 58 < await strict.take("login", "198.51.100.1") <= 60
        assert await strict.take("export", ORIGIN) == 0.0

    run(test)


@pytest.mark.parametrize("rate", [(0, 60), (-1, 60), (5, 0), (5, -1), (5, math.inf), (5, math.nan), (5, 1e-6)])
def test_rates_that_cannot_be_kept(rate):
    with pytest.raises(ValueError, match="'login'"):
        Rates(None, {"login": rate})


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("::FFFF:cb00:7107", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("203.0.113.7:40001", "203.0.113.7"),
        ("[2001:db8:1:2::9]:40001", "2001:db8:1:2::/64"),
        ("unix", "unknown"),
        ("", "unknown"),
        ("x" * 1000, "unknown"),
    ],
)
def test_origin(address, origin):
    assert origin_of(address) == origin


def test_account():
    account = account_of("ann.müller@example.com")
    assert len(account) == 16 and int(account, 16) >= 0
    for same in ("Ann.Müller@Example.COM", "ann.mu\u0308ller@example.com", normalize("ANN.MÜLLER@example.com")):
        assert account_of(same) == account
    assert account_of("ann.muller@example.com") != account


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.0, b"1"), (0.2, b"1"), (1.0, b"1"), (1.01, b"2"), (59.999999, b"60"), (3600.0, b"3600")]
)
def test_refusal(seconds, told):
    refused = Rates(None).refusal(seconds)
    assert (refused.status, refused.error, refused.body) == (429, "rate", b'{"error":"rate"}')
    assert (b"retry-after", told) in refused.headers
