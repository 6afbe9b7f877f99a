"""Several nodes add to one file on file servers, over bad ways and while servers die: each line is there once."""

import asyncio
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backlore.clients.disk import Disk
from backlore.clients.fileserver import FileServerUnreachable
from backlore.clients.redis.client import Redis
from backlore.services.files.allowance import Allowance
from backlore.services.files.append import Appender
from backlore.services.files.catalog import Catalog, Changed, File
from backlore.services.storage.remote import RemoteStore
from backlore.services.storage.store import Away
from tests.conftest import ROOT
from tests.kit.engines import Engine
from tests.kit.fileservers import FileServer, file_servers
from tests.kit.houses import ANN, House, read

# What a node of its own does: adds numbered lines to one file, says which were acknowledged.
APPENDER = """
import asyncio, json, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from backlore.clients.redis.client import Redis
from tests.kit.houses import ANN, House

class At:
    def __init__(self, url): self.url = url

async def main(socket, folder, name, *urls):
    redis = Redis(unix_socket_path=socket, timeout=5)
    house = House(redis, Path(folder), None, [At(url) for url in urls], quota=1 << 30)
    for number in range(150):
        batch = [f"{{name}} {{number}}.{{each}}\\n".encode() for each in range(3)]
        done = await asyncio.gather(*(house.files.append(ANN, "log", line) for line in batch), return_exceptions=True)
        for line, outcome in zip(batch, done):
            if isinstance(outcome, BaseException):
                print(f"{{type(outcome).__name__}}: {{outcome}}", file=sys.stderr, flush=True)
            else:
                print(line.decode(), end="", flush=True)
    await house.close()
    await redis.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


class Shaky:
    """A file server's disk, to which the way is bad: what is asked for may not be done, or be done and never told."""

    def __init__(self, disk: Disk, url: str, chance: random.Random):
        self.disk = disk
        self.url = url
        self.chance = chance
        self.away = False
        self.takes = True

    async def append(self, name: str, at: int, data: bytes) -> None:
        await self._hazard()
        await self.disk.append(name, at, data, exactly=True)
        await self._hazard()

    async def delete(self, name: str) -> None:
        await self._hazard()
        await self.disk.delete(name)

    async def _hazard(self) -> None:
        self.takes = self.chance.random() > 0.1
        await asyncio.sleep(self.chance.random() * 0.003)
        if self.chance.random() < 0.1:
            raise FileServerUnreachable(self.url)

    async def close(self) -> None:
        self.disk.close()


def alike(file: File, folder: Path) -> bytes:
    """What a file is on all servers that have it."""
    content = b""
    for blob, size in file.blobs:
        copies = [path.read_bytes() for path in folder.glob(f"server*/**/contents/*/{blob}")]
        (whole,) = {copy[:size] for copy in copies if len(copy) >= size}
        content += whole
    return content


@pytest.mark.parametrize("seed", range(6))
def test_adding_over_bad_ways(engine: Engine, tmp_path: Path, seed: int) -> None:
    """Three nodes, three servers, each seen differently by each node: acknowledged once is there once, everywhere
    alike; what was cut in between is there once or not at all."""
    chance = random.Random(seed)

    async def live(number: int, redis: Redis, acknowledged: list[bytes], unknown: list[bytes]) -> None:
        shaky = [Shaky(Disk(tmp_path / f"server{each}"), f"http://server{each}", chance) for each in range(3)]
        disk = Disk(tmp_path / f"node{number}")
        disk.prepare()
        catalog = Catalog(redis, 1, Allowance(redis, 1 << 30))
        whole = catalog.append

        async def cut(*given: Any) -> None:
            await whole(*given)
            if chance.random() < 0.05:
                raise ConnectionError("its answer is lost")

        catalog.append = cut  # type: ignore[method-assign]
        store = RemoteStore(shaky, None, lambda *_, **__: None, 1 + seed % 3)  # type: ignore[arg-type]
        appender = Appender(catalog, store, disk)
        for turn in range(60):
            line = b"%d.%d\n" % (number, turn)
            try:
                await appender.append(ANN, "log", line)
            except (Away, Changed, ConnectionError):
                unknown.append(line)
            else:
                acknowledged.append(line)
        await store.close()
        disk.close()

    async def test() -> None:
        for each in range(3):
            Disk(tmp_path / f"server{each}").prepare()
        redis = Redis(unix_socket_path=engine.path, timeout=5)
        await redis.flushall()
        acknowledged: list[bytes] = []
        unknown: list[bytes] = []
        await asyncio.gather(*(live(number, redis, acknowledged, unknown) for number in range(3)))
        file = await Catalog(redis, 1, Allowance(redis, 1 << 30)).find(ANN, "log")
        assert file and len(acknowledged) > 60 and unknown
        content = alike(file, tmp_path)
        lines = content.splitlines(keepends=True)
        assert len(set(lines)) == len(lines)
        assert set(acknowledged) <= set(lines) <= {*acknowledged, *unknown}
        await redis.aclose()

    asyncio.run(test())


@pytest.mark.parametrize("killing", [False, True])
def test_two_nodes_add_to_one_file(engine: Engine, tmp_path: Path, killing: bool) -> None:
    """Every line that was acknowledged is there once, in its node's order; also when a server dies meanwhile."""

    async def look(servers: list[FileServer]) -> tuple[File, bytes]:
        redis = Redis(unix_socket_path=engine.path, timeout=5)
        house = House(redis, tmp_path / "reader", None, servers)
        file = await house.files.find(ANN, "log")
        content = await read(house.files, ANN, file)
        await house.close()
        await redis.aclose()
        return file, content

    async def empty() -> None:
        redis = Redis(unix_socket_path=engine.path, timeout=5)
        await redis.flushall()
        await redis.aclose()

    asyncio.run(empty())
    with file_servers(tmp_path, 2) as servers:
        program = APPENDER.format(root=str(ROOT))
        words = [sys.executable, "-c", program, engine.path]
        urls = [each.url for each in servers]
        nodes = [
            subprocess.Popen(
                [*words, str(tmp_path / name), name, *urls], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            for name in ("one", "two")
        ]
        try:
            if killing:
                assert nodes[0].stdout
                for _ in range(60):
                    nodes[0].stdout.readline()
                servers[1].kill()
                servers[1].start()
            told = [node.communicate(timeout=120) for node in nodes]
        finally:
            for each in nodes:
                each.kill()
                each.wait()
        assert not any(errors for _, errors in told), told[0][1] + told[1][1]
        file, content = asyncio.run(look(servers))
        lines = content.decode().splitlines()
        wanted = [f"{name} {number}.{each}" for name in ("one", "two") for number in range(150) for each in range(3)]
        assert sorted(lines) == sorted(wanted)
        for name in ("one", "two"):
            mine = [int(line.split()[1].partition(".")[0]) for line in lines if line.startswith(name)]
            assert mine == sorted(mine)
        assert alike(file, tmp_path) == content
