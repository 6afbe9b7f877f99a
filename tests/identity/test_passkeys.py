"""Passkeys by a real Chromium with a virtual authenticator; what no browser would send, by an authenticator of ours."""

import base64
import hashlib
import json
import random
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from selenium import webdriver
from selenium.webdriver.common.virtual_authenticator import Protocol, Transport, VirtualAuthenticatorOptions

from backlore.core.keys import key
from backlore.services.identity.ceremony import RelyingParty
from tests.conftest import KINDS, PASSWORD, Server, User, engine_cli, mail_to, serving
from tests.example.test_page import chromium as chromium

MANY = dict.fromkeys(("signup", "login", "login-account", "passkey", "password", "verify", "mail"), (10000, 60))
SIGNED = ("authenticatorData", "clientDataJSON", "signature", "userHandle")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(KINDS, tmp_path_factory.mktemp("passkeys"), settings={"rates": MANY}) as made:
        yield made


def write(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def read(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "===")


class Device:
    """An authenticator that does whatever it is told."""

    def __init__(self, port: int, origin: str = "", party: str = "localhost"):
        self.secret = ec.generate_private_key(ec.SECP256R1())
        self.id = random.randbytes(16)
        self.count = 0
        self.origin = origin or f"http://localhost:{port}"
        self.party = party
        self.user = b""

    def client(self, kind: str, challenge: str, **more: Any) -> bytes:
        return json.dumps({"type": kind, "challenge": challenge, "origin": self.origin, **more}).encode()

    def data(self, flags: int, rest: bytes = b"") -> bytes:
        self.count += 1
        return hashlib.sha256(self.party.encode()).digest() + bytes([flags]) + self.count.to_bytes(4, "big") + rest

    def key(self) -> bytes:
        point = self.secret.public_key().public_numbers()
        return cbor2.dumps({1: 2, 3: -7, -1: 1, -2: point.x.to_bytes(32, "big"), -3: point.y.to_bytes(32, "big")})

    def credential(self, response: dict) -> dict:
        return {
            "id": write(self.id),
            "rawId": write(self.id),
            "type": "public-key",
            "authenticatorAttachment": "platform",
            "clientExtensionResults": {},
            "response": response,
        }

    def create(self, options: dict, public: bytes | None = None, flags: int = 0x45, fmt: str = "none") -> dict:
        self.user = read(options["user"]["id"])
        public = self.key() if public is None else public
        rest = bytes(16) + len(self.id).to_bytes(2, "big") + self.id + public
        attestation = cbor2.dumps({"fmt": fmt, "attStmt": {}, "authData": self.data(flags, rest)})
        client = self.client("webauthn.create", options["challenge"])
        response = {"attestationObject": write(attestation), "clientDataJSON": write(client), "transports": ["usb"]}
        return self.credential(response)

    def get(self, options: dict, flags: int = 0x05, rest: bytes = b"", **more: Any) -> dict:
        client, data = self.client("webauthn.get", options["challenge"], **more), self.data(flags, rest)
        signature = self.secret.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        texts = map(write, (data, client, signature, self.user))
        return self.credential(dict(zip(SIGNED, texts, strict=True)))


def begin(user: User) -> dict:
    got = user.post("/auth/passkeys/begin", json={"password": PASSWORD})
    assert got.status_code == 200, got.text
    return got.json()["options"]


def add(user: User, credential: dict) -> tuple[int, dict]:
    got = user.post("/auth/passkeys/add", json={"credential": credential, "name": "My phone"})
    return got.status_code, got.json()


def options(user: User, **ticket: str) -> dict:
    got = user.post("/auth/passkey/options", json=ticket)
    assert got.status_code == 200, got.text
    return got.json()["options"]


def show(user: User, credential: dict, **ticket: str) -> tuple[int, str]:
    got = user.post("/auth/passkey", json={"credential": credential, **ticket})
    user.headers["x-csrf-token"] = got.json().get("csrf", user.headers.get("x-csrf-token", ""))
    return got.status_code, got.json().get("error", "")


def ticket(user: User) -> str:
    got = user.post("/auth/login", json={"email": user.email, "password": PASSWORD}).json()
    assert (got["error"], got["factors"]) == ("second", ["passkey"])
    return got["ticket"]


def owner(server: Server, email: str) -> tuple[User, Device]:
    """Somebody with a passkey."""
    user, device = User(server, email).sign_up(), Device(server.port)
    status, got = add(user, device.create(begin(user)))
    assert status == 200 and len(got["recoveryCodes"]) == 10, got
    return user, device


REFUSED = (403, "passkey")


# By the browser

CREATE = """
const [options, done] = arguments
const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options)
navigator.credentials.create({publicKey}).then(made => done(made.toJSON()), error => done({error: error.name}))
"""
GET = """
const [options, done] = arguments
const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options)
navigator.credentials.get({publicKey}).then(shown => done(shown.toJSON()), error => done({error: error.name}))
"""
POST = """
const [path, body, csrf, done] = arguments
const headers = {"content-type": "application/json", "x-csrf-token": csrf}
fetch(path, {method: "POST", headers, body: JSON.stringify(body)})
    .then(async got => done([got.status, await got.json()]))
"""


class Page:
    """What a page of ours does in the browser."""

    def __init__(self, browser: webdriver.Chrome, server: Server):
        self.browser = browser
        self.csrf = ""
        browser.get(f"http://localhost:{server.port}/health")
        self.plug_in(verifies=True)

    def plug_in(self, verifies: bool) -> None:
        """An authenticator that verifies its user, or can't."""
        virtual = VirtualAuthenticatorOptions(
            protocol=Protocol.CTAP2,
            transport=Transport.INTERNAL,
            has_resident_key=True,
            has_user_verification=verifies,
            is_user_verified=verifies,
        )
        self.browser.add_virtual_authenticator(virtual)

    def swap(self, verifies: bool) -> None:
        """The same passkeys in another authenticator."""
        credentials = self.browser.get_credentials()
        self.browser.remove_virtual_authenticator()
        self.plug_in(verifies)
        for each in credentials:
            self.browser.add_credential(each)

    def post(self, path: str, body: dict, status: int = 200) -> dict:
        got, reply = self.browser.execute_async_script(POST, path, body, self.csrf)
        assert got == status, (path, got, reply)
        self.csrf = reply.get("csrf", self.csrf)
        return reply

    def create(self, options: dict) -> dict:
        return self.browser.execute_async_script(CREATE, options)

    def get(self, options: dict) -> dict:
        return self.browser.execute_async_script(GET, options)

    def log_out(self) -> None:
        self.post("/auth/logout", {})
        self.csrf = ""


def test_a_browser_lives_with_passkeys(server: Server, chromium: webdriver.Chrome) -> None:
    """Registered; a login of its own; the second factor of a password; of no use when it was removed."""
    page, login = Page(chromium, server), {"email": "browser@example.com", "password": PASSWORD}
    page.post("/auth/signup", login)
    page.post("/auth/login", login)
    page.post("/auth/passkeys/begin", {"password": "a wrong one"}, 403)
    made = page.create(page.post("/auth/passkeys/begin", {"password": PASSWORD})["options"])
    assert made["response"]["transports"] == ["internal"]
    assert len(page.post("/auth/passkeys/add", {"credential": made, "name": "Laptop"})["recoveryCodes"]) == 10
    assert 'the passkey "Laptop" was added' in " ".join(mail_to(server, login["email"]).split())
    again = page.post("/auth/passkeys/begin", {"password": PASSWORD})["options"]
    assert page.create(again) == {"error": "InvalidStateError"}  # it is excluded
    page.log_out()

    alone = page.post("/auth/passkey/options", {})["options"]
    assert "allowCredentials" not in alone and alone["userVerification"] == "required"
    shown = page.get(alone)
    page.post("/auth/passkey", {"credential": shown})
    assert page.browser.execute_async_script("fetch('/who').then(got => got.json()).then(arguments[0])") == {
        "email": login["email"]
    }
    page.log_out()
    assert page.post("/auth/passkey", {"credential": shown}, 403) == {"error": "passkey"}

    page.swap(verifies=False)
    assert page.get(page.post("/auth/passkey/options", {})["options"]) == {"error": "NotAllowedError"}
    second = page.post("/auth/login", login, 403)
    assert second["error"] == "second" and second["factors"] == ["passkey"]
    asked = page.post("/auth/passkey/options", {"ticket": second["ticket"]})["options"]
    assert asked["allowCredentials"] == [{"type": "public-key", "id": made["id"], "transports": ["internal"]}]
    page.post("/auth/passkey", {"credential": page.get(asked), "ticket": second["ticket"]})

    page.post("/auth/passkeys/remove", {"id": made["id"], "password": "a wrong one"}, 403)
    page.post("/auth/passkeys/remove", {"id": made["id"], "password": PASSWORD})
    page.post("/auth/passkeys/remove", {"id": made["id"], "password": PASSWORD}, 404)
    assert 'the passkey "Laptop" was removed' in " ".join(mail_to(server, login["email"], 2).split())
    page.log_out()
    page.swap(verifies=True)
    removed = page.get(page.post("/auth/passkey/options", {})["options"])
    assert page.post("/auth/passkey", {"credential": removed}, 403) == {"error": "passkey"}
    page.post("/auth/login", login)  # there is no second factor any more


# By a device of ours


def test_the_user_sees_and_removes_them(server: Server) -> None:
    user, device = owner(server, "sees@example.com")
    id = user.get("/auth/csrf").json()["user"]["id"]
    [shown] = user.get("/auth/passkeys").json()["passkeys"]
    assert (shown["id"], shown["name"], shown["used"]) == (write(device.id), "My phone", 0)
    assert abs(shown["created"] - time.time()) < 60
    with User(server) as other:
        assert show(other, device.get(options(other)))[0] == 200
        assert abs(user.get("/auth/passkeys").json()["passkeys"][0]["used"] - time.time()) < 60
    second = Device(server.port)
    assert add(user, second.create(begin(user))) == (200, {"recoveryCodes": []})
    assert add(user, second.create(begin(user))) == (403, {"error": "passkey"})  # it is there
    recovery = [*engine_cli(server), "exists", key("recovery", id)]
    for each, left in ((device, "1"), (second, "0")):
        body = {"id": write(each.id), "password": PASSWORD}
        assert user.post("/auth/passkeys/remove", json=body).json() == {}
        assert subprocess.run(recovery, capture_output=True, text=True).stdout.strip() == left
    assert user.get("/auth/passkeys").json() == {"passkeys": []}
    assert show(user, second.get(options(user))) == REFUSED


def test_twenty_are_enough(server: Server) -> None:
    user = User(server, "many@example.com").sign_up()
    for _ in range(19):
        assert add(user, Device(server.port).create(begin(user)))[0] == 200
    waiting = [begin(user) for _ in range(5)]
    with ThreadPoolExecutor(5) as pool:  # each has changed the user, for whom the others were begun
        got = list(pool.map(lambda each: add(user, Device(server.port).create(each))[0], waiting))
    assert sorted(got) == [200] + [403] * 4
    assert user.post("/auth/passkeys/begin", json={"password": PASSWORD}).json() == {"error": "passkeys"}
    user.post("/auth/destroy", json={"password": PASSWORD}).raise_for_status()


def test_a_challenge_serves_once_and_for_one_purpose(server: Server) -> None:
    user, device = owner(server, "once@example.com")
    shown = device.get(options(user))
    with ThreadPoolExecutor(10) as pool:
        got = list(pool.map(lambda _: show(User(server), shown), range(10)))
    assert sorted(got) == [(200, "")] + [REFUSED] * 9
    assert show(user, device.get(begin(user))) == REFUSED  # made for registering
    assert add(user, Device(server.port).create(begin(user) | {"challenge": options(user)["challenge"]}))[0] == 403
    assert show(user, device.get(options(user, ticket=ticket(user)))) == REFUSED  # for a second factor
    held = ticket(user)
    assert show(user, device.get(options(user)), ticket=held) == REFUSED  # for a login of its own
    assert show(user, device.get({"challenge": write(b"x" * 26)})) == REFUSED
    assert show(user, device.get(options(user, ticket=held)), ticket=held) == (200, "")
    assert show(user, device.get(options(user)), ticket=held) == (403, "token")
    assert user.post("/auth/passkey/options", json={"ticket": held}).json() == {"error": "token"}
    device.count = 0  # a refused one is used up, too
    refused = device.get(options(user))
    assert [show(user, refused), show(user, refused)] == [REFUSED] * 2


def test_what_is_of_one_user_is_of_no_other(server: Server) -> None:
    user, device = owner(server, "one@example.com")
    other, others = owner(server, "other@example.com")
    assert add(other, Device(server.port).create(begin(user))) == (403, {"error": "passkey"})
    held = ticket(user)
    asked = options(user, ticket=held)
    assert [each["id"] for each in asked["allowCredentials"]] == [write(device.id)]
    assert show(user, others.get(asked), ticket=held) == REFUSED
    theirs = ticket(other)
    assert show(user, others.get(options(other, ticket=theirs)), ticket=held) == REFUSED
    device.user = others.user
    assert show(user, device.get(options(user))) == REFUSED
    assert show(user, device.get(options(user, ticket=held)), ticket=held) == REFUSED
    others.secret = device.secret
    assert show(user, others.get(options(user))) == REFUSED
    without = User(server, "without@example.com").sign_up()
    body = {"id": write(device.id), "password": PASSWORD}
    assert without.post("/auth/passkeys/remove", json=body).status_code == 404
    assert user.get("/auth/passkeys").json()["passkeys"]


def test_who_was_not_verified_has_a_second_factor_only(server: Server) -> None:
    user, device = owner(server, "unverified@example.com")
    assert show(user, device.get(options(user), flags=0x01)) == REFUSED
    assert show(user, device.get(options(user), flags=0x04)) == REFUSED  # nobody was there
    held = ticket(user)
    assert show(user, device.get(options(user, ticket=held), flags=0x00), ticket=held) == REFUSED
    assert show(user, device.get(options(user, ticket=held), flags=0x01), ticket=held) == (200, "")


def test_a_copy_is_refused_and_told(server: Server) -> None:
    user, device = owner(server, "copied@example.com")
    assert show(user, device.get(options(user))) == (200, "")
    device.count -= 1
    assert show(user, device.get(options(user))) == REFUSED
    server.wait_said(f"passkey={write(device.id)}")
    assert show(user, device.get(options(user))) == (200, "")
    shared = Device(server.port)  # of several devices: they never count
    shared.count = -1
    assert add(user, shared.create(begin(user)))[0] == 200
    for _ in range(2):
        shared.count = -1
        assert show(user, shared.get(options(user), flags=0x1D)) == (200, "")


def test_users_who_may_not_log_in(server: Server) -> None:
    admin = User(server, "admin@example.com").sign_up()
    user, device = owner(server, "disabled@example.com")
    id = user.get("/auth/csrf").json()["user"]["id"]
    held, begun = ticket(user), begin(user)
    shown = device.get(options(user))
    assert admin.post(f"/admin/users/{id}/disable").json() == {}
    assert show(user, shown) == REFUSED
    assert user.post("/auth/passkey/options", json={"ticket": held}).json() == {"error": "token"}
    assert admin.post(f"/admin/users/{id}/enable").json() == {}
    assert show(user, device.get(options(user))) == (200, "")
    assert admin.post(f"/admin/users/{id}/removeFactors").json() == {}
    assert show(user, device.get(options(user))) == REFUSED
    user.log_in()
    assert add(user, device.create(begun))[0] == 403  # begun before all that
    assert add(user, device.create(begin(user)))[0] == 200
    user.post("/auth/destroy", json={"password": PASSWORD}).raise_for_status()
    assert show(user, device.get(options(user))) == REFUSED
    found = subprocess.run([*engine_cli(server), "exists", key("passkeys", id)], capture_output=True, text=True)
    assert found.stdout.strip() == "0"


def test_another_site_is_refused(server: Server, tmp_path: Path) -> None:
    user, device = owner(server, "site@example.com")
    for origin in (f"http://127.0.0.1:{server.port}", "http://localhost", "http://evil.example", ""):
        device.origin = origin
        assert show(user, device.get(options(user))) == REFUSED
        assert add(user, Device(server.port, origin or "null").create(begin(user)))[0] == 403
    device.origin = f"http://localhost:{server.port}"
    assert show(user, device.get(options(user), crossOrigin=True)) == REFUSED
    device.party = "evil.example"
    assert show(user, device.get(options(user))) == REFUSED
    settings = {"rates": MANY, "address": "http://other.example"}
    with serving(KINDS, tmp_path, settings=settings) as elsewhere:
        user = User(elsewhere, "site@example.com").sign_up()
        lures = {"host": f"localhost:{elsewhere.port}", "x-forwarded-host": "localhost"}
        asked = user.post("/auth/passkey/options", json={}, headers=lures).json()["options"]
        assert asked["rpId"] == begin(user)["rp"]["id"] == "other.example"
        for party in ("localhost", "other.example"):
            assert add(user, Device(elsewhere.port, party=party).create(begin(user))) == (403, {"error": "passkey"})
        assert add(user, Device(0, "http://other.example", "other.example").create(begin(user)))[0] == 200


@pytest.mark.parametrize(
    ("address", "id", "origin"),
    [
        ("http://127.0.0.1:8000", "localhost", "http://localhost:8000"),
        ("http://[::1]:8000", "localhost", "http://localhost:8000"),
        ("http://localhost:8000", "localhost", "http://localhost:8000"),
        ("https://App.Example:443", "app.example", "https://app.example"),
        ("https://app.example:8443", "app.example", "https://app.example:8443"),
        ("https://b\u00fccher.example", "xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("https://Stra\u00dfe.example", "xn--strae-oqa.example", "https://xn--strae-oqa.example"),
    ],
)
def test_whose_passkeys_they_are(address: str, id: str, origin: str) -> None:
    party = RelyingParty(address, "Name")
    assert (party.id, party.origin) == (id, origin)


def mutate(chance: random.Random, credential: dict) -> dict:
    """One change at a random place of what counts, to its text or to the bytes that it stands for."""
    response = credential["response"]
    name = chance.choice(["id", "rawId", *(each for each in response if each != "transports")])
    holder = response if name in response else credential
    text = holder[name]
    at, kind = chance.randrange(len(text)), chance.randrange(6)
    raw = bytearray(read(text))
    raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    ways = (
        lambda: text[:at] + chance.choice('Aa0_-=!" \u00e9\n') + text[at + 1 :],
        lambda: text[:at] + chance.choice("Aa0_-=!\n") + text[at:],
        lambda: text[:at],
        lambda: text[:at] + text[at:] * 3,
        lambda: write(bytes(raw)),
        lambda: write(bytes(raw[: chance.randrange(len(raw))])),
    )
    changed = ways[kind]()
    return mutate(chance, credential) if changed == text else _with(credential, name, changed)


def _with(credential: dict, name: str, value: Any) -> dict:
    if name in credential["response"]:
        return credential | {"response": credential["response"] | {name: value}}
    return credential | {name: value}


def test_mutated_ones_are_refused(server: Server) -> None:
    user, device = owner(server, "fuzz@example.com")
    chance = random.Random(20240607)
    for _ in range(300):
        mutated = mutate(chance, device.get(options(user)))
        got = user.post("/auth/passkey", json={"credential": mutated})
        assert (got.status_code, got.json()["error"]) in (REFUSED, (400, "payload")), (mutated, got.text)
    for _ in range(100):
        body = {"credential": mutate(chance, Device(server.port).create(begin(user))), "name": "x"}
        got = user.post("/auth/passkeys/add", json=body)
        assert got.status_code in (200, 400, 403, 409), got.text  # what has no attestation is not signed
    assert show(User(server), device.get(options(user)))[0] == 200
    assert "Traceback" not in server.said()


def bomb(levels: int) -> bytes:
    """CBOR of a few bytes, whose shared references stand for 2 ** levels items."""
    items = [b"\xd8\x1c\x81\x01"]
    for each in range(levels):
        twice = (b"\xd8\x1d" + cbor2.dumps(each)) * 2
        items.append(b"\xd8\x1c\x82" + twice)
    return b"\x98" + bytes([len(items)]) + b"".join(items)


def hostile() -> dict[str, bytes]:
    """What takes the place of a key, or of extensions."""
    items = bomb(22)  # 25 MB, 4 s
    broken_key = bytes.fromhex("a301634f4b500327206745643235353139")  # that webauthn would mend
    # a 1 in nine bytes: who writes the key anew goes on eight bytes before its end, and reads what follows as items
    shifted = b"\xa2\x1b" + bytes(7) + b"\x01\x02\x03\x58\x80" + bytes(120) + b"\x82\x49" + bytes(6)
    return {
        "bomb": items,
        "bomb as a key's part": b"\xa1\x01" + items,
        "mended": broken_key + b"\x21" + items,
        "shifted": shifted + b"\x59" + len(items).to_bytes(2, "big") + items,
        "deep": b"\x81" * 3000 + b"\x01",
        "deep map": b"\xa1\x01" * 1500 + b"\x01",
        "endless": b"\x9f" + b"\x01" * 100,
        "huge": b"\x9b" + b"\xff" * 8,
        "huge text": b"\x7b" + b"\xff" * 8,
        "number": b"\xc2\x58\xff" + b"\xff" * 255,
        "exponent": b"\xc4\x82\x1b\x7f" + b"\xff" * 7 + b"\x01",
        "nothing": b"",
        "rsa": cbor2.dumps({1: 3, 3: -257, -1: b"\xff" * 8000, -2: b"\xff" * 100})[:-3],
    }


@pytest.mark.parametrize("name", hostile())
def test_hostile_cbor(server: Server, name: str) -> None:
    """Refused at once, in all the places where it may stand."""
    user, device = owner(server, f"{name.replace(' ', '.')}@example.com")
    raw, began = hostile()[name], worked(server)
    for public, flags in ((raw, 0x45), (raw, 0xC5), (device.key() + raw, 0xC5), (device.key() + raw + b"\x00", 0x45)):
        status, _ = add(user, Device(server.port).create(begin(user), public, flags))
        assert status == 403, (name, flags, status)
    for flags, rest in ((0x45, bytes(16) + b"\x00\x01x" + raw), (0x85, raw), (0xC5, raw), (0x05, b"\x00" + raw)):
        if len(rest) < 3000:
            assert show(user, device.get(options(user), flags, rest)) == REFUSED
    made = device.create(begin(user))
    made["response"]["attestationObject"] = write(raw or b"\x00")
    assert add(user, made)[0] == 403
    assert worked(server) - began < 2


def worked(server: Server) -> float:
    """Seconds of CPU time that it has taken so far."""
    return sum(sum(each.cpu_times()[:2]) for each in server.workers())


def test_client_data_that_is_none(server: Server) -> None:
    user, device = owner(server, "client@example.com")
    id = write(device.id)
    for text in ("", "null", "[]", "{}", "[" * 1000, '{"challenge":5}', '{"challenge":"%%"}', '{"challenge":"_w"}'):
        shown = device.get(options(user))
        shown["response"]["clientDataJSON"] = write(text.encode()) or "A"
        assert show(user, shown) == REFUSED, text
    for handle in (None, "", "%%", "_w", write(b"k3f}:*"), write("k3f\u00e9".encode())):
        assert show(user, _with(device.get(options(user)), "userHandle", handle)) == REFUSED
    deep: dict = {}
    for _ in range(200):
        deep = {"a": deep}
    rows = [
        ({"rawId": write(b"other")}, 403),
        ({"type": "password"}, 403),
        ({"more": 1}, 200),  # browsers to come may write more
        ({"id": ""}, 403),
        ({"id": "A" * 1401, "rawId": "A" * 1401}, 403),
        ({"id": 5}, 403),
        ({"clientExtensionResults": deep}, 400),
        ({"clientExtensionResults": {"credProps": {"rk": True}}}, 200),
        ({"authenticatorAttachment": None}, 200),
        ({"authenticatorAttachment": "hybrid"}, 200),
    ]
    for change, status in rows:
        assert show(user, device.get(options(user)) | change)[0] == status, change
    for name, value in (("signature", "A" * 4097), ("userHandle", "A" * 101), ("signature", None), ("signature", {})):
        assert show(user, _with(device.get(options(user)), name, value)) == REFUSED
    for name in ("", "x" * 61):
        body = {"credential": Device(server.port).create(begin(user)), "name": name}
        assert user.post("/auth/passkeys/add", json=body).status_code == 400
    assert add(user, Device(server.port).create(begin(user), fmt="android-safetynet"))[0] == 403
    assert [each["id"] for each in user.get("/auth/passkeys").json()["passkeys"]] == [id]


def test_it_is_limited(tmp_path: Path) -> None:
    settings = {"rates": {"passkey": (4, 60)}}
    with serving(KINDS, tmp_path, settings=settings) as server:
        user, device = owner(server, "limited@example.com")
        for _ in range(4):
            assert show(user, device.get(options(user))) == (200, "")  # who succeeds gets back what it took
        got = [user.post("/auth/passkey/options", json={}).status_code for _ in range(5)]
        assert got == [200] * 4 + [429]
        assert show(user, device.get({"challenge": "AAAA"})) == (429, "rate")
