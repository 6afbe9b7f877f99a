"""Letters leave through a real redis and a real SMTP server, each of which is down or refuses as a test needs."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from backlore.clients.redis.aside import set_aside
from backlore.clients.smtp import MailNotTaken, MailRefused
from backlore.services.mail import mail as service
from backlore.services.mail.mail import ATTEMPTS, DUE, LETTERS
from backlore.services.tasks import supervise
from tests.kit.postmaster import LINK, LONG, deliver_until, events, is_empty, make_mail, until


def test_arrives(office, postmaster, told):
    async def work(mail):
        await mail.send("ann@example.com", "verify", {"link": LINK})
        assert await mail.deliver() == 1
        assert await mail.deliver() == 0
        assert await is_empty(mail)

    office(work)
    [(recipients, message)] = postmaster.arrived
    assert recipients == ["ann@example.com"] and message["to"] == "ann@example.com"
    assert message["subject"] == "Confirm your address for Shoebox"
    assert message["from"] == "Shöbox <hello@shoebox.example>"
    assert message["auto-submitted"] == "auto-generated"
    assert message["message-id"].endswith("@shoebox.example>")
    assert abs(message["date"].datetime.timestamp() - time.time()) < LONG
    text, page = (message.get_body((kind,)).get_content() for kind in ("plain", "html"))
    assert LINK in text.splitlines()
    assert f'href="{LINK.replace("&", "&amp;")}"' in page and ">Confirm my address</a>" in page
    assert not told


def test_arrives_once_smtp_is_up(office, postmaster, told):
    postmaster.stop()

    async def work(mail):
        await mail.send("ann@example.com", "verify", {"link": LINK})
        await deliver_until(mail, lambda: told)
        await asyncio.to_thread(postmaster.start)
        await deliver_until(mail, lambda: postmaster.arrived)
        assert await is_empty(mail)

    office(work)
    assert len(postmaster.arrived) == 1
    assert events(told) == [("warning", "mail.unreachable"), ("info", "mail.reachable")]


@pytest.mark.parametrize("answer", ["550 no such mailbox", "554 rejected"])
def test_refused_is_final(office, postmaster, told, answer):
    postmaster.answers = [answer]

    async def work(mail):
        await mail.send("ann@example.com", "verify", {"link": LINK})
        assert await mail.deliver() == 1
        assert await is_empty(mail)

    office(work)
    assert not postmaster.arrived
    [record] = told
    assert (record["level"], record["event"], record["to"]) == ("error", "mail.given_up", "ann@example.com")
    assert answer[:3] in record["why"] and "token" not in str(record)


@pytest.mark.parametrize("answer", ["451 try again", "421 closing", "530 log in first"])
def test_what_may_pass_is_retried(office, postmaster, answer):
    postmaster.answers = [answer, answer]

    async def work(mail):
        await mail.send("ann@example.com", "verify", {"link": LINK})
        await deliver_until(mail, lambda: postmaster.arrived)
        assert await is_empty(mail)

    office(work)
    assert len(postmaster.arrived) == 1


def test_given_up_when_old(office, postmaster, told, monkeypatch):
    postmaster.stop()

    async def work(mail):
        await mail.send("ann@example.com", "verify", {"link": LINK})
        async with asyncio.timeout(LONG):
            while await mail._redis.hvals(ATTEMPTS) != ["2"]:
                await mail.deliver()
                await asyncio.sleep(0.01)
        monkeypatch.setattr(service, "PATIENCE", 0)
        await deliver_until(mail, lambda: ("error", "mail.given_up") in events(told))
        assert await is_empty(mail)

    office(work)
    assert told[-1]["attempts"] == 3 and "token" not in str(told)


DELIVERER = """
import asyncio, sys
from backlore.clients.redis.client import Redis
from backlore.clients.smtp import Smtp
from backlore.core.notify import Notify
from backlore.services.mail import mail
mail.CLAIMED = 1_500_000
path, port = sys.argv[1:]
async def main():
    post = Smtp("127.0.0.1", int(port), username="shoebox", password="open sesame", timeout=30.0)
    await mail.Mail(Redis(unix_socket_path=path), Notify(), post, application="Shoebox",
                    address="https://shoebox.example", sender="hello@shoebox.example").deliver()
