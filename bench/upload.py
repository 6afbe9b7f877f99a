"""How long an upload of 100 MB takes, beside `cat` into a file with fsync on the same disk; and 1 GB in constant
memory.

`python bench/upload.py [--rounds N] [--large BYTES]`

Laws: an upload is over when its reply has come, which says that the file is fsynced. The hash in the reply is compared
with the SHA-256 of what was sent; every upload has different bytes. Both take turns and write to the same disk. What
was written is deleted, and the disk rests, before the next. Nothing is bound to a core: both have the whole machine,
ours together with the client, which sends from a file in memory by sendfile.
"""

import hashlib
import json
import os
import random
import socket
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import click
import httpx
from contest import Ground, Refused, console_for_tables, prepare, refusing
from filing import Filing, start_filing
from memory import Watch
from rich.table import Table

SIZE = 100_000_000  # bytes
PIECE = 1 << 20  # bytes that are sent at once when there is no file
REST = 1.0  # seconds between two measurements, for the disk
BOUNDARY = "----bench"
HEAD = (
    f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="%s"\r\n'
    "content-type: application/octet-stream\r\n\r\n"
)
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()


def send(filing: Filing, name: str, size: int, pieces: Iterable[Path | bytes]) -> tuple[dict, float]:
    """Upload what the pieces make. Returns the file as the reply describes it, and the seconds it took."""
    parts, head = urlsplit(filing.base), (HEAD % name).encode()
    lines = [
        "POST /files HTTP/1.1",
        f"host: {parts.netloc}",
        "connection: close",
        f"content-type: multipart/form-data; boundary={BOUNDARY}",
        f"content-length: {len(head) + size + len(TAIL)}",
        *(f"{key}: {value}" for key, value in filing.identity.items()),
    ]
    began = time.perf_counter()
    with socket.create_connection((parts.hostname, parts.port)) as client:
        client.sendall("\r\n".join([*lines, "", ""]).encode() + head)
        for piece in pieces:
            if isinstance(piece, bytes):
                client.sendall(piece)
            else:
                with piece.open("rb") as file:
                    client.sendfile(file)
        client.sendall(TAIL)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    took = time.perf_counter() - began
    status, _, body = answer.partition(b"\r\n\r\n")
    if not status.startswith(b"HTTP/1.1 200 "):
        raise Refused(f"upload: {answer[:300]!r}")
    return json.loads(body), took


def forget(filing: Filing, file: dict) -> None:
    """Delete a file for good."""
    with httpx.Client(base_url=filing.base, headers=filing.identity, timeout=30) as client:
        client.post("/files/delete", json={"name": file["name"]}).raise_for_status()
        client.post("/files/erase", json={"ids": [file["id"]]}).raise_for_status()


def by_us(filing: Filing, source: Path) -> float:
    """Seconds until the file is acknowledged."""
    file, took = send(filing, "large.bin", SIZE, [source])
    if file["hash"] != hashlib.sha256(source.read_bytes()).hexdigest():
        raise Refused("upload: what was kept is not what was sent")
    forget(filing, file)
    return took


def by_cat(source: Path, target: Path) -> float:
    """Seconds until the file is fsynced."""
    began = time.perf_counter()
    shell = ["sh", "-c", 'cat "$1" > "$2" && sync "$2"', "sh", source, target]
    subprocess.run(shell, check=True)
    took = time.perf_counter() - began
    target.unlink()
    return took


def upload_large(filing: Filing, size: int) -> tuple[float, Watch]:
    """Upload `size` bytes while the worker's memory is measured. Returns the seconds, and the measurements."""
    piece = random.Random(0).randbytes(PIECE)
    hash = hashlib.sha256()
    for _ in range(size // PIECE):
        hash.update(piece)
    with Watch(filing.worker, 0.02) as watch:
        file, took = send(filing, "huge.bin", size // PIECE * PIECE, (piece for _ in range(size // PIECE)))
    if file["hash"] != hash.hexdigest():
        raise Refused("upload: what was kept is not what was sent")
    forget(filing, file)
    return took, watch


def table_of(results: dict[str, list[float]]) -> Table:
    """Medians, and how many times longer than cat."""
    table = Table(title=f"\nupload of {SIZE:,} bytes", title_justify="left", title_style="bold")
    table.add_column("by")
    for heading in ("ms", "least", "most", "MB/s", "it / cat"):
        table.add_column(heading, justify="right")
    for name, rounds in results.items():
        took = median(rounds)
        table.add_row(
            name,
            f"{took * 1e3:,.0f}",
            f"{min(rounds) * 1e3:,.0f}",
            f"{max(rounds) * 1e3:,.0f}",
            f"{SIZE / took / 1e6:,.0f}",
            f"{took / median(results['cat']):.2f}",
        )
    return table


@click.command()
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1))
@click.option("--large", default=1 << 30, show_default=True, type=click.IntRange(PIECE), help="bytes of the last one")
def main(rounds: int, large: int) -> None:
    """Measure both side by side, then memory, and print medians and the ratio."""
    prepare()
    results: dict[str, list[float]] = {"cat": [], "ours": []}
    with Ground() as ground:
        filing = start_filing(ground, core=None)
        handle = os.memfd_create("source")
        source = Path(f"/proc/{os.getpid()}/fd/{handle}")
        for number in range(rounds + 1):
            source.write_bytes(random.Random(number).randbytes(SIZE))
            for name, measure in (
                ("cat", lambda: by_cat(source, filing.data / "cat")),
                ("ours", lambda: by_us(filing, source)),
            ):
                time.sleep(REST)
                took = measure()
                if number:  # the first round is a warm-up
                    results[name].append(took)
        took, watch = upload_large(filing, large)
    console = console_for_tables()
    console.print(table_of(results))
    console.print(
        f"medians of {rounds} rounds\n{large:,} bytes in {took:.1f} s; our worker's memory, MiB: PSS "
        f"{watch.before.pss:.1f} before, {watch.highest.pss:.1f} at most; RSS {watch.before.rss:.1f} and "
        f"{watch.highest.rss:.1f}"
    )


if __name__ == "__main__":
    refusing(main)
