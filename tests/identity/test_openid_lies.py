"""Signing in by a provider that lies, hangs or sends garbage: nobody gets in or waits long, and nothing is told."""

import base64
import contextlib
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

import httpx
import pytest

from backlore.clients.oidc.fetch import session
from backlore.core.payload import Codec, Invalid
from backlore.core.schema import Config
from tests.applications.provider import evil, real
from tests.conftest import Server, User, free_port
from tests.kit.openid import BACK, begin, come_back, process, returned, verified, who, with_providers

FUTURE = int(time.time()) + 100_000
LIES = [
    ("wrong nonce", "right", {"nonce": "another"}, "auth"),
    ("a list of nonces", "right", {"nonce": ["x"]}, "auth"),
    ("no nonce", "right", {"nonce": None}, "auth"),
    ("alg none", "none", {}, "auth"),
    ("HS256 with the client's secret", "secret", {}, "auth"),
    ("HS256 with the public key", "public", {}, "auth"),
    ("HS256 with a published key", "shared", {}, "auth"),
    ("a strange key with a known name", "stranger", {}, "auth"),
    ("wrong aud", "right", {"aud": "another"}, "auth"),
    ("no aud", "right", {"aud": None}, "auth"),
    ("several aud, no azp", "right", {"aud": [evil.CLIENT["id"], "another"]}, "auth"),
    ("azp of another", "right", {"aud": [evil.CLIENT["id"], "another"], "azp": "another"}, "auth"),
    ("azp of another, one aud", "right", {"azp": "another"}, "auth"),
    ("aud as object", "right", {"aud": {"a": 1}}, "auth"),
    ("wrong iss", "right", {"iss": "https://accounts.example.com"}, "auth"),
    ("no iss", "right", {"iss": None}, "auth"),
    ("expired", "right", {"exp": int(time.time()) - 3600}, "auth"),
    ("no exp", "right", {"exp": None}, "auth"),
    ("exp as text", "right", {"exp": "never"}, "auth"),
    ("exp infinite", "right", {"exp": float("inf")}, "auth"),
    ("issued in the future", "right", {"iat": FUTURE}, "auth"),
    ("no sub", "right", {"sub": None}, "auth"),
    ("empty sub", "right", {"sub": ""}, "auth"),
    ("sub as number", "right", {"sub": 7}, "auth"),
    ("huge sub", "right", verified("a@example.org", "x" * 50_000), "auth"),
    ("a sub of 256", "right", verified("a@example.org", "x" * 256), "auth"),
    ("no address", "right", {}, "email"),
    ("unverified", "right", {"email": "member@example.org", "email_verified": False}, "email"),
    ("the word false", "right", {"email": "member@example.org", "email_verified": "false"}, "email"),
    ("a number for true", "right", {"email": "member@example.org", "email_verified": 1}, "email"),
    ("verified left out", "right", {"email": "member@example.org"}, "email"),
    ("a list of addresses", "right", verified(["member@example.org"]), "email"),
    ("an address as object", "right", verified({"a": "member@example.org"}), "email"),
    ("two addresses in one", "right", verified("member@example.org,x@example.com"), "email"),
    ("no address at all", "right", verified("member"), "email"),
    ("an address with a line break", "right", verified("member@example.org\n"), "email"),
    ("a long address", "right", verified("m" * 60_000 + "@example.org"), "email"),
    ("not on the whitelist", "right", verified("x@elsewhere.example"), "whitelist"),
    ("500", "error", {}, "unavailable"),
    ("HTML", "html", {}, "unavailable"),
    ("a redirect", "away", {}, "unavailable"),
    ("three megabytes", "large", {}, "unavailable"),
    ("an array", "array", {}, "unavailable"),
    ("a refusal", "refuse", {}, "auth"),
    ("no token at all", "empty", {}, "auth"),
]


@pytest.fixture(scope="module")
def liar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with process("evil", free_port(), log=tmp_path_factory.mktemp("liar") / "log") as url:
        yield url


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, liar: str) -> Iterator[Server]:
    with with_providers(tmp_path_factory.mktemp("openid"), liar) as made:
        yield made


@pytest.fixture
def browser(server: Server) -> Iterator[User]:
    with User(server) as user:
        yield user


