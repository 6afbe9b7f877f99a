"""Files on the local disk beside files on file servers: what going over HTTP costs.

    python bench/fileserver.py [--rounds 5] [--small 400] [--large 100]

One process puts and reads small files of 4 KB, 16 at a time, and one large file of some MB. It also appends lines to a
file, one after another. Everything is fsynced before it counts. The ways take turns for several rounds; the figure is
the median. The file servers have one worker each and share disk and cores with the rest, which servers on machines of
their own would not.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import uvloop
from contest import free_port

from backlore.clients.disk import Disk
from backlore.clients.fileserver import FileServer
from backlore.clients.redis.client import Redis
from backlore.core.notify import Notify
from backlore.core.schema import FilesConfig
from backlore.process.program import find_binary
from backlore.services.files.files import Files
from backlore.services.storage.remote import RemoteStore

TOKEN = "a token of the benchmark alone"
USER = "benchmark"
SIDE_BY_SIDE = 16
LINES = 100


async def rate(work, count):
    """How many calls a second, side by side."""
    numbers = iter(range(count))

    async def one():
        for number in numbers:
            await work(number)

    start = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(SIDE_BY_SIDE)))
    return count / (time.perf_counter() - start)


async def measure(socket, folder, urls, small, large):
    """The figures of one round, by name."""
    redis = Redis(unix_socket_path=socket, timeout=10)
    await redis.flushall()
    notify = Notify()
    store = RemoteStore([FileServer(url, TOKEN, notify) for url in urls], None, notify, 2) if urls else None
    files = Files(redis, notify, Disk(folder), None, FilesConfig(quota=1 << 40, trash=1), store)
    await files.start()
    found = {}

    async def put(number):
        found[number] = await files.put(USER, f"{number}", os.urandom(4096))

    async def read(number):
        assert sum([len(piece) async for piece in files.read(USER, found[number])]) == found[number].size

    figures = {"put 4 KB, a second": await rate(put, small), "read 4 KB, a second": await rate(read, small)}
    content = os.urandom(large << 20)
    start = time.perf_counter()
    found["large"] = await files.put(USER, "large", content)
    figures["put, MB a second"] = large / (time.perf_counter() - start)
    start = time.perf_counter()
    await read("large")
    figures["read, MB a second"] = large / (time.perf_counter() - start)
    start = time.perf_counter()
    for number in range(LINES):
        await files.append(USER, "log", b"%d a line of some forty characters in all\n" % number)
    figures["append, ms each"] = (time.perf_counter() - start) / LINES * 1e3
    if store:
        await store.close()
    await redis.aclose()
    return figures


def serve(stack, folder, number):
    """Start a file server. Returns its URL."""
    port, app = free_port(), folder / f"app{number}"
    app.mkdir()
    (app / "config.py").write_text('CONFIG = {"name": "bench", "files": {"free": 0}}\n')
    (app / "secret.py").write_text(f"SECRET = {{'cookie': {'x' * 40!r}, 'files_token': {TOKEN!r}}}\n")
    words = ["-m", "backlore.cli", "files", "serve", "--app", str(app), "--port", str(port), "--workers", "1"]
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)
    process.stdout.readline()
    return f"http://127.0.0.1:{port}"


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--small", type=int, default=400)
    options.add_argument("--large", type=int, default=100)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        socket = str(folder / "sock")
        redis = subprocess.Popen([find_binary(), "--port", "0", "--unixsocket", socket, "--save", ""], stdout=-3)
        stack.callback(redis.wait, 30)
        stack.callback(redis.terminate)
        while not os.path.exists(socket):
            time.sleep(0.01)
        urls = [serve(stack, folder, number) for number in range(2)]
        ways = {"the disk": [], "one server": urls[:1], "two servers, two copies": urls}
        rounds = {way: [] for way in ways}
        for _ in range(chosen.rounds):
            for number, (way, used) in enumerate(ways.items()):
                work = measure(socket, folder / f"node{number}", used, chosen.small, chosen.large)
                rounds[way].append(uvloop.run(work))
        print(f"{'':24}", *(f"{figure:>20}" for figure in rounds["the disk"][0]))
        for way, figures in rounds.items():
            medians = [statistics.median(each[figure] for each in figures) for figure in figures[0]]
            print(f"{way:24}", *(f"{median:>20,.1f}" for median in medians))


if __name__ == "__main__":
    main()
