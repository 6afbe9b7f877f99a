"""The ground on which servers are measured: processes, cores, ports, redis and wrk.

Laws: a process that was started is ended by its pid, whatever happens, and its temporary folder is deleted with it. The
server has core 0 to itself; redis, wrk and the benchmark share core 1. A run in which one request failed has no figure.
"""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import psutil
from rich.console import Console

from backlore.process.program import find_binary

BENCH = Path(__file__).resolve().parent
PEERS = BENCH / "peers"
CACHE = BENCH / ".cache"
ENGINE = "valkey-server"  # the engine's process name

SERVER_CORE = 0
CLIENT_CORE = 1
CONNECTIONS = 64
PATIENCE = 30  # seconds until a server must answer, or must have ended


class Refused(Exception):
    """The contest can't give an honest figure. The text says why, to the person who runs it."""


@dataclass(frozen=True)
class Shot:
    """One HTTP request that is sent again and again. `body` is JSON, or empty."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""


@dataclass(frozen=True)
class Figures:
    """The result of a run: requests per second, latencies in ms, use of the two cores in percent."""

    rate: float
    p50: float
    p99: float
    server_core: float = 0.0
    client_core: float = 0.0


class Ground:
    """A temporary folder and the processes started in it; a context that leaves nothing behind."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="bench-"))
        self._processes: list[subprocess.Popen] = []

    def __enter__(self) -> "Ground":
        return self

    def __exit__(self, *_):
        for process in reversed(self._processes):
            _end(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, command: Sequence[str | Path], core: int | None = None, **env: str) -> subprocess.Popen:
        """Start a command, on one core if that is given. Its output goes to a file in the folder."""
        pinned = ["taskset", "-c", str(core)] if core is not None else []
        with open(self._log(len(self._processes)), "wb") as log:
            process = subprocess.Popen(
                [*pinned, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C is for us alone: we end them, in order
            )
        self._processes.append(process)
        return process

    def wait(self, process: subprocess.Popen, ready: Callable[[], bool]) -> None:
        """Wait until the process is ready. Raises Refused, with the end of its output, when it isn't."""
        deadline = time.monotonic() + PATIENCE
        while not ready():
            if process.poll() is not None:
                self._refuse(process, f"ended with {process.returncode}")
            if time.monotonic() > deadline:
                self._refuse(process, f"isn't ready after {PATIENCE} s")
            time.sleep(0.02)

    def _refuse(self, process: subprocess.Popen, why: str) -> NoReturn:
        log = self._log(self._processes.index(process)).read_text(errors="replace")
        raise Refused(f"{' '.join(process.args)}\n{why}:\n{log[-2000:]}")

    def _log(self, number: int) -> Path:
        return self.folder / f"{number}.log"


def _end(process: subprocess.Popen) -> None:
    """SIGTERM, then SIGKILL for it and its descendants when that takes too long."""
    family = family_of(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
    for survivor in family:  # psutil knows the start time too: it never kills a stranger with the same pid
        with suppress(psutil.NoSuchProcess):
            survivor.kill()
    process.wait()


def family_of(pid: int) -> list[psutil.Process]:
    """The process and all its descendants; empty when it has ended."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    return []


def prepare(**tools: str) -> None:
    """Check that the machine has what the contest needs (program=package). Raises Refused if not."""
    for tool, package in tools.items():
        if shutil.which(tool) is None:
            raise Refused(f"{tool} isn't on the PATH: apt-get install {package}")
    if not {SERVER_CORE, CLIENT_CORE} <= os.sched_getaffinity(0):
        raise Refused(f"cores {SERVER_CORE} and {CLIENT_CORE} aren't both ours")
    signal.signal(signal.SIGTERM, _interrupt)  # like Ctrl-C: what was started is ended


def _interrupt(*_):
    raise KeyboardInterrupt


def refusing(main: Callable[[], None]) -> None:
    """Run a benchmark. A refusal is one message and exit code 1, never a traceback."""
    try:
        main()
    except Refused as refusal:
        sys.exit(f"refused: {refusal}")
    except KeyboardInterrupt:
        sys.exit("interrupted")


def console_for_tables() -> Console:
    """A console that doesn't break our tables, even when its output goes to a file."""
    console = Console()
    console.width = max(console.width, 100)
    return console


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(address: tuple[str, int] | str) -> bool:
    """Whether a TCP address or the path of a Unix socket takes connections."""
    kind = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(kind, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(address) == 0


def start_redis(ground: Ground) -> str:
    """Start a redis on the client's core, as our master starts its own. Returns its socket's path."""
    path = str(ground.folder / "redis.sock")
    durability = ["--appendonly", "yes", "--appendfsync", "everysec"]
    process = ground.start([find_binary(), "--port", "0", "--unixsocket", path, *durability], core=CLIENT_CORE)
    ground.wait(process, lambda: listens(path))
    return path


def pin(process: psutil.Process, core: int) -> None:
    """Move every thread of a running process to a core."""
    for thread in process.threads():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(thread.id, {core})


def engine_of(pid: int) -> psutil.Process:
    """The redis that a server started for itself. Raises Refused when it has none."""
    for process in family_of(pid):
        if process.name() == ENGINE:
            return process
    raise Refused("our server started no engine")


def socket_in(folder: Path) -> str:
    """The path of the Unix socket somewhere in a folder."""
    for path in folder.rglob("*"):
        if stat.S_ISSOCK(path.stat().st_mode):
            return str(path)
    raise Refused(f"no Unix socket in {folder}")


def wrk(shot: Shot, seconds: int, paths: Path | None = None) -> Figures:
    """Run wrk on the client's core. Raises Refused when any request failed.

    `paths` is a file with a path in each line. All of them are requested in turn.
    """
    headers = [part for name, value in shot.headers.items() for part in ("-H", f"{name}: {value}")]
    command = ["taskset", "-c", str(CLIENT_CORE), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
    psutil.cpu_percent(percpu=True)
    run = subprocess.run(
        [*command, "-s", str(BENCH / "wrk.lua"), *headers, shot.url],
        env={**os.environ, "METHOD": shot.method, "BODY": shot.body, "PATHS": str(paths or "")},
        capture_output=True,
        text=True,
    )
    cores = psutil.cpu_percent(percpu=True)
    if run.returncode != 0:
        raise Refused(f"wrk: {run.stderr or run.stdout}")
    came = json.loads(run.stdout.splitlines()[-1])
    if came["refused"] or came["broken"]:
        raise Refused(
            f"{shot.method} {shot.url}: {came['refused']} replies weren't 2xx, {came['broken']} socket errors"
            f" in {came['requests']} requests"
        )
    rate = came["requests"] / came["seconds"]
    return Figures(rate, came["p50"], came["p99"], cores[SERVER_CORE], cores[CLIENT_CORE])
