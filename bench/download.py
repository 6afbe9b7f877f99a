"""How fast a file is served: by nginx as a static file, by nginx for us (X-Accel-Redirect), and by us.

`python bench/download.py [--rounds N] [--seconds N]`

Laws: the same file on the same disk, and an authenticated session for the servers that know sessions. Each is first
shown to send every byte, and ours to send none to strangers. They take turns; the figure is the median. nginx and our
worker have core 0, which they share when both are at work; the client and redis have core 1. In "apart", our worker
moves to core 1, so that nginx has its core for itself as when it serves alone. "nginx for nginx" is the limit for any
backend: another nginx process takes our place, says what is to be sent, and looks nothing up. The worker's memory is
measured throughout.
"""

import hashlib
import json
import random
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from statistics import median

import click
import httpx
import psutil
from contest import BENCH, CLIENT_CORE, SERVER_CORE, Ground, Refused, console_for_tables, pin, prepare, refusing
from filing import Filing, start_filing, start_nginx
from memory import Watch
from rich.table import Table

SIZES = {"1 MB": (1_000_000, 16), "100 MB": (100_000_000, 4)}  # bytes, connections
# Each way, with the core of our worker; nginx has the server's.
WAYS = {
    "nginx": SERVER_CORE,
    "nginx for us": SERVER_CORE,
    "the same, apart": CLIENT_CORE,
    "nginx for nginx": SERVER_CORE,
    "ours": SERVER_CORE,
}
WARM_UP = 0.5  # seconds


@dataclass(frozen=True)
class Read:
    """A measurement: replies and bytes a second, µs of the servers' CPU for each MB, use of both cores in percent."""

    replies: float
    bytes: float
    cost: float
    server_core: float
    client_core: float


Urls = dict[str, dict[str, str]]  # by size, by way
Results = dict[tuple[str, str], list[Read]]  # by size and way


def store(filing: Filing, nginx: str) -> Urls:
    """Store a file of each size. Returns its URL by each way."""
    found: Urls = {}
    for size, (length, _) in SIZES.items():
        content = random.Random(length).randbytes(length)
        name = size.replace(" ", "")
        hash = filing.put(name, content)["hash"]
        at = filing.lies_at(hash)
        ours = f"/files/content/{name}"
        static = f"{nginx}/static/{at.parent.name}/{at.name}"
        limit = static.replace("/static/", "/limit/")
        places = (static, f"{nginx}{ours}", f"{nginx}{ours}", limit, f"{filing.base}{ours}")
        found[size] = dict(zip(WAYS, places, strict=True))
        for url in places:
            _prove(url, filing.identity, hash)
    return found


def _prove(url: str, identity: dict[str, str], hash: str) -> None:
    got = httpx.get(url, headers=identity, timeout=60)
    if got.status_code != 200 or hashlib.sha256(got.content).hexdigest() != hash:
        raise Refused(f"{url}: {got.status_code}, or not the file")
    if "/files/" in url and httpx.get(url).status_code != 403:
        raise Refused(f"{url}: given to strangers")


def read(url: str, identity: dict[str, str], servers: list[psutil.Process], connections: int, seconds: float) -> Read:
    """One measurement. Raises Refused when any reply was not 200 or was cut."""
    reader = ["taskset", "-c", str(CLIENT_CORE), sys.executable, BENCH / "reader.py", url, connections, seconds]
    headers = [f"{name}: {value}" for name, value in identity.items()]
    psutil.cpu_percent(percpu=True)
    spent = _spent(servers)
    run = subprocess.run([*map(str, reader), *headers], capture_output=True, text=True)
    cores = psutil.cpu_percent(percpu=True)
    if run.returncode:
        raise Refused(f"{url}: {run.stderr}")
    came = json.loads(run.stdout)
    cost = (_spent(servers) - spent) / came["bytes"] / came["seconds"] * 1e12
    return Read(came["replies"], came["bytes"], cost, cores[SERVER_CORE], cores[CLIENT_CORE])


def _spent(servers: list[psutil.Process]) -> float:
    """Seconds of CPU that they have used."""
    return sum(sum(each.cpu_times()[:2]) for each in servers)


def table_of(results: Results) -> Table:
    """Medians, and their share of nginx's bytes."""
    table = Table(title="\ndownload", title_justify="left", title_style="bold")
    for heading in ("file", "by"):
        table.add_column(heading)
    for heading in ("files/s", "MB/s", "least", "most", "µs CPU/MB", "core 0", "core 1", "it / nginx"):
        table.add_column(heading, justify="right")
    for (size, way), rounds in results.items():
        rates = sorted(each.bytes / 1e6 for each in rounds)
        base = median(each.bytes / 1e6 for each in results[size, "nginx"])
        table.add_row(
            size,
            way,
            f"{median(each.replies for each in rounds):,.0f}",
            f"{median(rates):,.0f}",
            f"{rates[0]:,.0f}",
            f"{rates[-1]:,.0f}",
            f"{median(each.cost for each in rounds):,.0f}",
            f"{median(each.server_core for each in rounds):.0f} %",
            f"{median(each.client_core for each in rounds):.0f} %",
            f"{median(rates) / base:.2f}",
        )
    return table


@click.command()
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=3.0, show_default=True, type=click.FloatRange(1), help="of each measurement")
def main(rounds: int, seconds: float) -> None:
    """Measure the three ways side by side and print medians and ratios."""
    prepare(taskset="util-linux", nginx="nginx")
    pin(psutil.Process(), CLIENT_CORE)
    results: Results = defaultdict(list)
    with Ground() as ground:
        filing = start_filing(ground)
        nginx, nginx_pid = start_nginx(ground, filing)
        urls, servers = store(filing, nginx), [psutil.Process(nginx_pid), psutil.Process(filing.worker)]
        with Watch(filing.worker) as watch:
            for _ in range(rounds):
                for size, (_, connections) in SIZES.items():
                    for way, url in urls[size].items():
                        pin(servers[-1], WAYS[way])
                        read(url, filing.identity, servers, connections, WARM_UP)
                        results[size, way].append(read(url, filing.identity, servers, connections, seconds))
    console = console_for_tables()
    console.print(table_of(results))
    console.print(
        f"medians of {rounds} rounds of {seconds:g} s; CPU: of nginx and our worker, both on core {SERVER_CORE}; "
        f"client and redis on core {CLIENT_CORE}\nour worker's memory, MiB: PSS {watch.before.pss:.1f} before, "
        f"{watch.highest.pss:.1f} at most; RSS {watch.before.rss:.1f} and {watch.highest.rss:.1f}"
    )


if __name__ == "__main__":
    refusing(main)
