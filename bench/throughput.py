"""How many authenticated requests a second each contestant serves on one core, in one run, with one client.

`python bench/throughput.py [--rounds N] [--seconds N] [--only NAME,NAME]`

Laws: every contestant is proven to do the work before it is measured. The contestants take turns, so that a machine
that slows down slows all of them. The figure is the median of the rounds.
"""

import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from statistics import median

import click
import psutil
from contest import (
    CLIENT_CORE,
    CONNECTIONS,
    SERVER_CORE,
    Figures,
    Ground,
    Refused,
    Shot,
    console_for_tables,
    pin,
    prepare,
    refusing,
    start_redis,
    wrk,
)
from contestants import CONTESTANTS, door_constant, granian_constant
from proof import prove
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

OURS = "backlore"
WARM_UP = 1  # seconds
WORKS = {
    "GET": "authenticated GET: cookie, session and user read, session renewed, JSON with a strong ETag",
    "POST": "authenticated POST: the same, and csrf, five validated fields, one write",
}
LIMITS = {
    "door": "our own door answering a constant",
    "granian": "granian answering a constant (one worker, uvloop, HTTP/1)",
    "redis": "redis-benchmark, one GET at a time per connection, Unix socket",
}

CONSTANTS = {"door": door_constant, "granian": granian_constant}

Results = dict[tuple[str, str], list[Figures]]  # by name and work


def measure_contestant(name: str, seconds: int, results: Results) -> None:
    """One round of one contestant: start it, prove it, measure both requests, end it."""
    with Ground() as ground:
        contestant = CONTESTANTS[name](ground)
        prove(contestant)
        for shot in (contestant.get, contestant.post):
            results[name, shot.method].append(_measure(shot, seconds))


def measure_limit(name: str, seconds: int, results: Results) -> None:
    """One round of one limit."""
    with Ground() as ground:
        if name == "redis":
            figures = _redis_benchmark(start_redis(ground))
        else:
            figures = _measure(CONSTANTS[name](ground), seconds)
        results[name, "limit"].append(figures)


def _measure(shot: Shot, seconds: int) -> Figures:
    wrk(shot, WARM_UP)
    return wrk(shot, seconds)


def _redis_benchmark(path: str, requests: int = 300_000) -> Figures:
    """redis on its core, its own benchmark on the server's core: the most that a client could get from redis."""
    tool = ["taskset", "-c", str(SERVER_CORE), "redis-benchmark", "-s", path, "-P", "1", "-t", "get"]
    load = ["-c", str(CONNECTIONS), "-n", str(requests), "--csv"]
    run = subprocess.run([*tool, *load], capture_output=True, text=True, check=True)
    names, values = (re.findall(r'"([^"]*)"', line) for line in run.stdout.splitlines()[-2:])
    row = dict(zip(names, values, strict=True))
    return Figures(float(row["rps"]), float(row["p50_latency_ms"]), float(row["p99_latency_ms"]))


def middle(rounds: Iterable[Figures]) -> Figures:
    """The median of each figure over the rounds."""
    columns = zip(*(vars(figures).values() for figures in rounds), strict=True)
    return Figures(*map(median, columns))


def table_of(work: str, results: Results) -> Table:
    """Rows of medians, and how many times faster we are than each peer."""
    table = Table(title=f"\n{WORKS[work]}", title_justify="left", title_style="bold")
    table.add_column("contestant")
    for heading in ("req/s", "p50 ms", "p99 ms", "least", "most", "core 0", "core 1", "CPU µs", "ours / it"):
        table.add_column(heading, justify="right")
    medians = {name: middle(rounds) for (name, its), rounds in results.items() if its == work}
    for name, figures in medians.items():
        rounds = [round_.rate for round_ in results[name, work]]
        table.add_row(
            name,
            f"{figures.rate:,.0f}",
            f"{figures.p50:.2f}",
            f"{figures.p99:.2f}",
            f"{min(rounds):,.0f}",
            f"{max(rounds):,.0f}",
            f"{figures.server_core:.0f} %",
            f"{figures.client_core:.0f} %",
            f"{figures.server_core / 100 / figures.rate * 1e6:.1f}",
            f"{medians[OURS].rate / figures.rate:.2f}" if OURS in medians else "",
        )
    return table


def table_of_limits(results: Results) -> Table:
    """What no server on this ground can exceed."""
    table = Table(title="\nlimits", title_justify="left", title_style="bold")
    table.add_column("what")
    for heading in ("req/s", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    for name, what in LIMITS.items():
        if rounds := results.get((name, "limit")):
            figures = middle(rounds)
            table.add_row(what, f"{figures.rate:,.0f}", f"{figures.p50:.2f}", f"{figures.p99:.2f}")
    return table


def tables_of(results: Results) -> list[Table]:
    """The tables that have a row."""
    tables = [*(table_of(work, results) for work in WORKS), table_of_limits(results)]
    return [table for table in tables if table.rows]


def _chosen(only: str) -> list[str]:
    known = [*CONTESTANTS, *LIMITS]
    names = [name.strip() for name in only.split(",")] if only else known
    if unknown := set(names) - set(known):
        raise Refused(f"no contestant {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return [name for name in known if name in names]


@click.command()
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=4, show_default=True, type=click.IntRange(1), help="of each measurement")
@click.option("--only", default="", metavar="NAME,NAME", help=f"of {', '.join([*CONTESTANTS, *LIMITS])}")
def main(rounds: int, seconds: int, only: str) -> None:
    """Measure the contestants side by side and print medians and ratios."""
    prepare(taskset="util-linux", wrk="wrk", node="nodejs", npm="npm")
    pin(psutil.Process(), CLIENT_CORE)
    console, names, results = console_for_tables(), _chosen(only), defaultdict(list)
    if "redis" in names and shutil.which("redis-benchmark") is None:
        console.print("no redis-benchmark on the PATH (apt-get install redis-tools): left out")
        names.remove("redis")
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, refresh_per_second=1, transient=True) as progress:
        task = progress.add_task("", total=rounds * len(names))
        for number in range(rounds):
            for name in names:
                progress.update(task, description=f"round {number + 1} of {rounds}: {name}")
                measure = measure_contestant if name in CONTESTANTS else measure_limit
                try:
                    measure(name, seconds, results)
                except Refused as refusal:
                    raise Refused(f"{name}: {refusal}") from refusal
                progress.advance(task)
    for table in tables_of(results):
        console.print(table)
    console.print(
        f"medians of {rounds} rounds of {seconds} s; wrk, 1 thread, {CONNECTIONS} connections; "
        f"server on core {SERVER_CORE}, redis and wrk on core {CLIENT_CORE}"
    )


if __name__ == "__main__":
    refusing(main)
