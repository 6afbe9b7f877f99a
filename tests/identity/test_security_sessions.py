"""Sessions that should have ended, by whatever ends them."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import pytest

from tests.conftest import KINDS, PASSWORD, Server, User, serving
from tests.kit.accounts import NEW
from tests.kit.strangers import PLENTY, Stranger, cookies_of, error, links


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Addresses are not verified here, as by default in dev."""
    with serving(KINDS, tmp_path_factory.mktemp("security"), settings=PLENTY) as made:
        User(made, "admin@example.com").sign_up()
        yield made


def race(clients: list[Stranger], email: str, act: Callable[[], httpx.Response]) -> list[str]:
    """Log in with the old password without a pause while `act` runs; the sessions that this has given."""
    cookies: list[str] = []
    done = threading.Event()

    def hammer(client: Stranger) -> None:
        while not done.is_set():
            given = client.enter(email)
            assert given.status_code in (200, 403, 503), given.text
            if given.status_code == 200:
                cookies.append(cookies_of(given)["kinds"])

    with ThreadPoolExecutor(len(clients)) as pool:
        hammering = [pool.submit(hammer, client) for client in clients]
        try:
            until = time.monotonic() + 10
            while not cookies:
                assert time.monotonic() < until, "nobody got in"
                time.sleep(0.001)
            got = act()
            assert got.status_code == 200, got.text
        finally:
            done.set()
        for each in hammering:
            each.result(20)
    return cookies


Acts = Iterator[Callable[[], httpx.Response]]


def reset(server: Server, users: list[User]) -> Acts:
    for user in users:
        assert user.post("/auth/recover", json={"email": user.email}).json() == {}
    for user in users:
        until = time.monotonic() + 10
        while user.email not in (tokens := dict(links(server, "reset"))):
            assert time.monotonic() < until
            time.sleep(0.02)
        yield partial(user.post, "/auth/reset", json={"token": tokens[user.email], "password": NEW})


def change(server: Server, users: list[User]) -> Acts:
    for user in users:
        yield partial(user.post, "/auth/changePassword", json={"old": PASSWORD, "new": NEW})


def disable(server: Server, users: list[User]) -> Acts:
    boss = User(server, "admin@example.com").log_in()
    for user in users:
        yield partial(boss.post, f"/admin/users/{user.get('/auth/csrf').json()['user']['id']}/disable")


def destroy(server: Server, users: list[User]) -> Acts:
    for user in users:
        yield partial(user.post, "/auth/destroy", json={"password": PASSWORD})


ENDINGS = [(reset, 20, 200), (change, 5, 200), (disable, 5, 403), (destroy, 5, 403)]


@pytest.mark.parametrize(("ending", "rounds", "new"), ENDINGS, ids=[each[0].__name__ for each in ENDINGS])
def test_no_session_outlives_its_reason(
    server: Server, stranger: Stranger, ending: Callable[[Server, list[User]], Acts], rounds: int, new: int
) -> None:
    """However a login and what ends all sessions meet: nobody who came by the old password is still in."""
    clients = [Stranger(server) for _ in range(3)]
    users = [User(server, f"{ending.__name__}{number}@race.example").sign_up() for number in range(rounds)]
    for user, act in zip(users, ending(server, users), strict=True):
        made = race(clients, user.email, act)
        assert not [cookie for cookie in made if stranger.is_in(cookie)]
        assert error(stranger.enter(user.email)) == (403, "auth")
        assert stranger.enter(user.email, NEW).status_code == new
        assert user.get("/auth/csrf").status_code == (200 if ending is change else 403)


def test_logout_ends_the_session_for_every_worker(server: Server, stranger: Stranger) -> None:
    given = stranger.post("/auth/signup", json={"email": "out@example.com", "password": PASSWORD})
    given = stranger.enter("out@example.com")
    cookie, token = cookies_of(given)["kinds"], given.json()["csrf"]
    assert stranger.is_in(cookie)
    left = stranger.post("/auth/logout", json={"csrf": token}, headers={"cookie": cookie})
    assert left.status_code == 200
    assert not any(Stranger(server).is_in(cookie) for _ in range(6))  # connections of their own: both workers


def test_a_session_ends_unused_and_after_its_time(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = PLENTY | {"session_idle": 1, "session_limit": 3}
    with serving(KINDS, tmp_path_factory.mktemp("ages"), settings=settings) as server, Stranger(server) as client:
        User(server, "ages@example.com").sign_up()
        unused, used = (cookies_of(client.enter("ages@example.com"))["kinds"] for _ in range(2))
        assert client.is_in(unused)
        since = time.monotonic()
        while client.is_in(used):
            lived = time.monotonic() - since
            assert lived < 10, "it goes on for ever"
            time.sleep(0.1)
        assert lived > 1  # use has kept it alive: it was the limit that ended it
        assert not client.is_in(unused)
        assert client.enter("ages@example.com").status_code == 200


def test_a_cookie_that_is_brought_along_is_not_adopted(server: Server, stranger: Stranger) -> None:
    """Session fixation: each login makes a session and a csrf token of its own."""
    for name in ("fixed", "fixer"):
        assert stranger.post("/auth/signup", json={"email": f"{name}@example.com", "password": PASSWORD}).json() == {}
    planted = cookies_of(stranger.enter("fixer@example.com"))["kinds"]
    made = {planted}
    tokens = set()
    for brought in (planted, "kinds=abcdefghijklmnopqrstuvwxyz.0", "kinds=", f"{planted}; {planted}"):
        given = stranger.enter("fixed@example.com", cookie=brought)
        mine = cookies_of(given)["kinds"]
        assert mine not in made
        made.add(mine)
        tokens.add(given.json()["csrf"])
        assert stranger.get("/auth/csrf", headers={"cookie": mine}).json()["user"]["email"] == "fixed@example.com"
    assert len(tokens) == 4
    assert not stranger.is_in(planted)  # the session that a browser had ends: nobody would end it any more
