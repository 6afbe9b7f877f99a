"""What it costs to find lines in a large file, beside grep on the same file and machine.

`python bench/filter.py [--size GIB] [--rounds N] [--folder FOLDER]`

Laws: the file is the same each time and is in memory (it is read once before). grep (LC_ALL=C) and ours take turns in
each round. Both find and count all lines, and the counts must agree. Ours is what an application calls: from the
catalog in a real redis to lines as Python objects. Figures are medians, in seconds by the clock and of CPU, since the
machine may have other work. The event loop's delays are shown beside those of the same loop without a search.
"""

import asyncio
import os
import random
import resource
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import click
import uvloop

from backlore.clients.disk import Disk
from backlore.clients.redis.client import Redis
from backlore.core.notify import Notify
from backlore.core.schema import FilesConfig
from backlore.process.program import find_binary
from backlore.services.files.files import Files
from backlore.services.lines.conditions import Wanted
from backlore.services.lines.lines import Lines

USER, NAME = "annabcdefgh", "log.jsonl"
RARE = "u7654321x"  # in one line, near the beginning: a search from the end reads everything
PATHS = ("/api/notes", "/api/files", "/login", "/health", "/static/app.js")
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"
TICK = 0.001  # seconds that the event loop sleeps between two looks at the clock


class Work(NamedTuple):
    """What is searched for: by ours, and by grep."""

    name: str
    wanted: Wanted
    grep: list[str]


WORKS = [
    Work("a text in one line", Wanted((RARE,)), ["-F", RARE]),
    Work("a text in 1 % of lines", Wanted(('"error"',)), ["-F", '"error"']),
    Work("any case", Wanted(("ERROR",), ignore_case=True), ["-i", "-F", "ERROR"]),
    Work("a pattern", Wanted((), ('"took":[0-9]{3,}',)), ["-E", '"took":[0-9]{3,}']),
    Work("a JSON field", Wanted(where=("level=error",)), ["-F", '"level":"error"']),
    Work("a JSON number", Wanted(where=("took>=100",)), ["-E", '"took":[0-9]{3,}']),
]


class Figure(NamedTuple):
    """The cost of one search, in seconds."""

    clock: float
    cpu: float


def write(path: Path, size: int) -> None:
    """Write JSON lines of about 230 bytes, always the same."""
    chance, written, number = random.Random(7), 0, 0
    with path.open("wb") as file:
        while written < size:
            batch = []
            for _ in range(10_000):
                number += 1
                error = chance.random() < 0.01
                user = RARE if number == 1000 else f"u{chance.randrange(10**7):07}"
                place, took = f"{chance.choice(PATHS)}/{chance.randrange(10**5)}", chance.expovariate(1 / 20)
                batch.append(
                    f'{{"time":"2026-10-03T12:{number // 60000 % 60:02}:{number // 1000 % 60:02}.{number % 1000:03}Z",'
                    f'"level":"{"error" if error else "info"}","n":{number},"user":{{"id":"{user}","admin":false}},'
                    f'"path":"{place}","took":{took:.1f},'
                    f'"status":{500 if error else 200},"agent":"{AGENT}"}}\n'
                )
            data = "".join(batch).encode()
            file.write(data)
            written += len(data)


def grep(words: list[str], path: Path) -> tuple[int, Figure]:
    """How many lines grep finds, and what that cost."""
    before, since = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    got = subprocess.run(["grep", "-c", *words, path], env={"LC_ALL": "C"}, capture_output=True, check=True)
    clock, after = time.perf_counter() - since, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return int(got.stdout), Figure(clock, cpu)


async def ours(lines: Lines, wanted: Wanted) -> tuple[int, Figure]:
    """How many lines ours finds, and what that cost."""
    since, cpu, count = time.perf_counter(), time.process_time(), 0
    async for found in await lines.scan(USER, NAME, wanted, seconds=600):
        count += len(found.lines)
    return count, Figure(time.perf_counter() - since, time.process_time() - cpu)


