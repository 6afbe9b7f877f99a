"""How many small files a second a client with a session gets: from ours, PocketBase and Express, on one core.

`python bench/small_files.py [--rounds N] [--seconds N]`

Laws: 200 different files of 4 KB, requested in turn. Each contestant is first shown to send every byte of each, and
nothing to strangers. All run at once, and are measured in turn; the figure is the median. Servers have core 0, wrk and
redis core 1.
"""

import random
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click
import httpx
import psutil
from contest import (
    CLIENT_CORE,
    CONNECTIONS,
    PEERS,
    SERVER_CORE,
    Figures,
    Ground,
    Refused,
    Shot,
    console_for_tables,
    free_port,
    listens,
    pin,
    prepare,
    refusing,
    wrk,
)
from contestants import EMAIL, PASSWORD, install_node_packages, pocketbase_login, script, with_signup
from filing import start_filing
from rich.table import Table

FILES = {f"f{number}.bin": random.Random(number).randbytes(4096) for number in range(200)}
WARM_UP = 1  # seconds


@dataclass(frozen=True)
class Cabinet:
    """A server that has the files: a path for each, and the headers that identify the user."""

    base: str
    identity: dict[str, str]
    paths: dict[str, str]  # by name
    strangers: dict[str, str]  # what strangers could ask for: paths by name, without what identifies the user


def backlore(ground: Ground) -> Cabinet:
    """Ours: the session read and renewed, the user read, the file found in the catalog."""
    filing = start_filing(ground)
    for name, content in FILES.items():
        filing.put(name, content)
    paths = {name: f"/files/content/{name}" for name in FILES}
    return Cabinet(filing.base, filing.identity, paths, paths)


def express(ground: Ground) -> Cabinet:
    """Express 5: session read and renewed, user read in redis, `send` from a folder of that user."""
    install_node_packages()
    folder = ground.folder / "files"
    peer = with_signup(ground, lambda port: ["node", PEERS / "express" / "files.js"], FILES=str(folder))
    user = folder / httpx.get(peer.get.url, headers=peer.get.headers).raise_for_status().json()["id"]
    user.mkdir(parents=True)
    for name, content in FILES.items():
        (user / name).write_bytes(content)
    paths = {name: f"/files/{name}" for name in FILES}
    return Cabinet(peer.get.url.removesuffix("/me"), peer.get.headers, paths, paths)


def pocketbase(ground: Ground) -> Cabinet:
    """PocketBase: a protected file of a record that its owner may view, with a file token in the query."""
    port, data = free_port(), ground.folder / "data"
    binary = script("pocketbase")
    subprocess.run([binary, "superuser", "upsert", EMAIL, PASSWORD, "--dir", data], check=True, capture_output=True)
    process = ground.start([binary, "serve", "--dir", data, "--http", f"127.0.0.1:{port}"], core=SERVER_CORE)
    ground.wait(process, lambda: listens(("127.0.0.1", port)))
    base = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=f"{base}/api", timeout=30) as client:
        client.headers["authorization"] = pocketbase_login(client, "_superusers")["token"]
        client.patch("/settings", json={"logs": {"maxDays": 0}}).raise_for_status()
        client.patch("/collections/users", json={"fileToken": {"duration": 86400}}).raise_for_status()
        client.post("/collections", json=POCKETBASE_FILES).raise_for_status()
        account = {"email": EMAIL, "password": PASSWORD, "passwordConfirm": PASSWORD}
        owner = client.post("/collections/users/records", json=account).raise_for_status().json()["id"]
        stored = {}
        for name, content in FILES.items():
            sent = client.post("/collections/papers/records", data={"owner": owner}, files={"file": (name, content)})
            record = sent.raise_for_status().json()
            stored[name] = f"/api/files/papers/{record['id']}/{record['file']}"
        login = {"authorization": pocketbase_login(client, "users")["token"]}
        token = client.post("/files/token", headers=login).raise_for_status().json()["token"]
    return Cabinet(base, {}, {name: f"{path}?token={token}" for name, path in stored.items()}, stored)


POCKETBASE_FILES = {
    "name": "papers",
    "type": "base",
    "viewRule": "owner = @request.auth.id",
    "fields": [
        {"name": "owner", "type": "text", "required": True},
        {"name": "file", "type": "file", "required": True, "maxSelect": 1, "protected": True},
    ],
}
CABINETS: dict[str, Callable[[Ground], Cabinet]] = {"backlore": backlore, "express": express, "pocketbase": pocketbase}


def prove(cabinet: Cabinet) -> None:
    """Every byte to the owner, nothing to strangers. Raises Refused."""
    with httpx.Client(base_url=cabinet.base) as client:
        for name, path in cabinet.paths.items():
            got = client.get(path, headers=cabinet.identity)
            if got.status_code != 200 or got.content != FILES[name]:
                raise Refused(f"{path}: {got.status_code}, or not the file")
        for path in cabinet.strangers.values():
            if client.get(path).status_code not in (403, 404):
                raise Refused(f"{path}: given to strangers")


def measure(cabinet: Cabinet, folder: Path, seconds: int) -> Figures:
    """Measure one contestant once."""
    list_of_paths = folder / "paths"
    list_of_paths.write_text("\n".join(cabinet.paths.values()) + "\n")
    shot = Shot("GET", cabinet.base, cabinet.identity)
    wrk(shot, WARM_UP, list_of_paths)
    return wrk(shot, seconds, list_of_paths)


def table_of(results: dict[str, list[Figures]]) -> Table:
    """Medians, and how many times faster we are than each peer."""
    table = Table(title="\nfiles of 4 KB, with a session", title_justify="left", title_style="bold")
    table.add_column("contestant")
    for heading in ("files/s", "p50 ms", "p99 ms", "least", "most", "core 0", "core 1", "ours / it"):
        table.add_column(heading, justify="right")
    ours = median(each.rate for each in results["backlore"])
    for name, rounds in results.items():
        rates = sorted(each.rate for each in rounds)
        table.add_row(
            name,
            f"{median(rates):,.0f}",
            f"{median(each.p50 for each in rounds):.2f}",
            f"{median(each.p99 for each in rounds):.2f}",
            f"{rates[0]:,.0f}",
            f"{rates[-1]:,.0f}",
            f"{median(each.server_core for each in rounds):.0f} %",
            f"{median(each.client_core for each in rounds):.0f} %",
            f"{ours / median(rates):.2f}",
        )
    return table


@click.command()
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=3, show_default=True, type=click.IntRange(1), help="of each measurement")
def main(rounds: int, seconds: int) -> None:
    """Measure the contestants side by side and print medians and ratios."""
    prepare(taskset="util-linux", wrk="wrk", node="nodejs", npm="npm")
    pin(psutil.Process(), CLIENT_CORE)
    results: dict[str, list[Figures]] = {name: [] for name in CABINETS}
    with ExitStack() as stack:
        grounds = {name: stack.enter_context(Ground()) for name in CABINETS}
        cabinets = {name: make(grounds[name]) for name, make in CABINETS.items()}
        for cabinet in cabinets.values():
            prove(cabinet)
        for _ in range(rounds):
            for name, cabinet in cabinets.items():
                results[name].append(measure(cabinet, grounds[name].folder, seconds))
    console = console_for_tables()
    console.print(table_of(results))
    console.print(f"medians of {rounds} rounds of {seconds} s; wrk, 1 thread, {CONNECTIONS} connections")


if __name__ == "__main__":
    refusing(main)
