"""Shoebox's pictures, what its rows (example/test.py) can't say: many at once, workers killed in the middle, bombs."""

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from backlore.core.temporary import FOLDER
from tests.conftest import SHOEBOX, Server, User, serving
from tests.kit.bombs import bombs, photo, png


@pytest.fixture
def ann(shoebox: Server) -> Iterator[User]:
    with User(shoebox, f"ann{time.time_ns()}@example.com") as user:
        yield user.sign_up()


def bring(user: User, content: bytes, name: str = "a.jpg", **fields: Any) -> Any:
    return user.post("/pictures", files={"file": (name, content, "image/jpeg")}, data=fields)


def test_many_at_once_all_have_names_of_their_own(ann: User) -> None:
    """The same name thirty times at once, with tags changed and pictures deleted and had back meanwhile."""
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda number: bring(ann, png(8 + number, 8)), range(30)))
    assert {each.status_code for each in got} == {200}, {each.text for each in got if each.status_code != 200}
    made = [each.json() for each in got]
    assert len({each["name"] for each in made}) == 30 == len({each["id"] for each in made})

    def change(number: int) -> set[int]:
        path = f"/pictures/{made[number % 5]['id']}"
        acts = [("/tags", {"tags": [f"t{number % 3}", "all"]}), ("/delete", {}), ("/undelete", {})]
        return {ann.post(path + act, json=body).status_code for act, body in acts}

    with ThreadPoolExecutor(8) as pool:
        assert set().union(*pool.map(change, range(60))) <= {200, 404}
    for each in made[:5]:
        ann.post(f"/pictures/{each['id']}/undelete", json={})
    shown = ann.get("/pictures", params={"limit": 100}).json()["pictures"]
    assert {each["id"] for each in shown} == {each["id"] for each in made}
    assert {each["name"] for each in shown} == {each["name"] for each in ann.get("/files").json()["files"]}
    counts: dict[str, int] = {}
    for each in shown:
        for tag in each["tags"]:
            counts[tag] = counts.get(tag, 0) + 1
    assert {each["tag"]: each["count"] for each in ann.get("/pictures/tags").json()["tags"]} == counts


def test_cut_anywhere_gallery_and_files_agree(tmp_path: Path) -> None:
    """Workers killed while pictures come, are deleted and had back: what was acknowledged is there, and nothing is in
    one place only."""
    with serving(SHOEBOX, tmp_path) as server, User(server, "cut@example.com") as user:
        user.sign_up()
        over = threading.Event()
        acknowledged: list[str] = []

        def work(number: int) -> None:
            with User(server) as mine:
                mine.cookies, mine.headers["x-csrf-token"] = user.cookies, user.csrf
                for turn in itertools.count(10):
                    if over.is_set():
                        return
                    with contextlib.suppress(httpx.TransportError):
                        made = bring(mine, png(turn, 8 + number), tags=["x"])
                        if made.status_code == 200 and turn % 2:
                            acknowledged.append(made.json()["id"])
                        elif made.status_code == 200:
                            mine.post(f"/pictures/{made.json()['id']}/delete", json={})
                            mine.post(f"/pictures/{made.json()['id']}/undelete", json={})

        with ThreadPoolExecutor(4) as pool:
            working = [pool.submit(work, number) for number in range(4)]
            for turn in range(10):
                before, until = len(acknowledged), time.monotonic() + 30
                while len(acknowledged) < before + 4 and time.monotonic() < until:
                    time.sleep(0.01 * turn)  # another moment of the next one each time
                with contextlib.suppress(psutil.Error):  # one may be ending already
                    for worker in server.workers()[: 1 + turn % 2]:
                        worker.kill()
            over.set()
            for each in working:
                each.result()
        wait_until_served(server)
        shown, last = [], -1
        while last:
            page = user.get("/pictures", params={"limit": 100, "before": max(last, 0)}).json()
            shown += page["pictures"]
            last = page["before"]
        ids = [each["id"] for each in shown]
        assert len(acknowledged) > 10 and set(acknowledged) <= set(ids) and len(ids) == len(set(ids))
        kept = user.get("/files", params={"limit": 500}).json()["files"]
        assert {each["id"] for each in kept} == set(ids)
        assert user.get("/pictures/tags").json()["tags"] == [{"tag": "x", "count": len(ids)}]
        for id in ids[:20]:
            assert user.get(f"/pictures/{id}/thumb").status_code == 200


def wait_until_served(server: Server) -> None:
    """Until a worker is there again."""
    until = time.monotonic() + 20
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{server.url}/health").status_code == 200:
                return
        assert time.monotonic() < until
        time.sleep(0.05)


def test_bombs_leave_the_server_as_it_was(shoebox: Server, ann: User) -> None:
    """Every one by every route that takes files; then a good picture as if nothing had been."""
    for name, (content, sentence) in bombs().items():
        refused = bring(ann, content)
        assert refused.status_code == 415 and refused.json()["why"].startswith(sentence), name
        assert ann.post("/files", files={"file": (name, content)}).status_code == 200
    assert ann.get("/pictures").json()["pictures"] == [] and ann.get("/pictures/tags").json()["tags"] == []
    id = bring(ann, photo()).json()["id"]
    assert ann.get(f"/pictures/{id}/thumb").headers["content-type"] == "image/webp"
    for each in shoebox.workers():
        assert each.memory_info().rss < 200 << 20
    assert not list((shoebox.data / FOLDER).iterdir())
