"""The tasks process is killed, and redis has what nobody can read or what was cut: the rest goes on."""

import asyncio
import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from backlore.clients.redis.client import Redis
from backlore.clients.smtp import Outbox
from backlore.core.keys import key
from backlore.core.notify import Notify
from backlore.services.identity.tokens import token_key
from backlore.services.mail.mail import Mail
from tests.conftest import (
    KEEPING,
    KINDS,
    PASSWORD,
    Server,
    User,
    engine_cli,
    mail_to,
    run_in_application,
    serving,
    words_of,
)
from tests.kit.waiting import healthy, until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of this test's own, to be broken."""
    with serving(KINDS, tmp_path) as made:
        yield made


def test_tasks_process_killed(server: Server) -> None:
    tasks = next(each for each in server.family() if "tasks" in words_of(each))
    tasks.kill()
    server.wait_said("role=tasks")
    until(lambda: any("tasks" in words_of(e) and e.pid != tasks.pid for e in server.family()))
    assert healthy(server)


def tasks_of(server: Server) -> psutil.Process:
    return next(each for each in server.family() if "tasks" in words_of(each))


def in_redis(server: Server, *words: str) -> str:
    got = subprocess.run([*engine_cli(server), *words], check=True, capture_output=True, text=True)
    return got.stdout.strip()


def test_what_cannot_be_read_ends_no_loop(server: Server) -> None:
    """Of another version: a letter, a move, a user who is to be erased, what is known of a task."""
    pid = tasks_of(server).pid
    with User(server, "ann@example.com") as user:
        user.sign_up().post("/auth/recover", json={"email": user.email})
        for command in (
            ("hset", key("mail", "outletters"), "odd", "{"),
            ("zadd", key("mail", "outdue"), "0", "odd"),
            ("hset", key("blob", "odduser", "b"), "size", "many"),
            ("zadd", key("moves", "odduser"), "0", "b"),
            ("zadd", key("moves", "all"), "0", "odduser"),
            ("hset", key("user", "odd"), "email", "odd@example.com", "created", "never"),
        ):
            in_redis(server, *command)
        for kind in ("kind=mail name=odd", 'kind=move name="odduser b"'):
            assert server.wait_said(kind).count(kind) == 1
        # one that is to be erased holds up no other, who is erased within a period of that task and a lease
        in_redis(server, "hset", key("user", "odd"), "state", "destroying")
        in_redis(server, "sadd", "destroying", "odd", "gone")
        until(lambda: in_redis(server, "smembers", "destroying") == "odd", 60)
        mail_to(server, user.email)
        user.post("/auth/recover", json={"email": user.email})
        mail_to(server, user.email, 2)
    assert tasks_of(server).pid == pid
    checking = [sys.executable, "-m", "backlore.cli", "check", "--app", str(server.folder), "--data", str(server.data)]
    checked = subprocess.run(checking, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 1 and "mail odd" in checked.stderr and "move odduser b" in checked.stderr


def test_what_cannot_be_read_takes_down_no_list(tmp_path: Path) -> None:
    """Nor does it open anything; what is beside it is there."""
    with serving(KEEPING, tmp_path) as server, User(server, "ann@example.com") as user:
        id = user.sign_up().get("/auth/csrf").json()["user"]["id"]
        made = user.post("/files", files={"file": ("f", b"content")}, data={"name": "a"})
        assert made.status_code == 200
        for name, field in (
            (key("sessions", id), "odd"),
            (key("passkeys", id), "odd"),
            (key("files", id), "odd"),
            (key("trash", id), "odd"),
        ):
            in_redis(server, "hset", name, field, '{"session": 7}')
        in_redis(server, "zadd", key("newest", id), "1", "odd")
        in_redis(server, "zadd", key("trashed", id), "1", "odd")
        in_redis(server, "set", token_key("reset", f"{id[:3]}{'a' * 26}"), "{")
        in_redis(server, "hset", key("upload", id, "b" * 32), "ended", "", "expires", str(1 << 52), "pieces", "{")
        assert len(user.get("/auth/sessions").json()["sessions"]) == 1
        assert user.get("/auth/passkeys").json()["passkeys"] == []
        assert [each["name"] for each in user.get("/files").json()["files"]] == ["a"]
        assert user.get("/files/trash").json()["files"] == []
        assert user.get("/files/content/odd").status_code == 404
        assert user.head(f"/files/tus/{'b' * 32}", headers={"tus-resumable": "1.0.0"}).status_code == 404
        reset = user.post("/auth/reset", json={"token": f"{id[:3]}{'a' * 26}", "password": PASSWORD})
        assert (reset.status_code, reset.json()) == (403, {"error": "token"})


LETTERS = 40


def test_letters_outlive_kills_of_the_tasks_process(server: Server) -> None:
    """At any moment: whatever was acknowledged leaves."""
    acknowledged: list[str] = []

    async def send() -> None:
        redis = Redis(unix_socket_path=str(server.data / "redis" / "engine.sock"), timeout=5)
        names = {"application": "Kinds", "address": server.url, "sender": "kinds@example.com"}
        mail = Mail(redis, Notify(), Outbox(server.data / "unused"), **names)
        chance = random.Random(7)
        for number in range(LETTERS):
            to = f"user{number}@example.com"
            await mail.send(to, "taken", {"link": server.url})
            acknowledged.append(to)
            if number % 8 == 4:
                await asyncio.sleep(chance.uniform(0, 0.4))  # until its letters are looked at
                with contextlib.suppress(StopIteration, psutil.NoSuchProcess):
                    tasks_of(server).kill()
        await redis.aclose()

    asyncio.run(send())
    until(lambda: {path.read_text().split("To: ")[1].split()[0] for path in outbox(server)} >= set(acknowledged), 90)


def outbox(server: Server) -> list[Path]:
    return list((server.data / "outbox").glob("[!.]*.eml"))


def test_signup_cut_by_a_crash(tmp_path: Path) -> None:
    """A user without its index, as a crash between two steps leaves it, is found again by the consistency check."""
    with serving(KINDS, tmp_path) as server:
        user = User(server, "cut@example.com").sign_up()
        cli = engine_cli(server)
        names = subprocess.run([*cli, "keys", "*cut@example.com"], capture_output=True, text=True).stdout.split()
        assert len(names) == 1
        subprocess.run([*cli, "del", *names], check=True, capture_output=True)
        id = user.get("/auth/csrf").json()["user"]["id"]
        created = str(int(time.time()) - 1000)
        subprocess.run(
            [*cli, "hset", f"user:{{{id[:3]}}}{id[3:]}", "created", created], check=True, capture_output=True
        )
        assert "identity.mended" in run_in_application(server, "server.app.identity.users.mend()")
        user.log_in()
