"""What runs a test with files on a disk, or on two file servers of its module."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import fileservers
from tests.kit.buckets import S3Server
from tests.kit.engines import Engine
from tests.kit.fileservers import file_servers
from tests.kit.houses import Run, reach, runs

PREFIX = "servers"  # of the file servers, in the bucket


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, bucket: S3Server) -> Iterator[list[fileservers.FileServer]]:
    with file_servers(tmp_path_factory.mktemp("servers"), 2, bucket, PREFIX) as running:
        yield running


@pytest.fixture
def run_on_disk(engine: Engine, tmp_path: Path, bucket: S3Server) -> Run:
    return runs(engine, tmp_path, reach(bucket, prefix=tmp_path.name))


@pytest.fixture
def run_on_servers(engine: Engine, tmp_path: Path, bucket: S3Server, servers: list[fileservers.FileServer]) -> Run:
    s3 = reach(bucket, prefix=PREFIX)

    async def empty() -> None:
        await s3.delete([each.name async for each in s3.list()])

    asyncio.run(empty())
    for server in servers:
        server.wipe()
    return runs(engine, tmp_path, s3, servers)
