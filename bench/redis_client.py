"""redis-py's asyncio client beside Backlore's: operations per second and CPU per operation.

    python bench/redis_client.py [--tasks 32] [--operations 20000] [--rounds 5] [--tcp]

Both use the same server, socket and event loop (uvloop), and take turns for several rounds; the figure is the median.
The server has one core and the client the other.
"""

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import tempfile
import time

import uvloop
from redis.asyncio import Redis as StockRedis

from backlore.clients.redis.client import Redis
from backlore.process.program import find_binary

COMMANDS = {
    "GET": lambda redis: redis.get("key"),
    "SET": lambda redis: redis.set("key", "value"),
    "HGETALL": lambda redis: redis.hgetall("hash"),
}


async def measure(redis, command, tasks, operations):
    """Operations per second, and microseconds of this process's CPU per operation."""

    async def work():
        for _ in range(operations // tasks):
            await command(redis)

    await asyncio.gather(*(command(redis) for _ in range(tasks)))  # opens the connections
    start, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(tasks)))
    seconds, used = time.perf_counter() - start, time.process_time() - used
    return operations / seconds, used / operations * 1e6


def line(theirs, ours):
    """The medians of two lists of (operations per second, µs), and how many times better ours are."""
    (their_rate, their_cost), (our_rate, our_cost) = (
        [statistics.median(column) for column in zip(*figures, strict=True)] for figures in (theirs, ours)
    )
    return (
        f"{their_rate:>9,.0f}/s {their_cost:>5.1f} µs  {our_rate:>9,.0f}/s {our_cost:>5.1f} µs"
        f"  {our_rate / their_rate:>5.1f}x  {their_cost / our_cost:>5.1f}x"
    )


async def compare(address, options):
    """Print a line per command: redis-py, backlore, ratio."""
    stock = StockRedis(**address, decode_responses=True, protocol=3)
    clients = {"redis-py": stock, "backlore": Redis(**address)}
    await clients["backlore"].hset("hash", mapping={f"field{i}": f"value{i}" for i in range(10)})
    print(f"{'':8}  {'redis-py':>20}  {'backlore':>20}  {'op/s':>6}  {'CPU':>6}")
    for name, command in COMMANDS.items():
        figures = {client: [] for client in clients}
        for _ in range(options.rounds):
            for client, redis in clients.items():
                figures[client].append(await measure(redis, command, options.tasks, options.operations))
        print(f"{name:8}  {line(*figures.values())}")
    for redis in clients.values():
        await redis.aclose()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=32)
    parser.add_argument("--operations", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tcp", action="store_true")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        path = f"{folder}/redis.sock"
        command = [find_binary(), "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", path]
        server = subprocess.Popen([*command, "--save", "", "--dir", folder], stdout=subprocess.DEVNULL)
        try:
            if len(cores) > 1:
                os.sched_setaffinity(server.pid, {cores[0]})
                os.sched_setaffinity(0, {cores[1]})
            while not os.path.exists(path):
                time.sleep(0.02)
            address = {"host": "127.0.0.1", "port": port} if options.tcp else {"unix_socket_path": path}
            way = "TCP" if options.tcp else "unix socket"
            print(f"{options.tasks} tasks, {way}, median of {options.rounds} rounds")
            uvloop.run(compare(address, options))
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
