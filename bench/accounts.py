"""What accounts cost: signups and logins a second, beside peers; how long other clients wait meanwhile; and whether the
time of a reply reveals a known address.

`python bench/accounts.py`: each server has both cores and two processes (PocketBase has its threads). Ours and
FastAPI's hash with argon2id (t=2, 19 MiB); PocketBase hashes as it does, with bcrypt. The requirement is that a login
is no slower than theirs, starves no other client and reveals nothing.
"""

import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median, quantiles

import httpx
from contest import PEERS, Ground, console_for_tables, free_port, listens, prepare, refusing, start_redis
from contestants import EMAIL, SECRET
from contestants import PASSWORD as SUPERUSERS
from rich.table import Table

PASSWORD = "a long password"
KNOWN, UNKNOWN = "known@example.com", "unknown@example.com"
TRIES = 200  # tries of each address, in turn
AT_ONCE = 50  # clients that log in while others work
CLIENTS = 16  # clients of the comparison
SECONDS = 8
ROUNDS = 3

Send = Callable[[httpx.Client, str], httpx.Response]  # a request about the account of an address
numbers = itertools.count()


class Peer:
    """A running server, and its two requests."""

    def __init__(self, base: str, sign_up: Send, log_in: Send):
        self.base = base
        self.sign_up = sign_up
        self.log_in = log_in


def account(email: str) -> dict[str, str]:
    return {"email": email, "password": PASSWORD}


def ours(ground: Ground) -> Peer:
    """Our server without rate limits, which would be measured otherwise."""
    app = ground.folder / "app"
    shutil.copytree(PEERS / "ours", app, ignore=shutil.ignore_patterns("secret.py", "__pycache__", ".data"))
    kinds = {kind: [1_000_000, 60] for kind in ("signup", "login", "login-account")}
    (app / "config.py").write_text(f"CONFIG = {{'name': 'bench', 'rates': {json.dumps(kinds)}}}")
    port = free_port()
    run = [sys.executable, "-m", "backlore.cli", "run", "--app", app, "--port", port, "--workers", 2]
    process = ground.start([*run, "--data", ground.folder / "data"], PYTHONPATH=str(Path(__file__).parent.parent))
    base = f"http://127.0.0.1:{port}"
    ground.wait(process, lambda: healthy(base))
    return Peer(base, post("/auth/signup", account), post("/auth/login", account))


def fastapi(ground: Ground) -> Peer:
    """FastAPI on uvicorn with two workers."""
    redis, port = start_redis(ground), free_port()
    uvicorn = [sys.executable, "-m", "uvicorn", "server:app", "--app-dir", PEERS / "fastapi_accounts"]
    flags = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--workers", 2, "--port", port]
    process = ground.start([*uvicorn, *flags], REDIS=redis, SECRET=SECRET)
    ground.wait(process, lambda: listens(("127.0.0.1", port)))
    return Peer(f"http://127.0.0.1:{port}", post("/auth/signup", account), post("/auth/login", account))


def pocketbase(ground: Ground) -> Peer:
    """PocketBase with its own collection of users."""
    port, data = free_port(), ground.folder / "data"
    binary = Path(sys.prefix) / "bin" / "pocketbase"
    subprocess.run([binary, "superuser", "upsert", EMAIL, SUPERUSERS, "--dir", data], check=True, capture_output=True)
    process = ground.start([binary, "serve", "--dir", data, "--http", f"127.0.0.1:{port}"])
    ground.wait(process, lambda: listens(("127.0.0.1", port)))
    users = "/api/collections/users"
    sign_up = post(f"{users}/records", lambda email: account(email) | {"passwordConfirm": PASSWORD})
    log_in = post(f"{users}/auth-with-password", lambda email: {"identity": email, "password": PASSWORD})
    return Peer(f"http://127.0.0.1:{port}", sign_up, log_in)


def post(path: str, body: Callable[[str], dict[str, str]]) -> Send:
    return lambda client, email: client.post(path, json=body(email))


def healthy(base: str) -> bool:
    try:
        return httpx.get(f"{base}/health").status_code == 200
    except httpx.TransportError:
        return False


def rate(peer: Peer, send: Send, address: Callable[[], str]) -> float:
    """Requests a second by the clients of the comparison. Every request must succeed."""
    stop = time.perf_counter() + SECONDS

    def run(_: int) -> int:
        done = 0
        with httpx.Client(base_url=peer.base, timeout=60) as client:
            while time.perf_counter() < stop:
                send(client, address()).raise_for_status()
                done += 1
        return done

    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(run, range(CLIENTS))) / (time.perf_counter() - began)


