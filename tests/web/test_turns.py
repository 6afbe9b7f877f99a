"""Turns, alone and where work waits for them in a real server: whoever brings a lot waits, and others come soon."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import httpx
import pytest

from backlore.core.payload import Payload
from backlore.core.turns import Busy, Turns
from backlore.web.body import LONG, Body
from backlore.web.limits import Limits, Patience
from backlore.web.reply import Reply, reply
from backlore.web.request import Proxies, Request
from backlore.web.stages import public
from tests.conftest import KINDS, PASSWORD, Server, User, serving

Job = Callable[[], Awaitable[str]]


def job(name: str, done: list[str], pause: float = 0.001) -> Job:
    async def work() -> str:
        await asyncio.sleep(pause)
        done.append(name)
        return name

    return work


async def crowd(turns: Turns, names: str, done: list[str]) -> list[asyncio.Task[str]]:
    """A job for each letter, which is whose it is; all of them have come."""
    tasks = [asyncio.create_task(turns.run(name, job(name, done))) for name in names]
    await asyncio.sleep(0)
    return tasks


def test_round_robin() -> None:
    async def main() -> str:
        done: list[str] = []
        await asyncio.gather(*await crowd(Turns(1, each=9, total=90), "aaaaabbcac", done))
        return "".join(done)

    assert asyncio.run(main()) == "aabcabcaaa"


def test_as_many_at_once_as_said() -> None:
    async def main() -> int:
        turns, here, most = Turns(3, each=9, total=90), 0, 0

        async def work() -> None:
            nonlocal here, most
            here += 1
            most = max(most, here)
            await asyncio.sleep(0.001)
            here -= 1

        await asyncio.gather(*(turns.run("ab"[n % 2], work) for n in range(12)))
        return most

    assert asyncio.run(main()) == 3


def test_too_much_is_refused() -> None:
    """Of one; of all; and in the second half of the room, of whoever has something in it."""

    async def refused(names: str, each: int, total: int) -> str:
        found = await asyncio.gather(*await crowd(Turns(1, each=each, total=total), names, []), return_exceptions=True)
        return "".join("-" if isinstance(one, Busy) else "+" for one in found)

    assert asyncio.run(refused("aaaaab", 3, 90)) == "++++-+"
    assert asyncio.run(refused("aaaabc", 9, 4)) == "+++-++"
    assert asyncio.run(refused("abcdef", 9, 4)) == "+++++-"


def test_what_has_begun_is_never_refused() -> None:
    async def main() -> list[str]:
        turns, done = Turns(1, each=1, total=2), []
        tasks = await crowd(turns, "ab", done)
        await asyncio.gather(*(turns.go_on("a", job("a", done)) for _ in range(5)), *tasks)
        return done

    assert sorted(asyncio.run(main())) == [*"aaaaaab"]


def test_whoever_goes_away_loses_nothing_of_the_others() -> None:
    """Before the turn, in it, and at the very moment that it comes; nothing stays behind."""

    async def main() -> None:
        turns, done = Turns(1, each=9, total=90), []
        for steps, leaver in itertools.product(range(12), range(2)):
            tasks = await crowd(turns, "aab", done)
            for _ in range(steps):
                await asyncio.sleep(0)
            tasks[leaver].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert tasks[2].result() == "b"

        async def end_the_next() -> None:
            waiting[0].cancel()  # and this turn ends before that task can know it

        first = asyncio.create_task(turns.run("a", end_the_next))
        waiting = await crowd(turns, "ab", done)
        await asyncio.gather(first, *waiting, return_exceptions=True)
        assert waiting[1].result() == "b"
        assert vars(turns) == vars(Turns(1, each=9, total=90))

    asyncio.run(main())


def test_work_that_nobody_waits_for_keeps_its_turn() -> None:
    async def main() -> list[str]:
        turns, done = Turns(1, each=9, total=90), []
        slow = asyncio.create_task(turns.run("a", job("slow", done, 0.05)))
        await asyncio.sleep(0.01)
        slow.cancel()
        await turns.run("b", job("b", done))
        return done

    assert asyncio.run(main()) == ["slow", "b"]


def test_work_that_fails_ends_its_turn() -> None:
    async def main() -> str:
        turns = Turns(1, each=9, total=90)

        def fail() -> Awaitable[str]:
            raise ValueError

        for _ in range(3):
            with pytest.raises(ValueError):
                await turns.run("a", fail)
        return await turns.run("a", job("a", []))

    assert asyncio.run(main()) == "a"


# --- In a server ------------------------------------------------------------------------------------------------


RATES = {
    "knock": (200, 86400),
    "login": (1000, 60),
    "login-account": (40, 3600),
    "signup": (1000, 60),
    "mail": (1000, 60),
    # none comes back while a test runs, however slow the machine is
    "passkey": (30, 86400),
    "openid": (30, 86400),
    "recover": (20, 86400),
}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One worker, behind a proxy that says who asks."""
    settings = {"rates": RATES, "proxies": ["127.0.0.1"]}
    with serving(KINDS, tmp_path_factory.mktemp("one"), workers=1, settings=settings) as server:
        yield server


