"""The way back from a provider: it serves once, and only the browser that began."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.conftest import Server, User, free_port
from tests.kit.openid import BACK, begin, come_back, lie, process, returned, verified, who, with_providers


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


def test_a_state_serves_once(browser: User) -> None:
    asked = begin(browser, "evil")
    kept = dict(browser.cookies)
    claims = verified("once@example.org", "once-1")
    assert come_back(browser, asked, claims=claims) == "/"
    with httpx.Client(base_url=browser.base_url, cookies=kept) as replay:
        assert come_back(replay, asked, claims=claims) == "/#openid=token"
        assert "kinds" not in replay.cookies


def test_a_state_serves_once_also_at_once(server: Server, browser: User) -> None:
    asked = begin(browser, "evil")
    kept = dict(browser.cookies)

    def race(_: int) -> str:
        with httpx.Client(base_url=server.url, cookies=kept, timeout=20) as each:
            return come_back(each, asked, claims=verified("race@example.org", "race-1"))

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(race, range(8))) == ["/", *["/#openid=token"] * 7]


def test_another_browser_gets_nothing(server: Server, browser: User) -> None:
    """Login CSRF: somebody else's answer, brought to a browser that has a sign-in of its own under way, or none."""
    asked = begin(browser, "evil")
    claims = verified("csrf@example.org", "csrf-1")
    for started in (True, False):
        with User(server) as victim:
            if started:
                begin(victim, "evil")
            assert come_back(victim, asked, claims=claims) == "/#openid=token"
            assert who(victim) == {"error": "nocookie"}
            asked = begin(browser, "evil")
    (name,) = [each for each in browser.cookies if each.endswith("-openid")]
    value = browser.cookies[name]
    last, first = "1" if value[-1] == "0" else "0", "y" if value[0] == "x" else "x"
    for forged in (value[:-1] + last, first + value[1:], value.partition(".")[0], "."):
        with httpx.Client(base_url=server.url, headers={"cookie": f"{name}={forged}"}) as tamperer:
            assert come_back(tamperer, asked, claims=claims) == "/#openid=token"
    assert come_back(browser, asked, claims=claims) == "/"  # which took nothing from who began it


def test_answers_that_are_none(server: Server, browser: User) -> None:
    for query in ("", "?", "code=a", "state=", "state=x", "state=%00&code=%ff", "state=a&state=b", "&&==", "%"):
        assert returned(browser, query) == "/#openid=token", query
    asked = begin(browser, "evil")
    once = f"state={asked['state']}"
    assert returned(browser, f"{once}&code=a&code=b") == "/#openid=token"
    asked = begin(browser, "evil")
    assert returned(browser, {"state": asked["state"]}) == "/#openid=token"
    for error, word in (("access_denied", "denied"), ("server_error", "unavailable"), ("</script>", "denied")):
        asked = begin(browser, "evil")
        assert returned(browser, {"error": error, "state": asked["state"]}) == f"/#openid={word}"
    asked = begin(browser, "evil")
    assert returned(browser, {"code": "a", "state": asked["state"], "iss": "https://x.example"}) == "/#openid=auth"
    assert browser.get(f"{BACK}/evil", params={"state": "x" * 2100}).status_code == 414
    assert who(browser) == {"error": "nocookie"}


def test_what_providers_add_is_ignored(browser: User, liar: str) -> None:
    asked = begin(browser, "evil")
    said = {"claims": {"nonce": asked["nonce"]} | verified("more@example.org", "more-1")}
    more = {"scope": "email openid", "authuser": "0", "hd": "x", "prompt": "none", "session_state": "a.b", "iss": liar}
    assert (
        returned(browser, {"code": lie(asked, said), "state": asked["state"], "next": "https://evil.example", **more})
        == "/"
    )
