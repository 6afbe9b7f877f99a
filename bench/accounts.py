"""What accounts cost: logins a second, what others wait meanwhile, and whether time tells a known address.

`python bench/accounts.py`: our server with two workers. A login hashes with argon2id (t=2, 19 MiB), in threads beside
the event loop, two at a time in each worker; what is asked for here is that it starves nobody and betrays nothing.
"""

import json
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median, quantiles

import httpx
from contest import PEERS, Ground, console_for_tables, free_port, prepare, refusing
from rich.table import Table

PASSWORD = "a long password"
KNOWN, UNKNOWN = "known@example.com", "unknown@example.com"
TRIES = 200  # of each address, in turn
AT_ONCE = 50
SECONDS = 8


def start(ground: Ground) -> str:
    """Our server without limits, which would be measured else. Returns its address."""
    app = ground.folder / "app"
    shutil.copytree(PEERS / "ours", app, ignore=shutil.ignore_patterns("secret.py", "__pycache__", ".data"))
    kinds = {kind: [1_000_000, 60] for kind in ("signup", "login", "login-account")}
    (app / "config.py").write_text(f"CONFIG = {{'name': 'bench', 'rates': {json.dumps(kinds)}}}")
    port = free_port()
    run = [sys.executable, "-m", "backlore.cli", "run", "--app", app, "--port", port, "--workers", 2]
    process = ground.start([*run, "--data", ground.folder / "data"], PYTHONPATH=str(Path(__file__).parent.parent))
    base = f"http://127.0.0.1:{port}"
    ground.wait(process, lambda: healthy(base))
    return base


def healthy(base: str) -> bool:
    try:
        return httpx.get(f"{base}/health").status_code == 200
    except httpx.TransportError:
        return False


def login(client: httpx.Client, email: str, password: str) -> float:
    """Milliseconds of one try."""
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
                got = other.post("/auth/login", json={"email": KNOWN, "password": PASSWORD})
                counts[got.status_code] += 1

    waits = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = [pool.submit(run) for _ in range(AT_ONCE)]
        time.sleep(1)
        began, before = time.perf_counter(), counts[200]
        while time.perf_counter() < began + SECONDS:
            asked = time.perf_counter()
            client.get("/me").raise_for_status()
            waits.append((time.perf_counter() - asked) * 1e3)
            time.sleep(0.005)
        rate = (counts[200] - before) / (time.perf_counter() - began)
        stop.set()
        for each in running:
            each.result()
    return rate, waits, counts[503]


def main() -> None:
    """Measure and print."""
    prepare()
    with Ground() as ground:
        base = start(ground)
        with httpx.Client(base_url=base, timeout=30) as client:
            client.post("/auth/signup", json={"email": KNOWN, "password": PASSWORD}).raise_for_status()
            login(client, KNOWN, PASSWORD)
            known, unknown, spread = difference(client)
            rate, waits, refused = flood(base, client)
    table = Table("what", "figure", title="accounts, two workers")
    table.add_row("wrong password, known address, median", f"{known:.1f} ms")
    table.add_row("any password, unknown address, median", f"{unknown:.1f} ms")
    table.add_row("spread of single tries (p90 - p10)", f"{spread:.1f} ms")
    table.add_row(f"logins a second, {AT_ONCE} clients", f"{rate:.0f}")
    table.add_row("refused meanwhile (503)", str(refused))
    table.add_row("authenticated GET meanwhile, p50", f"{median(waits):.1f} ms")
    table.add_row("authenticated GET meanwhile, p99", f"{quantiles(waits, n=100)[-1]:.1f} ms")
    console_for_tables().print(table)


if __name__ == "__main__":
    refusing(main)
