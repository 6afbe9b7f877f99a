"""Mail through a real redis and a real SMTP server, which is down, refuses, or stops answering as each test needs."""

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from email import message_from_bytes, policy
from pathlib import Path

import pytest
import uvloop
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from backlore.clients.redis.aside import set_aside
from backlore.clients.redis.client import Redis
from backlore.clients.smtp import MailNotTaken, MailRefused, Outbox, Smtp
from backlore.core.notify import Notify
from backlore.services.mail import mail as service
from backlore.services.mail.mail import ATTEMPTS, DUE, LETTERS, Mail
from backlore.services.tasks import supervise
from tests.kit.engines import free_port

LONG = 20.0  # seconds in which anything here must have happened
LINK = "https://shoebox.example/verify?token=aB3&x=" + "y" * 60
LOGIN = {"username": "shoebox", "password": "open sesame"}


class Postmaster:
    """An SMTP server that asks for STARTTLS and a login. `answers` are given before it accepts again."""

    def __init__(self, folder):
        self.port = free_port()
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self.arrived = []
        self.answers = []
        self.delay = 0.0
        self.controller = None

    def start(self, **options):
        options = {
            "tls_context": self.context,
            "require_starttls": True,
            "authenticator": self.authenticate,
            "auth_required": True,
            "enable_SMTPUTF8": True,
        } | options
        self.controller = Controller(self, "127.0.0.1", self.port, **options)
        self.controller.start()

    def stop(self):
        if self.controller:
            self.controller.stop()
            self.controller = None

    def authenticate(self, server, session, envelope, mechanism, login):
        known = login.login == b"shoebox" and login.password == b"open sesame"
        return AuthResult(success=known, handled=False)

    async def handle_DATA(self, server, session, envelope):
        if self.answers:
            return self.answers.pop(0)
        message = message_from_bytes(envelope.content, policy=policy.default)
        self.arrived.append((envelope.rcpt_tos, message))
        await asyncio.sleep(self.delay)
        return "250 OK"

    def smtp(self, **options):
        return Smtp("127.0.0.1", self.port, **LOGIN | {"tls": "starttls", "timeout": 5.0} | options)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificate")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -keyout key.pem -out cert.pem"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1"], cwd=folder, check=True, capture_output=True
    )
    return folder


