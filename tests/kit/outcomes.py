"""What comes of commands that are under way, within a time that shows that none hangs."""

import asyncio
import time

from redis.exceptions import ConnectionError

NEVER_HANGS = 3.0  # seconds


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