asyncio.run(main())
"""


def test_killed_between_sending_and_removal(office, engine, postmaster):
    async def work(mail):
        postmaster.delay = 60.0
        await mail.send("ann@example.com", "verify", {"link": LINK})
        command = [sys.executable, "-c", DELIVERER, engine.path, str(postmaster.port)]
        other = await asyncio.to_thread(subprocess.Popen, command)
        await until(lambda: postmaster.arrived)
        other.send_signal(signal.SIGKILL)
        await asyncio.to_thread(other.wait)
        postmaster.delay = 0.0
        await deliver_until(mail, lambda: len(postmaster.arrived) == 2)
        assert await is_empty(mail)

    office(work)
    first, second = (message for _, message in postmaster.arrived)
    assert first["message-id"] == second["message-id"]


UNREADABLE = ["", "{", "[]", "{}", '{"to": 1, "name": "verify", "values": {}, "created": 0}', b"\xff\xfe"]


@pytest.mark.parametrize("letter", UNREADABLE)
def test_what_cannot_be_read_is_set_aside(office, postmaster, told, letter):
    """Told once, to be seen, and in nobody's way; a version that can read it sends it."""

    async def work(mail):
        await mail._redis.hset(LETTERS, "odd", letter)
        await mail._redis.zadd(DUE, {"odd": 0})
        await mail.send("ann@example.com", "verify", {"link": LINK})
        await deliver_until(mail, lambda: postmaster.arrived)
        assert await set_aside(mail._redis) == [("mail", "odd")]
        await mail._redis.zadd(DUE, {"odd": 0})  # an hour later
        assert await mail.deliver() == 1
        assert await mail.deliver() == 0
        assert await set_aside(mail._redis) == [("mail", "odd")]
        await mail._redis.hset(LETTERS, "odd", json.dumps(READABLE))
        await mail._redis.zadd(DUE, {"odd": 0})
        await deliver_until(mail, lambda: len(postmaster.arrived) == 2)
        assert await is_empty(mail)

    office(work)
    assert events(told) == [("error", "aside")] and "odd" in told[0]["name"]


# of a version before: times in seconds; of one to come: more than we know
READABLE = {"to": "bob@example.com", "name": "verify", "values": {"link": LINK}, "created": 1.5e9, "more": True}


def test_late_loser_moves_nothing(office):
    """Who was stopped for longer than its lease doesn't disturb the one that has the letter now."""

    async def work(mail):
        await mail.send("ann@example.com", "verify", {"link": LINK})
        [_, _, [(id, _, attempt)]] = await service.CLAIM(mail._redis, [DUE, LETTERS, ATTEMPTS], 0, 10)
        await asyncio.sleep(0.01)
        [_, _, [_]] = await service.CLAIM(mail._redis, [DUE, LETTERS, ATTEMPTS], 100_000_000, 10)
        assert await service.RELEASE(mail._redis, [DUE, ATTEMPTS], id, attempt, 0) == 0
        assert await mail.deliver() == 0

    office(work)


def test_two_deliverers(office, postmaster):
    async def work(mail):
        other = make_mail(mail._redis, mail._notify, postmaster.smtp())
        for number in range(30):
            await mail.send(f"user{number}@example.com", "verify", {"link": LINK})
        runs = [asyncio.create_task(each.run()) for each in (mail, other)]
        await until(lambda: len(postmaster.arrived) >= 30)
        await asyncio.sleep(0.5)
        for each in runs:
            each.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        assert await is_empty(mail)

    office(work)
    assert sorted(to for [to], _ in postmaster.arrived) == sorted(f"user{number}@example.com" for number in range(30))