def compare() -> dict[str, tuple[float, float]]:
    """Signups and logins a second of each server: the medians of rounds in turn."""
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(ROUNDS):
        for start in (ours, fastapi, pocketbase):
            with Ground() as ground:
                peer = start(ground)
                with httpx.Client(base_url=peer.base, timeout=30) as client:
                    peer.sign_up(client, KNOWN).raise_for_status()
                    peer.log_in(client, KNOWN).raise_for_status()
                signups = rate(peer, peer.sign_up, lambda: f"user{next(numbers)}@example.com")
                logins = rate(peer, peer.log_in, lambda: KNOWN)
                found.setdefault(start.__name__, []).append((signups, logins))
    return {name: (median(a for a, _ in runs), median(b for _, b in runs)) for name, runs in found.items()}


def login(client: httpx.Client, email: str, password: str) -> float:
    """The milliseconds of one try."""
    began = time.perf_counter()
    client.post("/auth/login", json={"email": email, "password": password})
    return (time.perf_counter() - began) * 1e3


def difference(client: httpx.Client) -> tuple[float, float, float]:
    """Median milliseconds for a known and for an unknown address, and how far single tries spread (p90 - p10)."""
    known, unknown = [], []
    for _ in range(TRIES):
        known.append(login(client, KNOWN, "a wrong password"))
        unknown.append(login(client, UNKNOWN, "a wrong password"))
    tenths = quantiles(known, n=10)
    return median(known), median(unknown), tenths[-1] - tenths[0]


def flood(base: str, client: httpx.Client) -> tuple[float, list[float], int]:
    """Logins a second by 50 clients, the milliseconds of an authenticated GET meanwhile, and how many were refused."""
    stop = threading.Event()
    counts = {200: 0, 503: 0}

    def run() -> None:
        with httpx.Client(base_url=base, timeout=60) as other:
            while not stop.is_set():
                got = other.post("/auth/login", json=account(KNOWN))
                counts[got.status_code] += 1

    waits = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = [pool.submit(run) for _ in range(AT_ONCE)]
        try:
            time.sleep(1)
            began, before = time.perf_counter(), counts[200]
            while time.perf_counter() < began + SECONDS:
                asked = time.perf_counter()
                client.get("/me").raise_for_status()
                waits.append((time.perf_counter() - asked) * 1e3)
                time.sleep(0.005)
            rate = (counts[200] - before) / (time.perf_counter() - began)
        finally:
            stop.set()
        for each in running:
            each.result()
    return rate, waits, counts[503]


def main() -> None:
    """Measure and print."""
    prepare()
    compared = compare()
    with Ground() as ground:
        peer = ours(ground)
        with httpx.Client(base_url=peer.base, timeout=30) as client:
            peer.sign_up(client, KNOWN).raise_for_status()
            known, unknown, spread = difference(client)
            peer.log_in(client, KNOWN).raise_for_status()  # last: a login gives the client its session
            logins, waits, refused = flood(peer.base, client)
    console = console_for_tables()
    table = Table("server", "signups/s", "ours / it", "logins/s", "ours / it", title=f"{CLIENTS} clients, two cores")
    signups_ours, logins_ours = compared["ours"]
    for name, (signups, entered) in compared.items():
        ratios = f"{signups_ours / signups:.2f}", f"{logins_ours / entered:.2f}"
        table.add_row(name, f"{signups:.1f}", ratios[0], f"{entered:.1f}", ratios[1])
    console.print(table)
    table = Table("what", "figure", title="accounts, two workers")
    table.add_row("wrong password, known address, median", f"{known:.1f} ms")
    table.add_row("any password, unknown address, median", f"{unknown:.1f} ms")
    table.add_row("spread of single tries (p90 - p10)", f"{spread:.1f} ms")
    table.add_row(f"logins a second, {AT_ONCE} clients", f"{logins:.0f}")
    table.add_row("refused meanwhile (503)", str(refused))
    table.add_row("authenticated GET meanwhile, p50", f"{median(waits):.1f} ms")
    table.add_row("authenticated GET meanwhile, p99", f"{quantiles(waits, n=100)[-1]:.1f} ms")
    console.print(table)


if __name__ == "__main__":
    refusing(main)
