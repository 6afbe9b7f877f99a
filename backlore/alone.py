"""The file server of an application, served alone for the application's nodes."""

import asyncio
import sys

import msgspec

from backlore.clients.disk import Disk
from backlore.connections import bucket, limits
from backlore.core.config import load
from backlore.core.notify import Notify, console
from backlore.core.turns import Busy
from backlore.services.storage.server import REFUSALS, FileServerRoutes
from backlore.services.storage.store import Store
from backlore.services.tasks import supervise
from backlore.web.application import Application
from backlore.web.reply import Send
from backlore.web.request import Receive, Scope

SWEEP = 3600.0  # seconds
LARGEST = 1 << 50  # bytes of a content: the nodes have already limited what users may send


class Alone:
    """The file server of the application that this process has entered. Workers run it as they run a Backend."""

    def __init__(self) -> None:
        self.settings = load()
        self.notify = Notify(console)
        known, token = self.settings.config, self.settings.secret.files_token
        assert token  # `load` refuses settings without it
        self._disk = Disk(self.settings.data / "files", known.files.free)
        store = Store(self._disk, bucket(self.settings), self.notify)
        given = msgspec.structs.replace(limits(self.settings), upload=LARGEST)
        self.web = Application(None, self.notify, given, (Busy,), REFUSALS)
        self.web.add(*FileServerRoutes(store, self._disk, self.notify, token).routes())
        self.web.on_start.append(self._prepare)
        self.web.tells_all = self.settings.env == "dev" and sys.stderr.isatty()

    async def run_tasks(self) -> None:
        """Delete abandoned drafts, every hour until cancelled."""
        await supervise("sweep", self._sweep, self.notify)

    async def _sweep(self) -> None:
        while True:
            await self._disk.sweep()
            await asyncio.sleep(SWEEP)

    async def _prepare(self) -> None:
        self._disk.prepare()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.web(scope, receive, send)
