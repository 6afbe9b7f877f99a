"""Two nodes share a redis, and the clock of one is off by hours: what one writes, the other takes for what it is."""

import asyncio
import subprocess
import sys
from email.message import EmailMessage
from pathlib import Path

import pytest

from backlore.clients.disk import Disk
from backlore.clients.redis.client import Redis
from backlore.clients.redis.script import read_clock
from backlore.core.notify import Notify
from backlore.core.schema import FilesConfig
from backlore.services.files.files import Files
from backlore.services.mail.mail import Mail
from backlore.services.tasks import Tasks
from backlore.services.uploads.transfers import Locked
from backlore.services.uploads.uploads import Uploads

ANN = "annabcdefgh"
HOURS = 5
MINUTE = 60_000_000  # µs
KEPT = 3600  # seconds in the trash, and that an upload waits: less than the clocks differ by

# The node whose clock is off: it sends a letter, runs a task, keeps and deletes files, and holds an upload.
OTHER = """
import sys, time
hours, socket, folder = float(sys.argv[1]), *sys.argv[2:]
clock, nanos = time.time, time.time_ns
time.time, time.time_ns = lambda: clock() + hours * 3600, lambda: nanos() + int(hours * 3600e9)
import asyncio
from backlore.services.uploads import transfers
from tests.services.test_clocks import ANN, Node
transfers.HELD = 600_000_000  # a busy machine may take long to come to the other node
async def main():
    node = Node(socket, folder)
    await node.mail.send("ann@example.com", "taken", {"link": "https://shoebox.example"})
    await node.run_daily()
    await node.files.put(ANN, "a", b"theirs")
    await node.files.put(ANN, "b", b"dead")
    await node.files.delete(ANN, "b")
    await node.uploads.create(ANN, "u", 10)
    (id,) = await node.uploads._transfers.of(ANN)
    await node.uploads._transfers.hold(ANN, id)
    assert abs(await node.files.clock() - clock()) < 3600  # by which links end
    await node.redis.aclose()
asyncio.run(main())
"""


class Outbox:
    """Counts what leaves."""

    sent = 0

    async def send(self, message: EmailMessage) -> None:
        self.sent += 1


class Node:
    """What a node has of each service."""

    def __init__(self, socket: str, folder: str):
        self.redis = Redis(unix_socket_path=socket, timeout=5)
        self.post = Outbox()
        notify = Notify()
        names = {"application": "Shoebox", "address": "https://shoebox.example", "sender": "hello@shoebox.example"}
        self.mail = Mail(self.redis, notify, self.post, **names)
        disk = Disk(Path(folder))
        disk.prepare()
        self.files = Files(self.redis, notify, disk, None, FilesConfig(quota=1 << 20, trash=KEPT))
        self.uploads = Uploads(self.redis, notify, self.files, KEPT)
        self.tasks = Tasks(self.redis, notify, "data")
        self.ran: list[str] = []
        self.tasks.add(86400, self._daily, False, "daily")

    async def _daily(self) -> None:
        self.ran.append("daily")

    async def run_daily(self) -> None:
        """Look once whether it is due."""
        await self.tasks._turn(self.tasks._tasks["daily"])


@pytest.mark.parametrize("hours", [HOURS, -HOURS])
def test_clocks_differ(engine, tmp_path, hours) -> None:
    async def work() -> None:
        node = Node(engine.path, str(tmp_path / "files"))
        await node.redis.flushall()
        before = await read_clock(node.redis)
        command = [sys.executable, "-c", OTHER, str(hours), engine.path, str(tmp_path / "files")]
        await asyncio.to_thread(subprocess.run, command, check=True)
        after = await read_clock(node.redis)

        assert await node.mail.deliver() == 1 and node.post.sent == 1  # at once
        await node.run_daily()
        assert not node.ran  # it has run already
        file = await node.files.put(ANN, "c", b"ours")
        assert [each.name for each in await node.files.list(ANN)] == ["c", "a"]
        theirs = await node.files.find(ANN, "a")
        assert before <= theirs.created == theirs.changed <= after <= file.changed
        assert (await node.redis.zscore("newest:{ann}abcdefgh", "a")) == theirs.changed
        ((dead, when),) = await node.files.trash(ANN)
        assert dead.name == "b" and before <= when <= after
        assert [user for user, _ in await node.files.catalog.users_to_serve(10)] == [ANN]
        while await node.files.courier.turn():
            pass
        assert await node.files.trash(ANN)  # kept for as long as was said
        (id,) = await node.uploads._transfers.of(ANN)
        await node.uploads.sweep()
        found = await node.uploads.find(ANN, id)  # nor has this one expired
        assert before <= found.created <= after and found.expires - found.created >= (KEPT - 1) * 1_000_000
        with pytest.raises(Locked):
            await node.uploads._transfers.hold(ANN, id)
        await node.redis.aclose()

    asyncio.run(work())
