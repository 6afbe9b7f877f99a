"""Leases: work that one of all processes does at a time goes on elsewhere soon after its process was killed.

    lease:{NAM}E…   string   the token of whoever holds it; 20 s from when it was last renewed, by redis' clock

Laws: a lease is taken, renewed and released in one step each, the last two by its token alone. Whoever can't renew it
stops before anybody else can begin: what it does is cancelled, and it learns why. What holds up the event loop for
longer than that can't be cancelled, and may run twice.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from redis.exceptions import RedisError

from backlore.clients.redis.script import Script
from backlore.core.crypto import random_text
from backlore.core.keys import key

LASTS = 20.0  # seconds that work of a killed process waits, at most

# KEYS: lease. ARGV: token, milliseconds.
RENEW = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")
RELEASE = Script("return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1])")


class LeaseLost(Exception):
    """Somebody else may do the work now: it was not renewed in time."""


@contextlib.asynccontextmanager
async def lease(redis: Any, owner: str, *rest: str) -> AsyncIterator[bool]:
    """Hold what is named like a key, and be cancelled when it is lost: True; False if somebody else holds it.

    Raises LeaseLost; RedisError when it can't be taken.
    """
    place, token, lasts = key("lease", owner, *rest), random_text(64), int(LASTS * 1000)
    if not await redis.set(place, token, nx=True, px=lasts):
        yield False
        return
    try:
        async with renewing(lambda: RENEW(redis, [place], token, lasts), LASTS):
            yield True
    finally:
        with contextlib.suppress(RedisError):  # told by its client; it ends by itself
            await RELEASE(redis, [place], token)


@contextlib.asynccontextmanager
async def renewing(renew: Callable[[], Awaitable[object]], lasts: float) -> AsyncIterator[None]:
    """Renew again and again what was just taken for `lasts` seconds, for as long as the body works.

    The body is cancelled when `renew` says no by what is false, or could say nothing for three quarters of that time.
    Raises LeaseLost.
    """
    loop, patience = asyncio.get_running_loop(), lasts * 0.75

    async def keep() -> None:
        while True:
            await asyncio.sleep(lasts / 4)
            asked = loop.time()
            with contextlib.suppress(RedisError):  # told by its client; there is time for another try
                limit.reschedule(asked + patience if await renew() else asked)

    try:
        async with asyncio.timeout(patience) as limit:
            keeper = asyncio.create_task(keep())
            try:
                yield
            finally:
                keeper.cancel()
                await asyncio.gather(keeper, return_exceptions=True)
    except TimeoutError as error:
        if limit.expired():
            raise LeaseLost from error
        raise
