"""How many rows a second a suite sends, beside the same requests in a loop with httpx. One client each.

`python bench/rows.py [--rows N] [--rounds N]`

Laws: the two take turns on one server of Shoebox. Both check status and body. The figure is the median of the rounds.
The client's own CPU is shown beside it, since the server shares the machine.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import click
import httpx

from backlore.tools.testing import PASSWORD, destroy, get, post, row, run, sign_up
from backlore.tools.testing.server import OwnServer

SHOEBOX = Path(__file__).parent.parent / "example"
Figures = tuple[float, float]  # requests a second; ms of the client's CPU for each
WORKS = ["GET /health", "GET /tags, with a session", "POST /notes, with csrf"]


def rows_of(work: str, count: int) -> list[Any]:
    """A suite that repeats one request."""
    one = {
        WORKS[0]: row("health", get("/health", user=None), 200, {"ok": True}),
        WORKS[1]: row("tags", get("/tags"), 200, {"tags": []}),
        WORKS[2]: row("create", post("/notes", {"text": "x"}), 200, {"id": int}),
    }[work]
    return [one] * count


def by_rows(url: str, work: str, count: int) -> None:
    """Send the requests as rows."""
    report = run([sign_up("ann"), rows_of(work, count), destroy("ann")], url)
    assert report.ok, report


def by_httpx(url: str, work: str, count: int) -> None:
    """Send the requests in a loop with httpx."""
    login = {"email": "ann@example.com", "password": PASSWORD}
    with httpx.Client(base_url=url) as client:
        assert client.post("/auth/signup", json=login).status_code == 200
        csrf = {"x-csrf-token": client.post("/auth/login", json=login).json()["csrf"]}
        for _ in range(count):
            if work == WORKS[2]:
                got = client.post("/notes", json={"text": "x"}, headers=csrf)
                assert got.status_code == 200 and isinstance(got.json()["id"], int)
            else:
                got = client.get(work.split()[1].strip(","))
                assert got.status_code == 200 and got.json() in ({"ok": True}, {"tags": []})
        assert client.post("/auth/destroy", json={"password": PASSWORD}, headers=csrf).status_code == 200


def measure(send: Callable[[str, str, int], None], url: str, work: str, count: int) -> Figures:
    """One round. The cost of signing up and erasing the user is subtracted, by a run with one request."""
    spent = []
    for each in (1, count + 1):
        since, cpu = time.perf_counter(), time.process_time()
        send(url, work, each)
        spent.append((time.perf_counter() - since, time.process_time() - cpu))
    (start, start_cpu), (whole, whole_cpu) = spent
    return count / (whole - start), 1000 * (whole_cpu - start_cpu) / count


@click.command()
@click.option("--rows", default=2000, help="Rows of a round.")
@click.option("--rounds", default=3)
def main(rows: int, rounds: int) -> None:
    """Print the figures."""
    for work in WORKS:
        found: dict[str, list[Figures]] = {"rows": [], "httpx": []}
        for _ in range(rounds):
            for name, send in (("rows", by_rows), ("httpx", by_httpx)):
                with OwnServer(str(SHOEBOX)) as server:  # a fresh one: otherwise the two would share limits by address
                    found[name].append(measure(send, server.url, work, rows))
        for name, figures in found.items():
            rate, cpu = (median(each[place] for each in figures) for place in (0, 1))
            click.echo(f"{work:<28} {name:<6} {rate:>7,.0f} a second  {cpu:.2f} ms of CPU each")


if __name__ == "__main__":
    main()