def visitor(server: Server, origin: str) -> httpx.Client:
    """A client that is ready: its connection is open."""
    client = httpx.Client(base_url=server.url, timeout=60, headers={"x-forwarded-for": origin})
    client.get("/health")
    return client


def log_in(client: httpx.Client, email: str, password: str = "not the password") -> httpx.Response:
    with contextlib.closing(client):
        return client.post("/auth/login", json={"email": email, "password": password})


def test_logins_of_one_address_hold_nobody_up(one: Server) -> None:
    """Nineteen at one address are being looked at when another comes from elsewhere: most of them are still waiting
    when that is in."""
    with User(one, "bob@example.com") as bob:
        bob.sign_up()
    other, *many = [visitor(one, origin) for origin in ("203.0.113.2", *["203.0.113.1"] * 19)]
    with ThreadPoolExecutor(20) as pool:
        crowd = [pool.submit(log_in, each, f"a{n}@example.com") for n, each in enumerate(many)]
        next(as_completed(crowd))
        assert log_in(other, "bob@example.com", PASSWORD).status_code == 200
        assert sum(each.done() for each in crowd) < 12
    assert {each.result().status_code for each in crowd} == {403}


def test_a_login_refused_as_busy_costs_no_try(one: Server) -> None:
    """Of sixty guesses at once, as many are looked at as the limit allows, however many were refused meanwhile."""
    guess = {"email": "cid@example.com", "password": "not the password"}

    async def guess_all() -> list[httpx.Response]:
        async with httpx.AsyncClient(
            base_url=one.url, timeout=60, headers={"x-forwarded-for": "203.0.113.3"}
        ) as client:
            return await asyncio.gather(*(client.post("/auth/login", json=guess) for _ in range(60)))

    got = asyncio.run(guess_all())
    busy = [each for each in got if each.status_code == 503]
    assert busy and all(each.json() == {"error": "unavailable"} and int(each.headers["retry-after"]) for each in busy)
    looked_at = sum(each.status_code == 403 for each in got)
    while (last := log_in(visitor(one, "203.0.113.3"), "cid@example.com")).status_code == 403:
        looked_at += 1
    assert last.status_code == 429
    assert looked_at == RATES["login-account"][0]


@pytest.mark.parametrize(
    ("path", "most"), [("/auth/passkey", 30), ("/auth/openid/begin", 30), ("/auth/recover", 20), ("/auth/login", 200)]
)
def test_limits_count_before_a_body_is_decoded(one: Server, path: str, most: int) -> None:
    """Also what is no JSON, and what is of another type."""
    with contextlib.closing(visitor(one, "203.0.113.9")) as client:
        form = {"content-type": "application/json"}
        got = [client.post(path, content=(b"{", b"[]")[n % 2], headers=form).status_code for n in range(most + 3)]
    assert got == [400] * most + [429] * 3


class Long(Payload):
    a: str


async def put_long(request: Request, body: Long) -> Reply:
    return reply(200)


def test_long_bodies_take_turns_by_network(tmp_path: Path) -> None:
    """Whoever has an IPv6 network has all its addresses, and yet one turn."""
    taken: list[str] = []

    class Recorder(Turns):
        async def run(self, whose: str, work: Any) -> Any:
            taken.append(whose)
            return await super().run(whose, work)

    async def read(address: str) -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b'{"a": "%s"}' % (b"x" * LONG), "more_body": False}

        headers = [(b"content-type", b"application/json")]
        scope = {"method": "POST", "path": "/", "headers": headers, "client": (address, 1)}
        limits = Limits(tmp_path, Patience(10), decoding=Recorder(1, each=20, total=200))
        request = Request(scope, receive, Proxies())
        request.route = public.post("/", put_long)
        await Body(Long, with_csrf=False).read(request, limits)

    for address in ("2001:db8::1", "2001:db8::2", "::ffff:192.0.2.1", "192.0.2.1"):
        asyncio.run(read(address))
    assert taken == ["2001:db8::/64", "2001:db8::/64", "192.0.2.1", "192.0.2.1"]
