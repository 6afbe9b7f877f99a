"""Stamps that processes share, and sessions that are remembered by them: none is seen that has ended."""

import asyncio
import contextlib
import resource
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from backlore.core.config import Settings
from backlore.core.notify import Notify
from backlore.core.payload import Codec
from backlore.core.schema import Config, Secret
from backlore.core.stamps import EMPTY, SIZE, Stamps
from backlore.services.identity.sessions import Sessions
from backlore.services.identity.users import Users
from backlore.web.cookie import SignedCookie

# Stamps


def renew_elsewhere(file: Path, owner: str) -> None:
    program = f"from pathlib import Path; from backlore.core.stamps import Stamps; Stamps(Path({str(file)!r})).renew"
    subprocess.run([sys.executable, "-c", f"{program}({owner!r})"], check=True)


def test_what_another_process_changes_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "data" / "stamps"
    stamps = Stamps(file)
    renew_elsewhere(file, "abcdef")
    assert not file.parent.exists()  # whoever only changes something, perhaps as root, makes no file for the workers
    before = {owner: stamps.take(owner) for owner in ("abc1", "abd1", "777x")}
    renew_elsewhere(file, "abcdef")
    assert stamps.read("abc1") != before["abc1"]
    assert {owner: stamps.read(owner) for owner in ("abd1", "777x")} == {
        owner: before[owner] for owner in before if owner != "abc1"
    }
    assert Stamps(file).take("abc9") == stamps.read("abc1")


def test_an_empty_slot_is_no_stamp(tmp_path: Path) -> None:
    """Or who remembers since before a file was emptied would be right again."""
    first, second = Stamps(tmp_path / "stamps"), Stamps(tmp_path / "stamps")
    taken = first.take("abc")
    assert taken != EMPTY and second.take("abc") == taken
    assert (tmp_path / "stamps").stat().st_blocks * 512 >= SIZE  # a renewal needs no room


@pytest.mark.parametrize("size", [0, 3, SIZE])
def test_a_file_that_is_cut_kills_nobody(tmp_path: Path, size: int) -> None:
    stamps, other = Stamps(tmp_path / "stamps"), Stamps(tmp_path / "stamps")
    before = {owner: (stamps.take(owner), other.take(owner))[0] for owner in ("aaa", "777")}
    with (tmp_path / "stamps").open("r+b") as file:
        file.truncate(0)
        file.truncate(size)
    for owner, stamp in before.items():
        assert stamps.read(owner) != stamp
        assert (again := stamps.take(owner)) == other.read(owner) != stamp
        other.renew(owner)
        assert stamps.read(owner) != again


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_gone(tmp_path: Path, replaced: bool) -> None:
    """Whoever still has it hears of what those say who have it too; whoever asks redis again has the new one."""
    file = tmp_path / "stamps"
    reader, writer = Stamps(file), Stamps(file)
    before = reader.take("abc"), writer.take("abc")
    file.unlink()
    if replaced:
        file.write_bytes(before[0] * 5000)
    writer.renew("abc")
    assert reader.read("abc") != before[0]
    taken = reader.take("abc")
    assert taken not in (*before, EMPTY)
    for each in (writer, Stamps(file)):
        each.renew("abc")
        assert reader.read("abc") != taken
        taken = reader.read("abc")


# Sessions


class Redis:
    """Answers what it is told to, late."""

    answer: Any = ("abc", "a@example.com", None)
    seconds = 0.0

    async def execute_command(self, *_: Any) -> Any:
        await asyncio.sleep(self.seconds)
        return self.answer

    @contextlib.asynccontextmanager
    async def pipeline(self) -> AsyncIterator["Redis"]:
        yield self

    async def execute(self) -> None:
        pass


def sessions_of(folder: Path, memory: float) -> tuple[Sessions, Redis]:
    answering = Redis()
    users = Users(answering, Notify(), Stamps(folder / "stamps"))
    return Sessions(
        answering, users, device=SignedCookie("x", "y", False), idle=1e6, limit=1e6, memory=memory
    ), answering


def test_what_was_asked_long_ago_is_not_remembered(tmp_path: Path) -> None:
    """The seconds count from the question: what the answer says may have ended right after it."""
    sessions, answering = sessions_of(tmp_path, 0.1)
    answering.seconds = 0.15
    assert asyncio.run(sessions.load("abc123")) and sessions.remembered("abc123") is None


def test_an_end_that_one_has_told_all_know(tmp_path: Path) -> None:
    """Also one that nobody did: by its limit, by hand, by a command that a worker gave up waiting for."""
    (first, answering), (second, _) = sessions_of(tmp_path, 60), sessions_of(tmp_path, 60)
    for each in (first, second):
        assert asyncio.run(each.load("abc123")) and each.remembered("abc123")
    answering.answer = None
    assert asyncio.run(first.load("abc123")) is None
    assert not first.remembered("abc123") and not second.remembered("abc123")


@pytest.mark.parametrize(
    ("config", "seconds"),
    [
        ({}, 5),
        ({"session_memory": 0}, 0),
        ({"redis": {"host": "10.0.0.1"}}, 0),
        ({"redis": {"host": "10.0.0.1"}, "session_memory": 2}, 2),
    ],
)
def test_who_shares_redis_with_other_machines_asks_it(tmp_path: Path, config: dict, seconds: float) -> None:
    known = Codec(Config).from_object({"name": "x", **config})
    assert Settings(tmp_path, "dev", known, Secret(cookie="c" * 40)).session_memory == seconds


@pytest.mark.parametrize("how", ["a folder", "no room"])
def test_without_stamps_nothing_is_remembered(tmp_path: Path, how: str) -> None:
    """Reads go on; what can't be told to the others is not acknowledged."""
    sessions, _ = sessions_of(tmp_path, 60)
    if how == "a folder":
        (tmp_path / "stamps").mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if how == "no room":
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        assert asyncio.run(sessions.load("abc123")) and sessions.remembered("abc123") is None
        with pytest.raises(OSError):
            asyncio.run(sessions.end("abc"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    if how == "no room":
        assert asyncio.run(sessions.load("abc123")) and sessions.remembered("abc123")
