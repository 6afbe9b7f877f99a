"""Passkeys by an authenticator of ours: what serves once, whose they are, and who is refused."""

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backlore.core.keys import key
from backlore.services.identity.ceremony import RelyingParty
from tests.conftest import KINDS, PASSWORD, Server, User, engine_cli, serving
from tests.kit.authenticator import MANY, REFUSED, Device, add, begin, options, owner, show, ticket, write


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(KINDS, tmp_path_factory.mktemp("passkeys"), settings={"rates": MANY}) as made:
        yield made


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


def test_it_is_limited(tmp_path: Path) -> None:
    settings = {"rates": {"passkey": (4, 60)}}
    with serving(KINDS, tmp_path, settings=settings) as server:
        user, device = owner(server, "limited@example.com")
        for _ in range(4):
            assert show(user, device.get(options(user))) == (200, "")  # who succeeds gets back what it took
        got = [user.post("/auth/passkey/options", json={}).status_code for _ in range(5)]
        assert got == [200] * 4 + [429]
        assert show(user, device.get({"challenge": "AAAA"})) == (429, "rate")
