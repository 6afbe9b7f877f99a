"""How many objects a second our courier moves to S3, beside aiobotocore putting the same bytes, 16 at once.

`python bench/s3_queue.py [--rounds N] [--objects N]`

Laws: a real S3 server (SeaweedFS), and a real redis with its append-only file. Ours is all of the courier's work, by
`Courier.turn`: finding users with something to move, claiming it, reading it from the disk, the put with its SHA-256,
and recording in the catalog that it was moved. aiobotocore has the bytes in memory and records nothing. That all
objects are there, byte for byte, is checked by listing and by reading some. They take turns in one process on both
cores; the figure is the median.
"""

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import uvloop
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from contest import Ground, Refused, console_for_tables, listens, prepare, refusing
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from backlore.clients.disk import Disk
from backlore.clients.redis.client import Redis
from backlore.clients.s3 import S3
from backlore.core.notify import Notify, console
from backlore.core.schema import FilesConfig
from backlore.process.program import find_binary
from backlore.services.files.courier import AT_ONCE
from backlore.services.files.files import Files
from tests.kit.buckets import BUCKET, KEYS, S3Server, s3_server

SIZE = 4096  # bytes of an object
USERS = [f"user{number:012}" for number in range(8)]


@dataclass(frozen=True)
class Moved:
    """The result of a round: objects a second, µs of this process's CPU for each."""

    rate: float
    cost: float


@dataclass(frozen=True)
class House:
    """Our files, and aiobotocore's client, over one bucket."""

    files: Files
    s3: S3
    botocore: Any


def contents(number: int, count: int) -> list[bytes]:
    """The objects of a round, each with different bytes."""
    source = random.Random(number)
    return [source.randbytes(SIZE) for _ in range(count)]


async def by_courier(house: House, round_: int, objects: list[bytes]) -> Moved:
    """The courier moves files that were put; putting them is not counted."""
    put = [
        house.files.put(USERS[number % len(USERS)], f"{round_}/{number}", content)
        for number, content in enumerate(objects)
    ]
    for start in range(0, len(put), AT_ONCE):
        await asyncio.gather(*put[start : start + AT_ONCE])
    done, began, spent = 0, time.perf_counter(), time.process_time()
    while done < len(objects):
        moved = await house.files.courier.turn()
        if not moved:
            raise Refused(f"the courier stopped after {done} of {len(objects)}")
        done += moved
    return _moved(len(objects), began, spent)


async def by_botocore(house: House, round_: int, objects: list[bytes]) -> Moved:
    """The same bytes, put by AT_ONCE tasks at once."""
    waiting = list(enumerate(objects))

    async def work() -> None:
        while waiting:
            number, content = waiting.pop()
            name = f"botocore/{USERS[number % len(USERS)]}/{round_}-{number}"
            await house.botocore.put_object(Bucket=BUCKET, Key=name, Body=content)

    began, spent = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return _moved(len(objects), began, spent)


def _moved(count: int, began: float, spent: float) -> Moved:
    return Moved(count / (time.perf_counter() - began), (time.process_time() - spent) / count * 1e6)


WAYS: dict[str, Callable[[House, int, list[bytes]], Awaitable[Moved]]] = {
    "courier": by_courier,
    "aiobotocore": by_botocore,
}


async def prove(house: House, rounds: int, objects: int) -> None:
    """Check that all that was sent is there, and that S3 has what our files have. Raises Refused."""
    for folder in ("files", "botocore"):
        sizes = [found.size async for found in house.s3.list(folder)]
        if len(sizes) != rounds * objects or set(sizes) != {SIZE}:
            raise Refused(f"{folder}: {len(sizes)} objects")
    for user in USERS:
        for file in await house.files.list(user, limit=5):
            name = f"files/{user}/{file.blobs[0][0]}"
            sent = b"".join([piece async for piece in house.s3.get(name)])
            if sent != b"".join([piece async for piece in house.files.read(user, file)]):
                raise Refused(f"{name}: other bytes")


@contextlib.asynccontextmanager
async def house_on(ground: Ground, bucket: S3Server) -> AsyncIterator[House]:
    """Redis, disk and both clients."""
    socket = str(ground.folder / "redis.sock")
    process = ground.start([find_binary(), "--port", "0", "--unixsocket", socket, "--appendonly", "yes"])
    ground.wait(process, lambda: listens(socket))
    redis = Redis(unix_socket_path=socket, timeout=5)
    s3 = S3(BUCKET, endpoint=bucket.endpoint, access_key=KEYS["s3_key"], secret_key=KEYS["s3_secret"])
    files = Files(redis, Notify(console), Disk(ground.folder / "files"), s3, FilesConfig(quota=1 << 40))
    await files.start()
    keys = {"aws_access_key_id": KEYS["s3_key"], "aws_secret_access_key": KEYS["s3_secret"]}
    settings = AioConfig(max_pool_connections=AT_ONCE, s3={"addressing_style": "path"})
    client = get_session().create_client(
        "s3", endpoint_url=bucket.endpoint, region_name="us-east-1", config=settings, **keys
    )
    async with client as botocore:
        yield House(files, s3, botocore)
    await redis.aclose()


async def measure(rounds: int, objects: int) -> dict[str, list[Moved]]:
    """All rounds; the first is a warm-up and is not counted."""
    results: dict[str, list[Moved]] = {name: [] for name in WAYS}
    with Ground() as ground, s3_server(ground.folder / "s3") as bucket:
        async with house_on(ground, bucket) as house:
            for number in range(rounds + 1):
                for name, move in WAYS.items():
                    moved = await move(house, number, contents(number, objects))
                    if number:
                        results[name].append(moved)
            await prove(house, rounds + 1, objects)
    return results


@click.command()
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--objects", default=2000, show_default=True, type=click.IntRange(1), help="in each round")
def main(rounds: int, objects: int) -> None:
    """Measure both side by side and print medians and the ratio."""
    prepare()
    results = uvloop.run(measure(rounds, objects))
    table = Table(title=f"\nputs of {SIZE} bytes, {AT_ONCE} at once", title_justify="left", title_style="bold")
    table.add_column("by")
    for heading in ("objects/s", "least", "most", "µs of CPU each", "courier / it"):
        table.add_column(heading, justify="right")
    ours = median(each.rate for each in results["courier"])
    for name, moved in results.items():
        rates = sorted(each.rate for each in moved)
        cost = median(each.cost for each in moved)
        cells = (f"{median(rates):,.0f}", f"{rates[0]:,.0f}", f"{rates[-1]:,.0f}", f"{cost:,.0f}")
        table.add_row(name, *cells, f"{ours / median(rates):.2f}")
    console_for_tables().print(table)
    print(f"medians of {rounds} rounds of {objects:,} objects")


if __name__ == "__main__":
    refusing(main)