@pytest.fixture
def postmaster(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    postmaster = Postmaster(certificate)
    postmaster.start()
    yield postmaster
    postmaster.stop()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(service, "BACKOFF", 0.05)
    monkeypatch.setattr(service, "LONGEST_BACKOFF", 0.2)


@pytest.fixture
def told():
    return []


@pytest.fixture
def office(engine, postmaster, told):
    """Runs an async function with a `Mail` in an empty redis, and gives what it returns."""

    def run(function, post=None, **options):
        async def main():
            notify = Notify(told.append)
            redis = Redis(unix_socket_path=engine.path, timeout=2.0)
            try:
                await redis.flushall()
                return await function(make_mail(redis, notify, post or postmaster.smtp(), **options))
            finally:
                await redis.aclose()
                notify.flush()

        return uvloop.run(main())  # as workers do

    return run


def make_mail(redis, notify, post, **options):
    known = {"application": "Shoebox", "address": "https://shoebox.example", "sender": "Shöbox <hello@shoebox.example>"}
    return Mail(redis, notify, post, **known | options)


async def until(condition):
    """Wait until it holds."""
    async with asyncio.timeout(LONG):
        while not condition():
            await asyncio.sleep(0.01)


async def deliver_until(mail, condition):
    async with asyncio.timeout(LONG):
        while not condition():
            await mail.deliver()
            await asyncio.sleep(0.01)


async def is_empty(mail):
    return not await mail._redis.exists(DUE, LETTERS, ATTEMPTS)


def events(told):
    return [(record["level"], record["event"]) for record in told]


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


BAD = [
    ("ann@example.com\r\nBcc: eve@example.com", "verify", {"link": LINK}),
    ("ann@example.com\n", "verify", {"link": LINK}),
    ("ann@example.com,eve@example.com", "verify", {"link": LINK}),
    ("ann@x.example>, <eve@example.com", "verify", {"link": LINK}),
    ('"ann\\"@example.com', "verify", {"link": LINK}),
    ("ann@example.com\x00", "verify", {"link": LINK}),
    ("ann", "verify", {"link": LINK}),
    ("ann@example.com", "hello", {"name": "Eve\r\nBcc: eve@example.com"}),
    ("ann@example.com", "hello", {"name": "Eve\u2028"}),
    ("ann@example.com", "hello", {"name": "\ud800"}),
    ("ann@example.com", "unknown", {}),
    ("ann@example.com", "../verify", {}),
    ("ann@example.com", "verify", {}),
]


@pytest.mark.parametrize(("to", "name", "values"), BAD)
def test_refused_at_send(office, tmp_path, to, name, values):
    (tmp_path / "hello.txt").write_text("Subject: Hello {name}\n\nHello.\n")

    async def work(mail):
        with pytest.raises(ValueError):
            await mail.send(to, name, values)
        assert await is_empty(mail)

    office(work, templates=tmp_path)


def test_values_stay_values(office, postmaster, tmp_path):
    """What a stranger chose becomes no paragraph, no button, no tag, no placeholder."""

    async def work(mail):
        browser = "<b>\n\nhttps://evil.example\n{address}"
        await mail.send("ann@example.com", "new_login", {"when": "now", "origin": "::1", "browser": browser})
        await mail.deliver()

    office(work)
    [(_, message)] = postmaster.arrived
    text, page = (message.get_body((kind,)).get_content() for kind in ("plain", "html"))
    assert "Browser: <b> https://evil.example {address}" in text.splitlines()
    assert "&lt;b&gt;" in page and "<b>" not in page and 'href="https://evil' not in page


BREAKS = ["\r", "\n", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", " " * 70, " wide" * 20]


@pytest.mark.parametrize("cut", BREAKS, ids=ascii)
def test_no_text_of_a_user_begins_a_line(office, postmaster, cut):
    """However it is broken, or so long that we would break it."""
    evil = "If it was not you, tell us at https://evil.example/"

    async def work(mail):
        values = {"when": "now", "origin": f"::1{cut}{evil}", "browser": f"Firefox{cut}{evil}"}
        await mail.send("ann@example.com", "new_login", values)
        await mail.deliver()

    office(work)
    [(_, message)] = postmaster.arrived
    for kind in ("plain", "html"):
        lines = message.get_body((kind,)).get_content().splitlines()
        assert [line for line in lines if "evil" in line] == [
            line for line in lines if line.startswith(("Browser: Firefox", "From: ::1"))
        ]
        assert sum("evil" in line for line in lines) == 2
    assert not any("evil" in line for line in message.as_string().split("\n\n")[0].splitlines())


def test_override(office, postmaster, tmp_path):
    (tmp_path / "verify.txt").write_text("Subject: Grüße von {application} 👋\n\nBitte bestätigen:\n{link}\n")

    async def work(mail):
        await mail.send("ann@example.com", "verify", {"link": LINK})
        await mail.deliver()

    office(work, templates=tmp_path)
    [(_, message)] = postmaster.arrived
    assert message["subject"] == "Grüße von Shoebox 👋"
    assert message.get_body(("plain",)).get_content().splitlines() == ["Bitte bestätigen:", LINK]
    assert b"=0D" not in message.as_bytes()  # CR is no content (RFC 2045, §6.7)
    assert ">Bitte bestätigen</a>" in message.get_body(("html",)).get_content()


@pytest.mark.parametrize(
    "content", ["", "Hello\n", "Subject: x\n", "Subject: x\n\n{a.b}", "Subject: x\n\n{a!r}", "Subject: x\n\n{"]
)
def test_bad_template_is_told_at_start(office, tmp_path, content):
    (tmp_path / "verify.txt").write_text(content)

    async def work(mail):
        pass

    with pytest.raises(ValueError):
        office(work, templates=tmp_path)


@pytest.mark.parametrize("sender", ["", "Shoebox", "a@b.example, c@d.example", "a@b.example\nBcc: c@d.example"])
def test_bad_sender_is_told_at_start(office, sender):
    async def work(mail):
        pass

    with pytest.raises(ValueError):
        office(work, sender=sender)


INTERNATIONAL = [("jörg@example.com", "jörg@example.com"), ("ann@bücher.example", "ann@xn--bcher-kva.example")]


@pytest.mark.parametrize(("given", "reached"), INTERNATIONAL)
def test_international_addresses(office, postmaster, told, given, reached):
    async def work(mail):
        await mail.send(given, "verify", {"link": LINK})
        await mail.deliver()

    office(work)
    assert not told
    assert [recipients for recipients, _ in postmaster.arrived] == [[reached]]


def test_server_without_smtputf8_refuses(office, postmaster, told):
    postmaster.stop()
    postmaster.start(enable_SMTPUTF8=False)

    async def work(mail):
        await mail.send("jörg@example.com", "verify", {"link": LINK})
        await mail.deliver()
        assert await is_empty(mail)

    office(work)
    assert events(told) == [("error", "mail.given_up")] and "SMTPUTF8" in told[0]["why"]


def test_every_template(office, postmaster):
    values = {"link": LINK, "when": "today", "origin": "::1", "browser": "Firefox", "email": "new@example.com"}
    values |= {"what": "a passkey was added"}
    names = sorted(file.stem for file in (Path(service.__file__).parent / "templates").glob("*.txt"))

    async def work(mail):
        for name in names:
            await mail.send("ann@example.com", name, values)
        assert await mail.deliver(len(names)) == len(names) >= 8

    office(work)
    for _, message in postmaster.arrived:
        assert "{" not in message["subject"] + message.get_body(("plain",)).get_content()


def test_outbox(office, tmp_path, told):
    folder = tmp_path / "outbox"

    async def work(mail):
        for number in range(3):
            await mail.send(f"user{number}@example.com", "verify", {"link": LINK})
            await mail.deliver()

    office(work, post=Outbox(folder))
    files = sorted(folder.iterdir())
    mails = [message_from_bytes(file.read_bytes(), policy=policy.default) for file in files]
    assert [message["to"] for message in mails] == [f"user{number}@example.com" for number in range(3)]
    assert LINK in mails[0].get_body(("plain",)).get_content()
    assert LINK.encode() in files[0].read_bytes()  # a developer reads it by eye
    assert all(file.suffix == ".eml" and file.stat().st_mode & 0o077 == 0 for file in files)


def test_outbox_that_cannot_be_written(office, tmp_path, told):
    (tmp_path / "file").write_text("")

    async def work(mail):
        await mail.send("ann@example.com", "verify", {"link": LINK})
        await mail.deliver()
        assert not await is_empty(mail)

    office(work, post=Outbox(tmp_path / "file"))
    assert events(told) == [("warning", "mail.unreachable")]


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
