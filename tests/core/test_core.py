"""The ground: notify, signing, passwords, payload types, the library's own plain functions."""

import asyncio
import re
import subprocess
import sys
import threading
import time
from typing import Annotated, Any

import pytest

from backlore import Payload, length
from backlore import key as application_key
from backlore.core.crypto import Passwords, Signer, random_text
from backlore.core.keys import OURS, key
from backlore.core.notify import Notify, console
from backlore.core.payload import Codec, Invalid
from backlore.core.turns import Busy
from backlore.web.cookie import TAMPERED, SignedCookie
from backlore.web.routes import RouteError
from backlore.web.stages import private, public
from tests.conftest import ROOT


def heard(*calls: tuple[str, str, dict[str, Any]]) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    notify = Notify(records.append)
    for level, event, fields in calls:
        notify(level, event, **fields)
    notify.flush()
    return records


def test_notify_redacts_by_name_at_any_depth() -> None:
    secrets = {
        "password": "s3cret",
        "a": [{"b": {"Cookie": "s3cret", "csrfToken": "s3cret", "ok": 1}}],
        "api_key": "s3cret",
    }
    (record,) = heard(("error", "x", secrets))
    assert "s3cret" not in str(record)
    assert record["a"][0]["b"]["ok"] == 1 and record["level"] == "error"


def test_notify_keeps_the_trace() -> None:
    try:
        raise ValueError("what happened")
    except ValueError as error:
        (record,) = heard(("error", "x", {"error": error}))
    assert "test_notify_keeps_the_trace" in record["trace"] and record["error"] == "what happened"


class Stubborn:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_notify_never_raises() -> None:
    ring: dict[str, Any] = {}
    ring["ring"] = ring
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    records = heard(("info", "x", {"a": Stubborn(), "b": ring, "c": deep, "d": "x" * 100_000, "e": b"\xff"}))
    assert len(records) == 1 and len(str(records[0])) < 20_000


def test_notify_goes_on_when_a_sink_fails(capfd: pytest.CaptureFixture[str]) -> None:
    records: list[dict[str, Any]] = []

    def broken(record: dict[str, Any]) -> None:
        raise OSError("disk full")

    notify = Notify(broken, records.append)
    notify("info", "x")
    notify.flush()
    assert len(records) == 1
    assert "disk full" in capfd.readouterr().err


def test_notify_never_blocks_and_counts_what_it_dropped() -> None:
    gate = threading.Event()
    records: list[dict[str, Any]] = []

    def slow(record: dict[str, Any]) -> None:
        gate.wait(10)
        records.append(record)

    notify = Notify(slow)
    began = time.monotonic()
    for number in range(12_000):
        notify("info", "x", number=number)
    assert time.monotonic() - began < 5
    gate.set()
    notify.flush()
    notify("info", "last")
    notify.flush()
    assert records[-1]["dropped_before"] == 12_000 - (len(records) - 1)


def test_console_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    console({"time": 0.0, "level": "info", "event": "x", "path": "/a\n12:00:00 error forged \x1b[31m"})
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "\x1b" not in said


def test_signatures() -> None:
    signer, other = Signer("s" * 40, "session"), Signer("s" * 40, "csrf")
    signature = signer.sign("text")
    assert signer.verify("text", signature) and not signer.verify("texu", signature)
    assert not other.verify("text", signature) and not Signer("t" * 40, "session").verify("text", signature)
    for wrong in ("", "é", signature[:-1], signature + "A", signature.swapcase()):
        assert not signer.verify("text", wrong)


def test_random_text() -> None:
    made = {random_text(130) for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(each) == 26 and each.isalnum() and each == each.lower() for each in made)


def test_passwords() -> None:
    async def main() -> None:
        passwords = Passwords(each=2)
        hashed = await passwords.hash("pässword", "ann")
        assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        rows = [
            (hashed, "pässword", True),
            (hashed, "password", False),
            (None, "pässword", False),
            ("no hash", "x", False),
        ]
        for kept, given, fits in rows:
            assert await passwords.verify(kept, given, "ann") is fits
        many = await asyncio.gather(*(passwords.verify(hashed, "x", "ann") for _ in range(5)), return_exceptions=True)
        assert [type(each) for each in many] == [bool, bool, bool, Busy, Busy]

    asyncio.run(main())


