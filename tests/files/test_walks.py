"""Lists in pages while they change: what was there all the time comes exactly once."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backlore.services.files.catalog import NoFile
from backlore.services.files.steps import PAGE
from tests.conftest import KINDS, PASSWORD, SHOEBOX, User, serving
from tests.kit.bombs import png
from tests.kit.engines import Engine
from tests.kit.houses import ANN, House, Run, runs


@pytest.fixture
def run(engine: Engine, tmp_path: Path) -> Run:
    return lambda test, **limits: runs(engine, tmp_path, None)(test, with_bucket=False, **limits)


async def walk(pages: Any, limit: int = 1) -> list[Any]:
    found, before = [], -1
    while before:
        page = await pages(ANN, max(before, 0), limit)
        found += page
        before = page.before
    return found


def test_files_that_came_at_once(run: Run) -> None:
    """The cursor is the list's own moment, and no two are alike."""

    async def test(house: House) -> None:
        await asyncio.gather(*(house.files.put(ANN, f"{n}", b"%d" % n) for n in range(120)))
        names = [f"{n}" for n in range(120)]
        listed = await walk(house.files.list)
        assert sorted(file.name for file in listed) == sorted(names)
        assert len({file.changed for file in listed}) == 120
        await asyncio.gather(*(house.files.delete(ANN, name) for name in names))
        assert sorted(file.name for file, _ in await walk(house.files.trash)) == sorted(names)

    run(test)


def test_files_come_and_go_meanwhile(run: Run) -> None:
    async def test(house: House) -> None:
        files, numbers, staying = house.files, itertools.count(), [f"stays {n}" for n in range(60)]

        async def write() -> None:
            while True:
                name = f"goes {next(numbers)}"
                await files.put(ANN, name, name.encode())
                await asyncio.sleep(0)
                await files.delete(ANN, name)

        async def settle(name: str) -> None:
            await files.put(ANN, name, name.encode())
            await files.put(ANN, f"{name}, first", name.encode())
            await files.delete(ANN, f"{name}, first")

        writers = [asyncio.create_task(write()) for _ in range(4)]
        await asyncio.gather(*map(settle, staying))
        for limit in (1, 3, 7):
            seen = [file.name for file in await walk(files.list, limit) if file.name in staying]
            assert sorted(seen) == sorted(staying)
            dead = [file.name for file, _ in await walk(files.trash, limit) if file.name.endswith(", first")]
            assert sorted(dead) == sorted(f"{name}, first" for name in staying)
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        await house.settle()

    run(test)


def test_what_stands_in_the_list_alone_ends_no_page(run: Run) -> None:
    """Of old data, or between two commands of whoever reads: as if all of a page had been deleted."""

    async def test(house: House) -> None:
        await house.files.put(ANN, "a", b"a")
        (newest,) = await house.redis.keys("newest:{ann}*")
        await house.redis.zadd(newest, {f"gone {n}": (1 << 52) + n for n in range(5)})
        assert [file.name for file in await walk(house.files.list)] == ["a"]
        # and where old scores are alike, a page ends behind the last of them
        await house.redis.zadd(newest, dict.fromkeys(("a", "b", "c"), 5))
        texts = f"files:{newest.partition(':')[2]}"
        await house.redis.hset(texts, mapping={"b": "b", "c": "c"})
        last, *page = await PAGE(house.redis, [newest, texts], 6, 1)
        assert last == "5" and set(page[::2]) >= {"b", "c"}

    run(test)


# Over HTTP: every list of the built-in routes and of Shoebox


@contextlib.contextmanager
def meanwhile(*acts: Callable[[int], Any]) -> Iterator[None]:
    """Acts, each again and again with the next number, while the block runs."""
    ended, failed = threading.Event(), list[BaseException]()

    def repeat(act: Callable[[int], Any]) -> None:
        try:
            for number in itertools.count():
                if ended.is_set():
                    return
                act(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=repeat, args=(act,)) for act in acts]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        ended.set()
        for each in threads:
            each.join()
    assert not failed, failed


def put(user: User, name: str, content: bytes) -> dict[str, Any]:
    got = user.post("/files", files={"file": ("f", content)}, data={"name": name})
    assert got.status_code == 200, got.text
    made: dict[str, Any] = got.json()
    return made


def pages(user: User, path: str, field: str, cursor: str = "before", **query: Any) -> list[Any]:
    """All of a list, in its smallest pages."""
    found, at = [], None
    while at != (0 if cursor == "before" else ""):
        got = user.get(path, params={"limit": 1, **query, **({cursor: at} if at else {})})
        assert got.status_code == 200, got.text
        found += got.json()[field]
        at = got.json()[cursor]
    return found


