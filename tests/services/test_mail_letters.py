"""What letters are made of: addresses, templates and values, and what is refused at once."""

from email import message_from_bytes, policy
from pathlib import Path

import pytest

from backlore.clients.smtp import Outbox
from backlore.services.mail import mail as service
from tests.kit.postmaster import LINK, events, is_empty

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
