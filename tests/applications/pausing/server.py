"""An application that measures for how long its event loop was held, in seconds of the processor."""

import asyncio
import time
from typing import Any

from config import CONFIG

from backlore import Backend, Payload, public, reply

app = Backend(CONFIG)
longest = 0.0
watching: list[asyncio.Task[None]] = []


class Item(Payload):
    id: int = 0
    name: str = ""


class Anything(Payload):
    open: Any = None


class Typed(Payload):
    items: list[Item] = []
    numbers: list[float] = []
    text: str = ""


async def watch() -> None:
    global longest
    last = time.process_time()
    while True:
        await asyncio.sleep(0.001)
        now = time.process_time()  # of all threads: what holds the interpreter's lock elsewhere holds us, too
        longest, last = max(longest, now - last), now


async def begin() -> None:
    watching.append(asyncio.create_task(watch()))


async def tell(request):
    """The longest pause since the last time. 200 {"longest": float}."""
    global longest
    told, longest = longest, 0.0
    return reply(200, {"longest": told})


async def take(request, body: Anything):
    """Take it. 200 {}."""
    return reply(200)


async def take_typed(request, body: Typed):
    """Take it. 200 {}."""
    return reply(200)


app.web.on_start.append(begin)
app.routes(
    public.get("/pause", tell), public.post("/take", take), public.post("/typed", take_typed), *app.file_routes()
)