@pytest.mark.parametrize(("what", "how", "claims", "word"), LIES, ids=[row[0] for row in LIES])
def test_lies(browser: User, what: str, how: str, claims: dict[str, Any], word: str) -> None:
    asked = begin(browser, "evil")
    assert come_back(browser, asked, how, claims) == f"/#openid={word}"
    assert who(browser) == {"error": "nocookie"}


def test_a_nonce_among_others(browser: User) -> None:
    asked = begin(browser, "evil")
    claims = verified("a@example.org") | {"nonce": [asked["nonce"], "another"]}
    assert come_back(browser, asked, claims=claims) == "/#openid=auth"


@pytest.mark.parametrize(
    ("issuer", "is_one"),
    [
        ("https://accounts.example.com/realms/a", True),
        ("http://localhost:8080/", True),
        ("http://[::1]:9", True),
        ("http://example.com", False),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1@example.com", False),
        ("https://example.com?a", False),
    ],
)
def test_issuers(issuer: str, is_one: bool) -> None:
    """Without TLS only on this machine."""
    config = {"name": "x", "providers": {"y": {"issuer": issuer, "client_id": "z", "name": "Y"}}}
    with contextlib.nullcontext() if is_one else pytest.raises(Invalid):
        Codec(Config).from_object(config)


GARBAGE = ["", "a", "a.b", "a.b.c", "...", "é.é.é", "e30.e30.e30", "W10.W10.W10", "x" * 200_000, {"a": 1}, 7, None]
GARBAGE += [
    f"{evil.encoded({'alg': alg, 'kid': kid})}.e30.AAAA" for alg in ("RS256", 7, None) for kid in ("first", [], 1)
]
GARBAGE += [evil.encoded({"alg": "RS256", "kid": "first", "crit": ["x"], "x": 1}) + ".e30.AAAA", "e30." * 5000]


@pytest.mark.parametrize("token", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_for_a_token(browser: User, token: Any) -> None:
    assert come_back(browser, begin(browser, "evil"), "garbage", token=token) == "/#openid=auth"


def test_what_is_right(server: Server, browser: User, liar: str) -> None:
    """The same liar telling the truth: so that the lies above are refused for what they are."""
    ways: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("right", {}, {}),
        ("right", {"email_verified": "true"}, {}),
        ("curve", {}, {}),
        ("right", {"aud": [evil.CLIENT["id"]]}, {}),
        ("right", {"aud": ["another", evil.CLIENT["id"]], "azp": evil.CLIENT["id"]}, {}),
        ("right", {"exp": int(time.time()) - 30, "iat": int(time.time()) + 30}, {}),  # a clock that is off
        ("right", {}, {"header": {"of_its_own": "x"}}),
        ("right", {"email": None}, {"info": verified("informed@example.org", "right-7")}),
        ("right", {"email_verified": None}, {"info": {"sub": "right-8", "email_verified": True}}),
    ]
    for number, (how, claims, more) in enumerate(ways):
        claims = verified(f"right{number}@example.org", f"right-{number}") | claims
        assert come_back(browser, begin(browser, "evil"), how, claims, **more) == "/", (how, claims)
        if claims["email"] is None:
            assert who(browser)["user"]["email"] == "informed@example.org"
    assert who(browser)["user"]["email"] == "right8@example.org"
    asked = begin(browser, "evil")
    other = {"info": verified("right1@example.org", "somebody else")}
    assert come_back(browser, asked, claims={"sub": "right-9"}, **other) == "/#openid=auth"


def times_asked(liar: str) -> int:
    """How often the keys were asked for."""
    return httpx.get(f"{liar}/asked").json()


def test_keys_are_asked_for_again_once_a_minute(browser: User, liar: str) -> None:
    """19: a key that is unknown, or has another content under the same name, as long as it is not too often."""
    claims = verified("rotated@example.org", "rotated-1")
    assert come_back(browser, begin(browser, "rotates"), "right", claims) == "/"
    before = times_asked(liar)
    httpx.get(f"{liar}/rotate")
    assert come_back(browser, begin(browser, "rotates"), "rotated", claims) == "/"
    assert come_back(browser, begin(browser, "rotates"), "rotated", claims) == "/"
    assert times_asked(liar) == before + 1
    for _ in range(3):
        assert come_back(browser, begin(browser, "rotates"), "stranger", claims) == "/#openid=auth"
    assert times_asked(liar) == before + 1