def test_cookie() -> None:
    cookie = SignedCookie("app", "s" * 40, secure=True)
    name, value = cookie.give("abc123")
    assert name == "set-cookie" and value.startswith("__Host-app=abc123.") and "; Secure; " in value
    sent = value.split(";")[0].encode()
    for header in (sent, b"a=b; " + sent, sent + b"; a=b", b"xx" + sent + b"; " + sent, b"a=b;" + sent):
        assert cookie.read(header) == "abc123", header
    for header in (None, b"", b"app=x", b"x__Host-app=x", b"a=__Host-app"):
        assert cookie.read(header) is None, header
    for header in (b"__Host-app=", b"__Host-app=abc123", sent.replace(b"abc", b"abd"), b"__Host-app=\xff"):
        assert cookie.read(header) is TAMPERED, header


def test_keys() -> None:
    assert key("note", "k3fx9", 12, "a") == "note:{k3f}x9:12:a"


class Tree(Payload):
    name: Annotated[str, length(1, 3)]
    inside: list["Tree"] = []


def test_a_type_that_holds_itself() -> None:
    codec = Codec(Tree)
    assert codec.from_json(b'{"name":"a","inside":[{"name":"b"}]}').inside[0].name == "b"
    with pytest.raises(Invalid, match="nested too deeply"):
        codec.from_json(b'{"name":"a","inside":[' * 100_000)


class Lax:
    pass


class Holds(Payload):
    lax: Lax


class Unfit(Payload):
    other: dict[str, Holds]


def test_types_that_can_not_be_checked_are_refused_at_the_start() -> None:
    with pytest.raises(TypeError, match="Lax can't stand in a payload"):
        Codec(Unfit)


async def no_type(request: Any, body):  # type: ignore[no-untyped-def]
    pass


async def unknown_part(request: Any, id: int) -> None:
    pass


def not_async(request: Any) -> None:
    pass


def test_wrong_routes_are_refused_at_the_start() -> None:
    for make, said in [
        (lambda: private.post("/a", no_type), "give `body` and `query` a type"),
        (lambda: private.get("/a", unknown_part), "takes 'id'"),
        (lambda: private.get("/a", not_async), "must be `async def`"),
        (lambda: public.get("a/{id}", unknown_part), "begins with /"),
    ]:
        with pytest.raises(RouteError, match=said):
            make()


def test_an_application_cannot_take_a_key_of_ours() -> None:
    assert application_key("note", "k3fx9", 12) == key("note", "k3fx9", 12) == "note:{k3f}x9:12"
    for kind in OURS:
        with pytest.raises(ValueError, match="Backlore's own"):
            application_key(kind, "k3fx9")
    found = set()
    for file in (ROOT / "backlore").rglob("*.py"):
        text = file.read_text()
        # as code has them, and as the lists at the top of a service have them
        found |= set(re.findall(r'\bkey\(\s*"([a-z-]+)"', text)) | set(re.findall(r"^ {4}([a-z]+):\{", text, re.M))
    assert found <= OURS and len(found) > 20, found - OURS


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_memory_of_passwords_goes_back() -> None:
    """A hash takes 19 MiB, also when there were others before it."""
    program = (
        "import asyncio\nfrom pathlib import Path\nfrom backlore.core import crypto\n"
        "crypto.REST = 0.1\n"
        "def held(): return int(Path('/proc/self/statm').read_text().split()[1]) * 4 // 1024\n"
        "async def main():\n"
        "    passwords, before = crypto.Passwords(), held()\n"
        "    for _ in range(3): await passwords.hash('a long password', 'ann')\n"
        "    print(held() - before)\n"
        "    await asyncio.sleep(1)\n"
        "    print(held() - before)\n"
        "asyncio.run(main())"
    )
    got = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    after, rested = map(int, got.stdout.split())
    assert after >= 19 > 5 > rested, got.stdout