def test_maker(office, postmaster, told):
    made = []

    async def make(to, values):
        made.append((to, values))
        if len(made) == 1:
            raise RuntimeError("broken")
        return {"link": f"{LINK}{len(made)}"} if to.startswith("ann") else None

    async def work(mail):
        mail.makers["recover"] = make
        await mail.send("ann@example.com", "recover", {"user": "k3fx"})
        assert not made and LINK not in str(await mail._redis.hgetall(LETTERS))
        postmaster.answers = ["451 later"]
        await deliver_until(mail, lambda: postmaster.arrived)
        await mail.send("bob@example.com", "recover")
        assert await mail.deliver() == 1
        assert await is_empty(mail)

    office(work)
    assert made == [("ann@example.com", {"user": "k3fx"})] * 3 + [("bob@example.com", {})]
    [(_, message)] = postmaster.arrived
    assert f"{LINK}3" in message.get_body(("plain",)).get_content()
    assert events(told) == [("error", "mail.failed"), ("warning", "mail.unreachable"), ("info", "mail.reachable")]


def test_redis_gone_and_back(office, engine, postmaster):
    async def work(mail):
        run = asyncio.create_task(supervise("mail", mail.run, mail._notify))
        await mail.send("ann@example.com", "verify", {"link": LINK})
        await until(lambda: len(postmaster.arrived) == 1)
        await asyncio.to_thread(engine.kill)
        await asyncio.sleep(1)
        assert not run.done()
        await asyncio.to_thread(engine.start)
        await mail._redis.ping()
        await mail.send("bob@example.com", "verify", {"link": LINK})
        await until(lambda: len(postmaster.arrived) == 2)
        run.cancel()

    office(work)


def test_redis_gone_while_sending(office, engine, postmaster):
    """The letter was sent: it is removed when redis is back, and not sent again."""

    async def work(mail):
        postmaster.delay = 0.3
        await mail.send("ann@example.com", "verify", {"link": LINK})
        delivery = asyncio.create_task(mail.deliver())
        await until(lambda: postmaster.arrived)
        await asyncio.to_thread(engine.kill)
        await asyncio.sleep(1)
        await asyncio.to_thread(engine.start)
        assert await delivery == 1
        assert await is_empty(mail)

    office(work)
    assert len(postmaster.arrived) == 1


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
def test_tls_from_the_first_byte(office, postmaster, told):
    postmaster.stop()
    implicit = {"ssl_context": postmaster.context, "tls_context": None, "require_starttls": False}
    postmaster.start(**implicit, auth_require_tls=False)

    async def work(mail):
        await mail.send("ann@example.com", "verify", {"link": LINK})
        await mail.deliver()

    office(work, post=postmaster.smtp(tls="tls"))
    assert len(postmaster.arrived) == 1 and not told


WEAK = [
    ({"password": "wrong"}, {}),
    ({}, {"tls_context": None, "require_starttls": False, "auth_require_tls": False}),  # offers no STARTTLS
]


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
@pytest.mark.parametrize(("options", "server"), WEAK)
def test_configuration_that_can_be_mended(office, postmaster, told, options, server):
    postmaster.stop()
    postmaster.start(**server)

    async def work(mail):
        await mail.send("ann@example.com", "verify", {"link": LINK})
        await mail.deliver()
        assert not await is_empty(mail)

    office(work, post=postmaster.smtp(**options))
    assert not postmaster.arrived and events(told) == [("warning", "mail.unreachable")]


def test_certificate_is_checked(office, postmaster, monkeypatch, told):
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)

    async def work(mail):
        await mail.send("ann@example.com", "verify", {"link": LINK})
        await mail.deliver()

    office(work, post=postmaster.smtp())
    assert not postmaster.arrived and "certificate" in told[0]["why"].lower()


def test_refused_and_unreachable_are_apart():
    assert not issubclass(MailRefused, MailNotTaken) and not issubclass(MailNotTaken, MailRefused)
