"""What resumable uploads take: they expire, leave with their user, count in a quota, and need little memory."""

import os
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

from backlore.services.files.steps import RECORD
from tests.conftest import KEEPING, PASSWORD, run_in_application, serving
from tests.kit.tus import (
    LIMIT,
    SPOKEN,
    add,
    begin,
    hash_of,
    named,
    offset_of,
    on_disk,
    person,
    redis_key,
    redis_says,
    sha,
    uploads_in_redis,
)
from tests.kit.waiting import until


def test_what_expires_is_collected(tmp_path: Path) -> None:
    settings = {"files": {"free": 0, "unfinished": 3600.0}}
    sweep = "server.app.uploads.sweep()"
    with serving(KEEPING, tmp_path, settings=settings) as server, person(server, "kim") as user:
        whole = begin(user, 5, "whole")
        add(user, whole, 0, b"12345")
        path = begin(user, 1000, "expires")
        before = time.time()
        got = add(user, path, 0, b"12345")
        said = parsedate_to_datetime(got.headers["upload-expires"]).timestamp()
        assert before + 3599 <= said <= time.time() + 3600  # whole seconds
        run_in_application(server, sweep)
        assert offset_of(user, path) == 5 and len(on_disk(server)) == 2
        for each in (whole, path):
            redis_says(server, "hset", redis_key(server, each), "expires", "1")
        assert user.head(path, headers=SPOKEN).status_code == add(user, path, 5, b"6").status_code == 404
        run_in_application(server, sweep)  # it isn't looked for yet
        assert len(on_disk(server)) == 2
        for member in redis_says(server, "zrange", "uploads:{all}", "0", "-1"):
            redis_says(server, "zadd", "uploads:{all}", "1", member)
        other = begin(user, 1000, "goes on")
        add(user, other, 0, b"123")
        run_in_application(server, sweep)
        assert sorted(on_disk(server).values()) == [3, 5] and offset_of(user, other) == 3
        assert user.delete(other, headers=SPOKEN).status_code == 204 and uploads_in_redis(server) == []
        assert user.get("/files/content/whole").text == "12345"


def test_a_user_who_leaves(tmp_path: Path) -> None:
    with serving(KEEPING, tmp_path) as server, person(server, "kim") as user:
        for name in ("a", "b"):
            add(user, begin(user, 10, name), 0, b"12345")
        add(user, begin(user, 5, "c"), 0, b"12345")
        got = user.post("/auth/destroy", json={"password": PASSWORD})
        assert got.status_code == 200
        until(lambda: on_disk(server) == {} and uploads_in_redis(server) == [])


def test_the_quota_counts_what_is_to_come(tmp_path: Path) -> None:
    settings = {"files": {"free": 0, "quota": 1_000_000 + 2 * RECORD}}
    with serving(KEEPING, tmp_path, settings=settings) as server, person(server, "kim") as user:

        def try_to_begin(length: int) -> httpx.Response:
            return user.post("/files/tus", headers={**SPOKEN, "upload-length": str(length), **named("q")})

        assert try_to_begin(1_000_001 + RECORD).json() == {"error": "quota"}
        first = begin(user, 600_000, "first")
        assert try_to_begin(500_000).json() == {"error": "quota"}
        later = user.post("/files/tus", headers={**SPOKEN, "upload-defer-length": "1", **named("l")}).headers[
            "location"
        ]
        assert add(user, later, 0, bytes(300_000)).status_code == 204
        assert add(user, later, 300_000, bytes(300_000)).json() == {"error": "quota"}
        assert add(user, later, 300_000, b"", upload_length="400001").json() == {"error": "quota"}
        assert offset_of(user, later) == 300_000
        assert add(user, later, 300_000, bytes(100_000), upload_length="400000").status_code == 204
        assert add(user, first, 0, os.urandom(600_000)).status_code == 204
        assert user.get("/files/usage").json()["bytes"] == 1_000_000
        assert try_to_begin(1).json() == {"error": "quota"}
        # what was bought with an upload that was given up is had back
        user.post("/files/erase", json={"ids": [user.post("/files/delete", json={"name": "first"}).json()["id"]]})
        second = begin(user, 600_000, "second")
        assert user.delete(second, headers=SPOKEN).status_code == 204
        assert user.delete(begin(user, 600_000, "third"), headers=SPOKEN).status_code == 204


def test_memory_stays_the_same(tmp_path: Path) -> None:
    size, chunk = 200 << 20, (7 << 20) + 1
    block = os.urandom(chunk)
    content = (block * (size // chunk + 1))[:size]
    settings = {"upload_limit": LIMIT}
    with serving(KEEPING, tmp_path, settings=settings, workers=1) as server, person(server, "kim") as user:
        (worker,) = server.workers()
        small = begin(user, 3 * chunk, "small")
        for at in range(0, 3 * chunk, chunk):
            add(user, small, at, block)
        before, most = worker.memory_info().rss, 0
        path = begin(user, size, "large")
        for at in range(0, size, chunk):
            got = add(user, path, at, content[at : at + chunk])
            assert got.status_code == 204
            most = max(most, worker.memory_info().rss)
        assert got.headers["upload-file"] and hash_of(user, "large") == sha(content)
        assert most - before < 40 << 20, (before, most)