def test_a_key_that_changes_under_its_name(browser: User, liar: str) -> None:
    claims = verified("swapped@example.org", "swapped-1")
    assert come_back(browser, begin(browser, "swaps"), "right", claims) == "/"
    httpx.get(f"{liar}/swap")
    try:
        assert come_back(browser, begin(browser, "swaps"), "stranger", claims) == "/"
        assert come_back(browser, begin(browser, "swaps"), "right", claims) == "/#openid=auth"
    finally:
        httpx.get(f"{liar}/swap")


def test_each_provider_has_a_way_back_of_its_own(server: Server, browser: User) -> None:
    """19, mix-up: an answer comes back where the sign-in was begun, and names its issuer rightly if it does."""
    claims = verified("mixed@example.org", "mixed-1")
    asked = begin(browser, "evil")
    assert come_back(browser, asked | {"redirect_uri": f"{BACK}/real"}, claims=claims) == "/#openid=auth"
    server.wait_said("openid.mixed_up")
    assert come_back(browser, asked, claims=claims) == "/#openid=token"  # it has served
    asked = begin(browser, "evil")
    wrong = {"error": "access_denied", "state": asked["state"], "iss": "https://x.example"}
    assert returned(browser, wrong) == "/#openid=auth"
    assert browser.get(BACK, params={"state": "x"}).status_code == 404
    assert who(browser) == {"error": "nocookie"}


@pytest.mark.parametrize("secret", ["plain-secret", "a b+c:d%e/é~&="])
def test_a_secret_in_basic_is_form_encoded(secret: str) -> None:
    """RFC 6749, §2.3.1: what it decodes to is id and secret, whatever stands in them."""
    headers: dict[str, str] = {}
    client = session("my id:1", secret, "client_secret_basic", "https://x.example")
    client.client_auth(client.token_endpoint_auth_method).prepare("POST", "https://x.example", headers, "")
    id, _, given = base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode("ascii").partition(":")
    assert (unquote_plus(id), unquote_plus(given)) == ("my id:1", secret)


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_nobody_waits_long(server: Server, browser: User, how: str) -> None:
    begun, started = begin(browser, "evil"), time.monotonic()
    assert come_back(browser, begun, how) == "/#openid=unavailable"
    assert time.monotonic() - started < 6.5


@pytest.mark.parametrize("way", ["gone", "html", "error", "away", "large", "array", "other", "hang", "drip"])
def test_metadata_that_nobody_believes(browser: User, way: str) -> None:
    started = time.monotonic()
    got = browser.post("/auth/openid/begin", json={"provider": way})
    assert (got.status_code, got.json()) == (503, {"error": "unavailable"})
    assert int(got.headers["retry-after"]) > 0 and time.monotonic() - started < 6.5


def test_what_is_no_provider(browser: User) -> None:
    for id in ("none", "evil\0", "../evil"):
        got = browser.post("/auth/openid/begin", json={"provider": id})
        assert (got.status_code, got.json()) == (404, {"error": "provider"})
    for body in ({}, {"provider": 1}, {"provider": "evil", "redirect": "https://evil.example"}):
        assert browser.post("/auth/openid/begin", json=body).status_code == 400


def test_the_address_is_never_the_requests(server: Server, browser: User) -> None:
    forged = {"host": "evil.example", "x-forwarded-host": "evil.example", "x-forwarded-proto": "https"}
    url = browser.post("/auth/openid/begin", json={"provider": "evil"}, headers=forged).json()["url"]
    asked = parse_qs(urlsplit(url).query)
    assert asked["redirect_uri"] == [f"{server.url}{BACK}/evil"] and asked["code_challenge_method"] == ["S256"]
    assert asked["scope"] == ["openid email"] and asked["response_type"] == ["code"]


def test_nothing_of_it_is_told(server: Server, browser: User) -> None:
    """The last of this module: what all the tests above have made the server say."""
    asked = begin(browser, "evil")
    come_back(browser, asked, "refuse")
    said = server.wait_said("openid.refused")
    for secret in (real.CLIENT["secret"], evil.CLIENT["secret"], asked["state"], asked["nonce"], "secret words"):
        assert secret not in said
    assert "eyJ" not in said and "code=" not in said and "Traceback" not in said, said
