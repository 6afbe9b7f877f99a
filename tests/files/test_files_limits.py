"""What users may keep, one and all together: bytes, entries, and uploads that are not finished; and only while they
are there."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from backlore.core.keys import key
from backlore.services.check.books import recount_all
from backlore.services.files.catalog import Gone, Quota
from backlore.services.files.steps import RECORD
from backlore.services.uploads.receiver import Receiver
from backlore.services.uploads.uploads import Uploads
from tests.conftest import KEEPING, PASSWORD, User, serving
from tests.kit.engines import Engine
from tests.kit.houses import ANN, BOB, House, Run, runs
from tests.kit.tus import SPOKEN, add, begin, named, on_disk, uploads_in_redis
from tests.kit.waiting import until


@pytest.fixture
def run(engine: Engine, tmp_path: Path) -> Run:
    return lambda test, **limits: runs(engine, tmp_path, None)(test, with_bucket=False, **limits)  # type: ignore[arg-type]


async def bring(uploads: Uploads, user: str, id: str, data: bytes, most: int = 1 << 20) -> Receiver:
    async def chunks() -> AsyncIterator[bytes]:
        yield data

    async with uploads.receive(user, id) as receiver:
        await receiver.take(chunks(), most)
        await uploads.finish(receiver)
    return receiver


def test_entries(run: Run) -> None:
    """However empty: files, those of the trash, and uploads count."""

    async def test(house: House) -> None:
        files, uploads = house.files, house.uploads
        for name in ("a", "b", "c"):
            await files.put(ANN, name, b"")
        await files.append(ANN, "log", b"")
        over = [
            lambda: files.put(ANN, "e", b""),
            lambda: files.put(ANN, "a", b"other"),  # what it was goes to the trash
            lambda: files.append(ANN, "another log", b""),
            lambda: uploads.create(ANN, "upload", 0),
        ]
        for refused in over:
            with pytest.raises(Quota):
                await refused()
        assert await files.put(ANN, "a", b"") and await files.append(ANN, "log", b"more")  # the same entries
        dead = await files.delete(ANN, "a")
        for refused in over:
            with pytest.raises(Quota):
                await refused()
        await files.erase(ANN, [dead.id])
        upload = await uploads.create(ANN, "upload", 5)
        for refused in over:
            with pytest.raises(Quota):
                await refused()
        await bring(uploads, ANN, upload.id, b"bytes")  # takes the place that it has had
        assert (await files.find(ANN, "upload")).size == 5
        assert not house.contents() or len(house.contents()) == 3

    run(test, entries=4)


def test_entries_take_of_the_bytes_and_unfinished_ones_too(run: Run) -> None:
    async def test(house: House) -> None:
        files, uploads = house.files, house.uploads
        for number in range(9):
            await files.put(ANN, f"{number}", b"")
        with pytest.raises(Quota):
            await files.put(ANN, "large", bytes(RECORD + 1))
        upload = await uploads.create(ANN, "upload", RECORD - 10)
        for refused in (files.put(ANN, "x", b"x" * 11), files.append(ANN, "0", b"x" * 11)):
            with pytest.raises(Quota):
                await refused
        await bring(uploads, ANN, upload.id, bytes(RECORD - 10))

    run(test, quota=11 * RECORD)


def test_all_together_never_go_over_the_total(run: Run) -> None:
    async def test(house: House) -> None:
        files, catalog = house.files, house.files.catalog
        users = [f"u{number:02}abcdefgh" for number in range(40)]
        puts = (files.put(user, "a", user.encode() * 10) for user in users)  # 110 bytes each
        done = await asyncio.gather(*puts, return_exceptions=True)
        assert all(isinstance(each, Quota) for each in done if isinstance(each, BaseException))
        usages = await asyncio.gather(*(catalog.usage(user) for user in users))
        kept = sum(size for size, _ in usages)
        assert kept == await catalog.total() <= 1000

    run(test, total=1000)


def test_the_total_counts_what_is_to_come(run: Run) -> None:
    async def test(house: House) -> None:
        files, uploads, catalog = house.files, house.uploads, house.files.catalog
        declared = await uploads.create(ANN, "declared", 600)
        for refused in (files.put(BOB, "b", bytes(401)), uploads.create(BOB, "b", 401)):
            with pytest.raises(Quota):
                await refused
        later = await uploads.create(BOB, "later", -1)
        await bring(uploads, BOB, later.id, b"1" * 300)
        assert await catalog.total() == 900
        with pytest.raises(Quota):
            await bring(uploads, BOB, later.id, b"2" * 200)
        assert await catalog.total() == 900
        await bring(uploads, ANN, declared.id, b"a" * 600)
        assert await catalog.total() == 900 and (await files.find(ANN, "declared")).size == 600
        given_up = await uploads.create(ANN, "given up", 100)
        await recount_all(house.redis)
        assert await catalog.total() == 1000
        await uploads.end(ANN, given_up.id)
        await uploads.end(BOB, later.id)
        assert await catalog.total() == 600
        # what the user has already takes nothing in the end, under its own name or another
        await files.put(ANN, "short", b"s" * 100)
        for name in ("short", "short too"):
            same = await uploads.create(ANN, name, 100)
            assert await catalog.total() == 800
            await bring(uploads, ANN, same.id, b"s" * 100)
            assert await catalog.total() == 700
        await recount_all(house.redis)
        assert await catalog.total() == 700

    run(test, total=1000)


class Owners:
    """One who is there until they are erased."""

    def key(self, user: str) -> str | None:
        return key("user", user) if user == ANN else None

    async def standing(self, user: str) -> str:
        return "1"


def test_nothing_is_added_for_an_owner_who_has_gone(run: Run) -> None:
    async def test(house: House) -> None:
        files, uploads, redis = house.files, house.uploads, house.redis
        await redis.hset(key("user", ANN), mapping={"email": "ann@example.com"})
        await files.put(ANN, "a", b"a")
        dead = await files.delete(ANN, "a")
        upload = await uploads.create(ANN, "upload", 4)
        draft = await house.disk.draft()
        await draft.write(b"held back")
        for gone in ("destroying", ""):
            if gone:
                await redis.hset(key("user", ANN), "state", gone)
            else:
                await redis.delete(key("user", ANN))
            for refused in (
                files.put(ANN, "b", b"b"),
                files.keep(ANN, "b", draft),
                files.append(ANN, "c", b"c"),
                files.undelete(ANN, dead.id),
                uploads.create(ANN, "d", 5),
                files.revoke_links(ANN),
                bring(uploads, ANN, upload.id, b"last" if gone else b""),
            ):
                with pytest.raises(Gone):
                    await refused
        await draft.discard()
        await house.wipe(ANN)
        await files.put(BOB, "b", b"b")  # of whom nobody knows whether they are there
        await house.settle()
        assert len(house.contents()) == 1 and await house.redis.keys("*{ann}*") == []
        assert await redis.zrange("uploads:{all}", 0, -1) == []

    run(test, owners=Owners())


def test_an_upload_that_ends_after_its_user_was_destroyed(tmp_path: Path) -> None:
    """Held back until the account is gone, over HTTP: nothing of it is left."""
    with serving(KEEPING, tmp_path) as server, User(server, "kim@example.com") as user:
        user.sign_up()
        location = begin(user, 10, "resumed")
        add(user, location, 0, b"12345")
        with User(server, "kim@example.com") as other:
            other.log_in()

            def body() -> Iterator[bytes]:
                yield b"12345"
                assert other.post("/auth/destroy", json={"password": PASSWORD}).status_code == 200
                yield b"67890"

            headers = {**SPOKEN, "upload-length": "10", "content-type": "application/offset+octet-stream", **named("f")}
            late = user.post("/files/tus", headers=headers, content=body())
            assert late.status_code in (403, 404), late.text
        until(lambda: on_disk(server) == {} and uploads_in_redis(server) == [])


def test_empty_uploads_count_too(tmp_path: Path) -> None:
    with serving(KEEPING, tmp_path, settings={"files": {"free": 0, "quota": 100_000, "entries": 2}}) as server:
        user = User(server, "lou@example.com").sign_up()
        begin(user, 5, "a")
        for number in range(5):
            headers = {**SPOKEN, "upload-length": "200000", **named(f"{number}")}
            assert user.post("/files/tus", headers=headers).json() == {"error": "quota"}
        headers = {**SPOKEN, "upload-length": "0", **named("empty")}
        assert user.post("/files/tus", headers=headers).status_code == 201
        assert user.post("/files/tus", headers=headers).json() == {"error": "quota"}
