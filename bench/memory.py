"""How much of the machine's memory our server needs: every process of it, idle and under load.

`python bench/memory.py [--workers N] [--seconds N]`

Law: RSS counts shared pages once for each process; PSS divides them among the processes that share them. So only PSS
may be added up. Both are read from /proc/PID/smaps_rollup, in MiB. Under load, the highest value counts.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click
import psutil
from contest import ENGINE, Ground, Shot, console_for_tables, family_of, prepare, refusing, wrk
from contestants import Contestant, backlore
from proof import prove
from rich.progress import Progress
from rich.table import Table

SETTLE = 6  # seconds that a server rests before it counts as idle: longer than memory for hashing passwords is kept
EVERY = 0.5  # seconds between two looks
ROLES = {"serve": "worker", "tasks": "tasks", "backlore.process.zygote": "zygote"}  # by an argument of the process


@dataclass(frozen=True)
class Size:
    """The memory of one process, in MiB."""

    rss: float
    pss: float

    def highest(self, other: "Size") -> "Size":
        return Size(max(self.rss, other.rss), max(self.pss, other.pss))

    def plus(self, other: "Size") -> "Size":
        return Size(self.rss + other.rss, self.pss + other.pss)


class Watch:
    """The highest size of a process during the block: `with Watch(pid) as watch: …`, then `watch.highest`."""

    def __init__(self, pid: int, every: float = 0.05):
        self.before = self.highest = size_of(pid)
        self._pid, self._every = pid, every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(self._every):
            self.highest = size_of(self._pid).highest(self.highest)


Sizes = dict[str, Size]  # by the name of the process
NOTHING = Size(0.0, 0.0)
TOTAL = "total"


def sizes_of(pid: int) -> Sizes:
    """The sizes of a server's processes, and their total. An engine counts with the forks that save for it."""
    sizes: Sizes = {}
    for process in family_of(pid):
        with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            size = size_of(process.pid)
            for name in (_name_of(process, pid), TOTAL):
                sizes[name] = sizes.get(name, NOTHING).plus(size)
    return sizes


def size_of(pid: int) -> Size:
    """The size of one process. Raises OSError when it has ended."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kib = {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}
    return Size(kib["Rss"] / 1024, kib["Pss"] / 1024)


def _name_of(process: psutil.Process, master: int) -> str:
    if process.pid == master:
        return "master"
    if process.name() == ENGINE:
        return "engine"
    roles = [role for word, role in ROLES.items() if word in process.cmdline()]
    return f"{roles[0] if roles else process.name()} {process.pid}"


def highest_during(contestant: Contestant, shots: tuple[Shot, ...], seconds: int) -> Sizes:
    """The highest size of each process, and the highest total, while wrk sends the requests in turn."""
    highest: Sizes = {}
    with ThreadPoolExecutor(1) as pool:
        loads = pool.submit(lambda: [wrk(shot, seconds // len(shots)) for shot in shots])
        while not loads.done():
            for name, size in sizes_of(contestant.pid).items():
                highest[name] = size.highest(highest.get(name, NOTHING))
            time.sleep(EVERY)
        loads.result()  # raises what went wrong in wrk
    return highest


def table_of(columns: dict[str, Sizes]) -> Table:
    """A row for each process, RSS and PSS for each state."""
    table = Table(title="\nMiB", title_justify="left", title_style="bold")
    table.add_column("process")
    for state in columns:
        table.add_column(f"RSS {state}", justify="right")
        table.add_column(f"PSS {state}", justify="right")
    names = dict.fromkeys(name for sizes in columns.values() for name in sizes if name != TOTAL)
    for name in [*names, TOTAL]:
        sizes = [sizes.get(name, NOTHING) for sizes in columns.values()]
        cells = [f"{value:.1f}" for size in sizes for value in (size.rss, size.pss)]
        table.add_row(name, *cells, style="bold" if name == TOTAL else None)
    return table


@click.command()
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=10, show_default=True, type=click.IntRange(2), help="of load")
def main(workers: int, seconds: int) -> None:
    """Measure memory idle after the start, under load, and idle after it."""
    prepare(taskset="util-linux", wrk="wrk")
    console = console_for_tables()
    with Ground() as ground, Progress(console=console, refresh_per_second=1, transient=True) as progress:
        task = progress.add_task("idle", total=3)
        contestant = backlore(ground, workers=workers, spread=True)
        prove(contestant)
        time.sleep(SETTLE)
        columns = {"idle": sizes_of(contestant.pid)}
        progress.update(task, advance=1, description="under load")
        columns["load"] = highest_during(contestant, (contestant.get, contestant.post), seconds)
        progress.update(task, advance=1, description="idle again")
        time.sleep(SETTLE)
        columns["after"] = sizes_of(contestant.pid)
    console.print(table_of(columns))
    console.print(f"{workers} workers; load: {seconds} s of wrk, GET then POST")


if __name__ == "__main__":
    refusing(main)