async def first_from_the_end(lines: Lines) -> float:
    """Seconds until the newest line with a text is found, where 1 % of lines have it."""
    since = time.perf_counter()
    found = await lines.filter(USER, NAME, Wanted(('"error"',)), limit=1)
    assert len(found.lines) == 1
    return time.perf_counter() - since


async def lag_during(work: Awaitable[object]) -> list[float]:
    """How much longer than TICK each sleep took during the work, in seconds, sorted."""
    task, lags = asyncio.ensure_future(work), []
    while not task.done():
        since = time.perf_counter()
        await asyncio.sleep(TICK)
        lags.append(time.perf_counter() - since - TICK)
    await task
    return sorted(lags)


async def measure(lines: Lines, path: Path, rounds: int) -> None:
    """All searches in turn, and the event loop's delays."""
    for work in WORKS:
        figures: dict[str, list[Figure]] = {"grep": [], "ours": []}
        for _ in range(rounds):
            wanted, by_grep = grep(work.grep, path)
            found, by_us = await ours(lines, work.wanted)
            assert found == wanted, f"{work.name}: {found} lines, by grep {wanted}"
            figures["grep"].append(by_grep)
            figures["ours"].append(by_us)
        (clock, cpu), (our_clock, our_cpu) = (
            (median(each.clock for each in some), median(each.cpu for each in some)) for some in figures.values()
        )
        click.echo(
            f"{work.name:<24} {wanted:>7,} lines   grep {clock:.2f} s ({cpu:.2f} CPU)   ours {our_clock:.2f} s "
            f"({our_cpu:.2f} CPU)   ratio {our_clock / clock:.1f} (CPU {our_cpu / cpu:.1f})"
        )
    first = [await first_from_the_end(lines) for _ in range(20)]
    click.echo(f"first match from the end: median {median(first) * 1e3:.1f} ms, worst {max(first) * 1e3:.1f} ms of 20")
    for name, wait in (("nothing", asyncio.sleep(3)), *((each.name, ours(lines, each.wanted)) for each in WORKS)):
        lags = await lag_during(wait)
        middle, late = lags[len(lags) // 2], lags[len(lags) * 99 // 100]
        click.echo(f"event loop during {name:<24} p50 {middle * 1e3:.2f} ms   p99 {late * 1e3:.2f} ms   of {len(lags)}")


@contextmanager
def engine(folder: Path) -> Iterator[str]:
    """A redis for the catalog, for the length of the block."""
    socket = folder / "sock"
    process = subprocess.Popen(
        [find_binary(), "--port", "0", "--unixsocket", socket, "--save", ""], stdout=subprocess.DEVNULL
    )
    try:
        while not socket.exists():
            time.sleep(0.01)
        yield str(socket)
    finally:
        process.terminate()
        process.wait(10)


async def main_within(folder: Path, socket: str, size: int, rounds: int) -> None:
    """Store the file as a user's, and measure."""
    redis, disk = Redis(unix_socket_path=socket, timeout=5), Disk(folder / "files")
    disk.prepare()
    files = Files(redis, Notify(lambda _: None), disk, None, FilesConfig(quota=1 << 40))
    source = folder / "source"
    write(source, size)
    file = await files.put(USER, NAME, source)
    source.unlink()
    path = disk.path(file.blobs[0][0])
    with path.open("rb") as content:
        while content.read(1 << 20):
            pass
    click.echo(
        f"{file.size / (1 << 30):.2f} GiB; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    try:
        await measure(Lines(files.find, files.spans), path, rounds)
    finally:
        await redis.aclose()


@click.command()
@click.option("--size", default=1.0, help="GiB of the file.")
@click.option("--rounds", default=3)
@click.option("--folder", type=click.Path(path_type=Path), default=None, help="Where the temporary folder is made.")
def main(size: float, rounds: int, folder: Path | None) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory(dir=folder) as name, engine(Path(name)) as socket:
        uvloop.run(main_within(Path(name), socket, int(size * (1 << 30)), rounds))


if __name__ == "__main__":
    main()
