"""Resumable uploads as the server keeps them, cut between any two steps; also on file servers."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backlore.core.keys import key
from backlore.services.files.catalog import Exists, Quota
from backlore.services.uploads.receiver import WRITE
from backlore.services.uploads.transfers import Locked, NoUpload
from tests.kit.engines import Engine
from tests.kit.fileservers import file_servers
from tests.kit.houses import ANN, House, living, read
from tests.kit.tus import sha


async def pieces(*content: bytes) -> AsyncIterator[bytes]:
    for each in content:
        yield each


def run(engine: Engine, folder: Path, story) -> None:
    async def tell() -> None:
        from backlore.clients.redis.client import Redis

        async with Redis(unix_socket_path=engine.path) as redis:
            await redis.flushall()
            await story(House(redis, folder, None))

    asyncio.run(tell())


@pytest.mark.parametrize("junk", [b"", b"evil"])
def test_cut_before_the_file_was_kept(engine: Engine, tmp_path: Path, junk: bytes) -> None:
    async def story(house: House) -> None:
        uploads = house.uploads
        made = await uploads.create(ANN, "cut", 10, "*")
        async with uploads.receive(ANN, made.id) as receiver:
            await receiver.take(pieces(b"12345", b"67890"), 10)
        ((blob, _),) = receiver.transfer.pieces
        if junk:
            await house.disk.append(blob, 10, junk)  # of one that it was taken over from
        # the worker ends here; whoever asks has the file made
        found = await uploads.find(ANN, made.id)
        file = await house.files.find(ANN, "cut")
        assert found.is_whole and (found.file, file.hash, file.size) == (file.id, sha(b"1234567890"), 10)
        assert found.pieces == [] and len(await house.disk.names()) == 1

    run(engine, tmp_path, story)


def test_cut_after_the_file_was_kept(engine: Engine, tmp_path: Path) -> None:
    async def story(house: House) -> None:
        uploads = house.uploads
        made = await uploads.create(ANN, "cut", 10, "*")
        async with uploads.receive(ANN, made.id) as receiver:
            await receiver.take(pieces(b"1234567890"), 10)
            draft = await uploads._gather(ANN, receiver.transfer)
            file = await house.files.keep(ANN, "cut", draft, "*")
            await draft.discard()
        # cut before that was said: it is the same file still, though "none of this name" was asked for
        assert (await uploads.find(ANN, made.id)).file == file.id
        other = await uploads.create(ANN, "other", 10, "*")
        async with uploads.receive(ANN, other.id) as receiver:
            await receiver.take(pieces(b"1234567890"), 10)
        await house.files.put(ANN, "other", b"another")
        with pytest.raises(Exists):
            await uploads.find(ANN, other.id)

    run(engine, tmp_path, story)


def test_ended_while_bytes_come(engine: Engine, tmp_path: Path) -> None:
    async def story(house: House) -> None:
        uploads, append = house.uploads, house.files.store.append

        async def end_first(*given: object, **options: bool) -> None:
            await uploads.wipe(ANN)
            await append(*given, **options)

        for number in range(2):  # ended before its first bytes were written, or later ones
            made = await uploads.create(ANN, "ended", 10)
            with pytest.raises(NoUpload):
                async with uploads.receive(ANN, made.id) as receiver:
                    if number:
                        await receiver.take(pieces(b"12345"), 10)
                    house.files.store.append = end_first
                    await receiver.take(pieces(b"67890"), 10)
            house.files.store.append = append
            assert await house.disk.names() == [] and await house.redis.keys("*") == ["usage:{all}"]

    run(engine, tmp_path, story)


def test_taken_over_just_before_it_writes(engine: Engine, tmp_path: Path) -> None:
    """It has asked, it is its own still, and then it hangs: what it writes at last must not count."""

    async def story(house: House) -> None:
        uploads, append = house.uploads, house.files.store.append
        made = await uploads.create(ANN, "hangs", 10)

        async def hang(*given: object, **options: bool) -> None:
            house.files.store.append = append
            await house.redis.hset(key("upload", ANN, made.id), "until", 0)
            async with uploads.receive(ANN, made.id) as other:
                await other.take(pieces(b"12345"), 10)
            await append(*given, **options)

        async with uploads.receive(ANN, made.id) as receiver:
            await receiver.take(pieces(b"12"), 10)
        house.files.store.append = hang
        with pytest.raises(Locked):
            async with uploads.receive(ANN, made.id) as receiver:
                await receiver.take(pieces(b"evil"), 10)
        async with uploads.receive(ANN, made.id) as receiver:
            assert receiver.transfer.offset == 7
            await receiver.take(pieces(b"890"), 10)
            await uploads.finish(receiver)
        assert (await house.files.find(ANN, "hangs")).hash == sha(b"1212345890")

    run(engine, tmp_path, story)


def test_too_much_is_not_written(engine: Engine, tmp_path: Path) -> None:
    async def story(house: House) -> None:
        uploads = house.uploads
        made = await uploads.create(ANN, "much", -1)
        for _ in range(3):
            with pytest.raises(Quota):
                async with uploads.receive(ANN, made.id) as receiver:
                    await receiver.take(pieces(*[bytes(1 << 20)] * 13), 20 << 20)
        found = await uploads.find(ANN, made.id)
        assert sum(size for _, size, _ in await house.disk.names()) == found.offset == 8 << 20

    run(engine, tmp_path, story)


def test_on_file_servers(engine: Engine, tmp_path: Path) -> None:
    """One of them dies between two requests; a node dies between writing and saying so; the server is back."""
    content = os.urandom(3 * WRITE)

    async def story() -> None:
        async with living(engine, tmp_path, None, servers, quota=100 << 20) as house:
            uploads = house.uploads
            made = await uploads.create(ANN, "far away", len(content))
            for kill in range(3):
                at = (await uploads.find(ANN, made.id)).offset
                async with uploads.receive(ANN, made.id) as receiver:
                    await receiver.take(pieces(content[at : at + WRITE]), len(content))
                if kill == 0:
                    servers[0].kill()
                if kill == 1:  # what was written, but not said
                    blob, size = receiver.transfer.pieces[-1]
                    await house.files.store.append(blob, size, b"evil")
                    servers[0].start()
            assert (await uploads.find(ANN, made.id)).file
            file = await house.files.find(ANN, "far away")
            assert file.hash == sha(content) and await read(house.files, ANN, file) == content
            # one that was away when the pieces were deleted is asked again when the upload expires
            await house.redis.hset(key("upload", ANN, made.id), "expires", 1)
            async with asyncio.timeout(20):  # it is known to be back only once it was asked
                while set.union(*(server.names() for server in servers)) != {file.blobs[0][0]}:
                    await house.redis.zadd(key("uploads", "all"), {f"{ANN} {made.id}": 1}, xx=True)
                    await house.uploads.sweep()
                    await asyncio.sleep(0.1)

    with file_servers(tmp_path, 2) as servers:
        asyncio.run(story())


def test_nobody_begins_too_many(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from backlore.services.uploads import transfers

    monkeypatch.setattr(transfers, "MOST", 3)

    async def story(house: House) -> None:
        uploads = house.uploads
        made = [await uploads.create(ANN, f"n{number}", 10) for number in range(3)]
        with pytest.raises(transfers.Crowd):
            await uploads.create(ANN, "n4", 10)
        await uploads.end(ANN, made[0].id)
        await uploads.create(ANN, "n4", 10)

    run(engine, tmp_path, story)
