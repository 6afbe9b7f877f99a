"""Passkeys that no browser would send: changed at random, made to be slow to read, or none at all."""

import random
from collections.abc import Iterator
from typing import Any

import cbor2
import pytest

from tests.conftest import KINDS, Server, User, serving
from tests.kit.authenticator import MANY, REFUSED, Device, add, begin, options, owner, read, show, write


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(KINDS, tmp_path_factory.mktemp("passkeys"), settings={"rates": MANY}) as made:
        yield made


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
