"""How long users wait at a steady load: our server with two workers, at 1,000 authenticated requests a second.

`python bench/latency.py [--rate N] [--seconds N]`

Laws: every request has its time on a fixed timetable; half of them are GET, half POST. Its latency counts from that
time, not from when a connection was free to send it: a server that stalls is charged for all requests that had to wait
("coordinated omission"). The client sleeps by select(), exact to microseconds, where an event loop rounds to
milliseconds.
"""

import select
import socket
from collections import deque
from dataclasses import dataclass, field
from time import perf_counter
from urllib.parse import urlsplit

import click
import numpy
from contest import Ground, Shot, console_for_tables, prepare, refusing
from contestants import backlore
from proof import prove
from rich.progress import Progress
from rich.table import Table

CONNECTIONS = 50
WARM_UP = 2  # seconds at the same rate, not counted
LINGER = 5  # seconds until a request without a reply is an error
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99, "p99.9": 99.9, "max": 100}


@dataclass(eq=False)
class Line:
    """One connection: idle, or waiting for the reply to the request that was due at `due`."""

    socket: socket.socket
    due: float = 0.0
    method: str = ""
    received: bytes = b""

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, method: str, request: bytes, due: float) -> None:
        self.method, self.due, self.received = method, due, b""
        self.socket.sendall(request)

    def receive(self) -> int | None:
        """Read what has come. The reply's status when it is complete; 0 when the connection is gone."""
        try:
            chunk = self.socket.recv(65536)
        except OSError:
            return 0
        if not chunk:
            return 0
        self.received += chunk
        return status_of(self.received)


@dataclass
class Record:
    """Latencies in seconds by method, the client's own delays, and what went wrong."""

    latencies: dict[str, list[float]] = field(default_factory=lambda: {"GET": [], "POST": []})
    delays: list[float] = field(default_factory=list)
    refused: int = 0
    broken: int = 0


class Load:
    """Sends requests on a timetable over a fixed set of connections."""

    def __init__(self, shots: tuple[Shot, Shot], rate: int):
        address = urlsplit(shots[0].url)
        self._address = (address.hostname, address.port)
        self._requests = [(shot.method, request_of(shot)) for shot in shots]
        self._rate = rate

    def run(self, seconds: float, tick=lambda done: None) -> Record:
        """Send `rate` requests a second for `seconds`. `tick` is called now and then with the share done."""
        record, total = Record(), int(seconds * self._rate)
        idle = deque(self._connect() for _ in range(CONNECTIONS))
        busy: set[Line] = set()
        start, sent = perf_counter() + 0.01, 0
        end = start + seconds + LINGER
        while (sent < total or busy) and perf_counter() < end:
            now = perf_counter()
            while sent < total and idle and start + sent / self._rate <= now:
                busy.add(self._send(idle.popleft(), sent, start + sent / self._rate, record))
                sent += 1
            wake = start + sent / self._rate if sent < total and idle else now + 0.1
            ready, _, _ = select.select(busy, (), (), max(0.0, wake - perf_counter()))
            for line in ready:
                self._receive(line, busy, idle, record)
            if sent % self._rate == 0:
                tick(sent / total)
        record.broken += len(busy) + total - sent
        for line in (*idle, *busy):
            line.socket.close()
        return record

    def _connect(self) -> Line:
        connection = socket.create_connection(self._address, timeout=LINGER)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Line(connection)

    def _send(self, line: Line, number: int, due: float, record: Record) -> Line:
        method, request = self._requests[number % 2]
        line.send(method, request, due)
        record.delays.append(perf_counter() - due)
        return line

    def _receive(self, line: Line, busy: set[Line], idle: deque[Line], record: Record) -> None:
        status = line.receive()
        if status is None:
            return
        busy.remove(line)
        if status == 0:
            record.broken += 1
            line.socket.close()
            line = self._connect()
        elif status // 100 == 2:
            record.latencies[line.method].append(perf_counter() - line.due)
        else:
            record.refused += 1
        idle.append(line)


def request_of(shot: Shot) -> bytes:
    """The bytes of a request (HTTP/1.1)."""
    address = urlsplit(shot.url)
    headers = {"host": address.netloc, **shot.headers}
    if shot.body:
        headers["content-length"] = str(len(shot.body.encode()))
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{shot.method} {address.path} HTTP/1.1\r\n{head}\r\n{shot.body}".encode()


def status_of(received: bytes) -> int | None:
    """The status of a reply with a Content-Length, once all of it is there."""
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return None
    _, _, rest = head.lower().partition(b"content-length:")
    if not rest:
        raise ValueError(f"a reply without Content-Length: {head!r}")
    complete = len(body) >= int(rest.partition(b"\r\n")[0])
    return int(head[9:12]) if complete else None


def table_of(record: Record, rate: int, seconds: int) -> Table:
    """Percentiles in ms, of all requests, of each kind, and of the client's own delay in sending."""
    table = Table(title=f"\n{rate:,} requests a second for {seconds} s", title_justify="left", title_style="bold")
    table.add_column("from the scheduled time to the whole reply, ms")
    for heading in ("requests", *PERCENTILES):
        table.add_column(heading, justify="right")
    rows = {
        "all": [*record.latencies["GET"], *record.latencies["POST"]],
        "authenticated GET": record.latencies["GET"],
        "authenticated POST": record.latencies["POST"],
        "of which until the client had sent": record.delays,
    }
    for name, times in rows.items():
        cells = numpy.percentile(numpy.array(times or [0.0]) * 1000, list(PERCENTILES.values()))
        table.add_row(name, f"{len(times):,}", *(f"{cell:.2f}" for cell in cells))
    return table


@click.command()
@click.option("--rate", default=1000, show_default=True, type=click.IntRange(1), help="requests a second")
@click.option("--seconds", default=20, show_default=True, type=click.IntRange(1))
def main(rate: int, seconds: int) -> None:
    """Measure latency at a constant rate and print percentiles and errors."""
    prepare(taskset="util-linux")
    console = console_for_tables()
    with Ground() as ground, Progress(console=console, refresh_per_second=1, transient=True) as progress:
        task = progress.add_task("starting", total=1.0)
        contestant = backlore(ground, workers=2, spread=True)
        prove(contestant)
        load = Load((contestant.get, contestant.post), rate)
        load.run(WARM_UP)
        progress.update(task, description=f"{rate:,} a second")
        record = load.run(seconds, lambda done: progress.update(task, completed=done))
    console.print(table_of(record, rate, seconds))
    console.print(f"errors: {record.refused} replies weren't 2xx, {record.broken} had no reply")


if __name__ == "__main__":
    refusing(main)
