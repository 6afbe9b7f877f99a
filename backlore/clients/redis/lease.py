"""Leases: only one process at a time does some work, and another takes over soon after that process was killed.

    lease:{NAM}E…   string   the holder's token; 20 s from the last renewal, by redis' clock

Laws: taking, renewing and releasing a lease are one atomic step each; the last two need its token. A holder that can't
renew its lease stops before another can begin: its work is cancelled, and raises LeaseLost. Work that blocks the event
loop for longer than the lease lasts can't be cancelled, and may run twice.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from redis.exceptions import RedisError

from backlore.clients.redis.script import Script
from backlore.core.crypto import random_text
from backlore.core.keys import key

LASTS = 20.0  # seconds: the longest time for which a killed process's work waits

# KEYS: lease. ARGV: token, milliseconds.
RENEW = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")
RELEASE = Script("return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1])")


class LeaseLost(Exception):
    """The lease was not renewed in time: another process may do the work now."""


@contextlib.asynccontextmanager
async def lease(redis: Any, owner: str, *rest: str) -> AsyncIterator[bool]:
    """Hold the lease that is named like a key. Yields True; or False if another process holds it.

    The body is cancelled when the lease is lost: then LeaseLost is raised. Raises RedisError when it can't be taken
    because redis fails.
    """
    place, token, lasts = key("lease", owner, *rest), random_text(64), int(LASTS * 1000)
    if not await redis.set(place, token, nx=True, px=lasts):
        yield False
        return
    try:
        async with renewing(lambda: RENEW(redis, [place], token, lasts), LASTS):
            yield True
    finally:
        with contextlib.suppress(RedisError):  # the client reports it; the lease expires by itself
            await RELEASE(redis, [place], token)


@contextlib.asynccontextmanager
async def renewing(renew: Callable[[], Awaitable[object]], lasts: float) -> AsyncIterator[None]:
    """Renew, while the body runs, a claim that was just taken for `lasts` seconds.

    The body is cancelled when `renew` returns something false, or has failed for three quarters of that time. Raises
    LeaseLost then.
    """
    loop, patience = asyncio.get_running_loop(), lasts * 0.75

    async def keep() -> None:
        while True:
            await asyncio.sleep(lasts / 4)
            asked = loop.time()
            with contextlib.suppress(RedisError):  # the client reports it; there is time for another try
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