def test_lists_of_shoebox(tmp_path: Path) -> None:
    with serving(SHOEBOX, tmp_path) as server, User(server, "ann@example.com") as ann:
        ann.sign_up()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: put(ann, f"stays/{n}", b"%d" % n), range(25)))
            for n in range(25):
                put(ann, f"dead/{n}", b"dead %d" % n)
                ann.post("/files/delete", json={"name": f"dead/{n}"})
            kept = [put_picture(ann, n) for n in range(15)]
            binned = [put_picture(ann, 100 + n) for n in range(5)]
            for id in binned:
                assert ann.post(f"/pictures/{id}/delete").status_code == 200
            notes = {ann.post("/notes", json={"text": "stays"}).json()["id"] for _ in range(25)}

        def files_change(number: int) -> None:
            put(ann, f"goes/{number}", b"goes")
            ann.post("/files/delete", json={"name": f"goes/{number}"})

        def pictures_change(number: int) -> None:
            id = put_picture(ann, 1000 + number)
            ann.post(f"/pictures/{id}/delete")

        def notes_change(_: int) -> None:
            ids = [ann.post("/notes", json={"text": "goes"}).json()["id"] for _ in range(3)]
            for id in ids:
                assert ann.post(f"/notes/{id}/delete").status_code == 200

        with meanwhile(files_change, pictures_change, notes_change, notes_change):
            listed = [each["name"] for each in pages(ann, "/files", "files")]
            assert sorted(name for name in listed if name.startswith("stays/")) == sorted(
                f"stays/{n}" for n in range(25)
            )
            dead = [each["name"] for each in pages(ann, "/files/trash", "files")]
            assert sorted(name for name in dead if name.startswith("dead/")) == sorted(f"dead/{n}" for n in range(25))
            shown = [each["id"] for each in pages(ann, "/pictures", "pictures")]
            assert sorted(id for id in shown if id in kept) == sorted(kept)
            in_bin = [each["id"] for each in pages(ann, "/pictures/trash", "pictures")]
            assert sorted(id for id in in_bin if id in binned) == sorted(binned)
            seen = notes_of(ann)
            assert sorted(id for id in seen if id in notes) == sorted(notes)


def notes_of(user: User) -> list[int]:
    found, more = list[int](), True
    while more:
        query = {"limit": 1, **({"before": found[-1]} if found else {})}
        page = user.get("/notes", params=query).json()
        found += [each["id"] for each in page["notes"]]
        more = page["more"]
    return found


def put_picture(user: User, number: int) -> str:
    got = user.post("/pictures", files={"file": (f"{number}.png", png(8 + number % 50, 8 + number // 50), "image/png")})
    assert got.status_code == 200, got.text
    id: str = got.json()["id"]
    return id


def test_lists_of_users_sessions_and_lines(tmp_path: Path) -> None:
    rates = dict.fromkeys(("signup", "login", "login-account", "mail"), (10000, 60))
    with serving(KINDS, tmp_path, settings={"rates": rates}) as server, User(server, "admin@example.com") as boss:
        boss.sign_up()
        staying = {User(server, f"stays{n}@example.com").sign_up().email for n in range(8)}

        def users_change(number: int) -> None:
            user = User(server, f"goes{number}@example.com").sign_up()
            assert user.post("/auth/destroy", json={"password": PASSWORD}).status_code == 200

        def sessions_change(_: int) -> None:
            with User(server, "admin@example.com") as again:
                again.log_in().post("/auth/logout")

        with meanwhile(users_change, sessions_change):
            for sort in ("email", "created"):
                seen = [each["email"] for each in pages(boss, "/admin/users", "users", "after", sort=sort)]
                assert sorted(email for email in seen if email in staying) == sorted(staying)
            for _ in range(10):
                sessions = boss.get("/auth/sessions").json()["sessions"]
                assert [each["current"] for each in sessions].count(True) == 1


def test_lines_while_some_are_added(run: Run) -> None:
    async def test(house: House) -> None:
        from backlore.services.lines.conditions import Wanted
        from backlore.services.lines.windows import Stretch

        files = house.files
        await files.append(ANN, "log", b"".join(b"stays %d\n" % n for n in range(50)))

        async def write() -> None:
            for number in itertools.count():
                await files.append(ANN, "log", b"came %d\n" % number)

        writer = asyncio.create_task(write())
        for newest in (True, False):
            left, seen = Stretch(0, 2**53), []
            while left.after < left.before and len(seen) < 60:
                found = await house.lines.filter(ANN, "log", Wanted(("stays",)), newest=newest, limit=1, stretch=left)
                seen += [line.text for line in found.lines]
                left = found.left
            assert sorted(seen) == sorted(f"stays {n}" for n in range(50))
        writer.cancel()
        with contextlib.suppress(asyncio.CancelledError, NoFile):
            await writer

    run(test)
