"""Files with what they stand on: a redis, a disk or file servers, and a bucket."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from backlore.clients.disk import Disk
from backlore.clients.fileserver import FileServer
from backlore.clients.redis.client import Redis
from backlore.clients.s3 import S3
from backlore.core.notify import Notify
from backlore.core.schema import FilesConfig
from backlore.services.files.allowance import Owners
from backlore.services.files.catalog import File
from backlore.services.files.files import Files
from backlore.services.lines.lines import Lines
from backlore.services.storage.remote import RemoteStore
from backlore.services.uploads.uploads import Uploads
from tests.kit import fileservers
from tests.kit.buckets import BUCKET, KEYS, S3Server
from tests.kit.engines import Engine
from tests.kit.fileservers import TOKEN

ANN, BOB = "annabcdefgh", "bobabcdefgh"


def reach(server: S3Server, **other: str) -> S3:
    keys = {"access_key": KEYS["s3_key"], "secret_key": KEYS["s3_secret"]}
    return S3(BUCKET, endpoint=server.endpoint, **{**keys, **other})


class House:
    """Files with what they stand on: the disk, or file servers."""

    def __init__(
        self,
        redis: Redis,
        folder: Path,
        s3: S3 | None,
        servers: list[fileservers.FileServer] | None = None,
        copies: int = 2,
        token: str = TOKEN,
        owners: Owners | None = None,
        **limits: Any,
    ):
        self.redis = redis
        self.s3 = s3
        self.servers = servers or []
        self._said: list[str] = []
        self.notify = Notify(lambda record: self._said.append(str(record["event"])))
        self.disk = Disk(folder)
        known = [FileServer(server.url, token, self.notify) for server in self.servers]
        self.store = RemoteStore(known, s3, self.notify, copies) if servers else None
        config = FilesConfig(**{"quota": 10 << 20, "trash": 3600, **limits})
        self.files = Files(redis, self.notify, self.disk, s3, config, self.store, owners)
        self.uploads = Uploads(redis, self.notify, self.files, config.unfinished)
        self.lines = Lines(self.files.find, self.files.spans)
        self.disk.prepare()

    async def wipe(self, user: str) -> None:
        """Of a user who goes."""
        await self.uploads.wipe(user)
        await self.files.wipe(user)

    async def close(self) -> None:
        self.lines.close()
        if self.store:
            await self.store.close()
        self.disk.close()

    def paths(self, blob: str) -> list[Path]:
        """Where a content is."""
        places = [server.path(blob) for server in self.servers] or [self.disk.path(blob)]
        return [path for path in places if path.exists()]

    def lose(self, blob: str) -> None:
        """No disk has it any more."""
        for path in self.paths(blob):
            path.unlink()

    @property
    def said(self) -> list[str]:
        """The events that were told."""
        self.notify.flush()
        return self._said

    async def settle(self) -> None:
        """Until nothing is left to move."""
        while await self.files.courier.turn():
            pass
        assert not await self.files.catalog.users_to_serve(10) or not await self.files.courier.turn()

    async def objects(self, folder: str = "") -> list[str]:
        assert self.s3 is not None
        return [each.name for each in [found async for found in self.s3.list(folder)]]

    async def fetches(self, before: int = -1) -> int:
        """How often something was fetched from S3; once that is more than `before`."""
        while True:
            told = self.said.count("files.fetched") + sum(each.said().count("files.fetched") for each in self.servers)
            if told > before:
                return told
            await asyncio.sleep(0.01)

    def contents(self) -> list[str]:
        found = [path.name for path in self.disk.folder.glob("contents/*/*")]
        assert not self.servers or not found  # a node keeps nothing
        return sorted({name for server in self.servers for name in server.names()} if self.servers else found)


Run = Callable[..., None]


def runs(engine: Engine, folder: Path, s3: S3 | None, servers: list[fileservers.FileServer] | None = None) -> Run:
    """Runs a test's coroutine with a house of its own."""

    def run(test: Callable[[House], Awaitable[None]], with_bucket: bool = True, **limits: Any) -> None:
        async def within() -> None:
            redis = Redis(unix_socket_path=engine.path, timeout=5)
            await redis.flushall()
            house = House(redis, folder / "files", s3 if with_bucket else None, servers, **limits)
            try:
                await test(house)
                assert not list((folder / "files" / "drafts").iterdir())
            finally:
                await house.close()
                await redis.aclose()

        asyncio.run(within())

    return run


@contextlib.asynccontextmanager
async def living(engine: Engine, folder: Path, s3: Any, servers: list[fileservers.FileServer], **limits: Any) -> Any:
    """A node's files, on an empty redis."""
    redis = Redis(unix_socket_path=engine.path, timeout=5)
    await redis.flushall()
    house = House(redis, folder / "node", s3, servers, **limits)
    try:
        yield house
    finally:
        await house.close()
        await redis.aclose()


async def read(files: Files, user: str, file: File, *part: int) -> bytes:
    return b"".join([piece async for piece in files.read(user, file, *part)])
