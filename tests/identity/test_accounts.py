"""The life of an account over HTTP, by the links of real mails: what belongs to whom, what serves once, what ends."""

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from backlore.core.keys import key
from tests.conftest import (
    KINDS,
    PASSWORD,
    SHOEBOX,
    Server,
    User,
    engine_cli,
    mail_to,
    mails,
    run_in_application,
    serving,
    token_in,
)

NEW = "another long password"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Addresses are verified here, as in production."""
    with serving(KINDS, tmp_path_factory.mktemp("accounts"), settings={"verify_email": True}) as made:
        yield made


@pytest.fixture
def anyone(server: Server) -> Iterator[User]:
    with User(server) as user:
        yield user


def member(server: Server, email: str) -> User:
    """Somebody who has signed up and proven the address."""
    user = User(server, email)
    assert user.post("/auth/signup", json={"email": email, "password": PASSWORD}).json() == {}
    token = token_in(mail_to(server, email), "verify")
    assert user.post("/auth/verifyEmail", json={"token": token, "password": PASSWORD}).json() == {}
    return user.log_in()


def refused(user: User, path: str, body: dict) -> tuple[int, str]:
    got = user.post(path, json=body)
    return got.status_code, got.json()["error"]


def test_no_account_before_the_address_is_proven(server: Server, anyone: User) -> None:
    login = {"email": "new@example.com", "password": PASSWORD}
    assert anyone.post("/auth/signup", json=login).json() == {}
    assert refused(anyone, "/auth/login", login) == (403, "verify")
    assert refused(anyone, "/auth/login", login | {"password": "wrong password"}) == (403, "auth")
    text = mail_to(server, "new@example.com")
    assert f"{server.url}/#verify=" in text
    token = token_in(text, "verify")
    proof = {"token": token, "password": PASSWORD}
    for wrong in ({"token": token}, proof | {"password": "wrong password"}):
        assert refused(anyone, "/auth/verifyEmail", wrong) == (403, "auth")  # the link alone opens nothing
        assert refused(anyone, "/auth/login", login) == (403, "verify")
    assert anyone.post("/auth/verifyEmail", json=proof).json() == {}
    assert refused(anyone, "/auth/verifyEmail", proof) == (403, "token")  # it serves once
    assert anyone.post("/auth/login", json=login).status_code == 200


def test_whoever_proves_the_address_owns_it(server: Server, anyone: User) -> None:
    squatter = {"email": "wanted@example.com", "password": "the squatter's own"}
    anyone.post("/auth/signup", json=squatter)
    first = token_in(mail_to(server, "wanted@example.com"), "verify")
    anyone.post("/auth/signup", json=squatter | {"password": PASSWORD})
    second = token_in(mail_to(server, "wanted@example.com", 2), "verify")
    # a stranger's mail, taken for one's own, comes to nothing
    assert refused(anyone, "/auth/verifyEmail", {"token": first, "password": PASSWORD}) == (403, "auth")
    assert anyone.post("/auth/verifyEmail", json={"token": second, "password": PASSWORD}).json() == {}
    assert refused(anyone, "/auth/verifyEmail", {"token": first, "password": squatter["password"]}) == (403, "token")
    assert refused(anyone, "/auth/login", squatter) == (403, "auth")


def test_a_taken_address_is_told_to_its_owner_alone(server: Server, anyone: User) -> None:
    member(server, "taken@example.com")
    again = {"email": "Taken@Example.com", "password": NEW}
    known, unknown = (anyone.post("/auth/signup", json=again | extra) for extra in ({}, {"email": "free@example.com"}))
    assert (known.status_code, known.content) == (unknown.status_code, unknown.content)
    assert "#verify=" not in mail_to(server, "taken@example.com", 2)
    # nor to who then tries the password of that signup
    assert refused(anyone, "/auth/login", again) == (403, "verify")
    assert refused(anyone, "/auth/login", again | {"email": "free@example.com"}) == (403, "verify")


def test_recovery(server: Server, anyone: User) -> None:
    user = member(server, "forgetful@example.com")
    known, unknown = (
        anyone.post("/auth/recover", json={"email": each}) for each in ("forgetful@example.com", "no@example.com")
    )
    assert (known.status_code, known.content) == (unknown.status_code, unknown.content) == (200, b"{}")
    token = token_in(mail_to(server, "forgetful@example.com", 2), "reset")
    assert refused(anyone, "/auth/reset", {"token": token, "password": "short"}) == (400, "payload")
    assert refused(anyone, "/auth/reset", {"token": token, "password": "password123"}) == (400, "payload")
    assert refused(anyone, "/auth/reset", {"token": token, "password": "1forgetful!"}) == (400, "payload")
    assert anyone.post("/auth/reset", json={"token": token, "password": NEW}).json() == {}
    assert refused(anyone, "/auth/reset", {"token": token, "password": PASSWORD}) == (403, "token")
    assert user.get("/who").json() == {"error": "session"}  # every session has ended
    login = {"email": "forgetful@example.com", "password": NEW}
    assert anyone.post("/auth/login", json=login).status_code == 200
    assert refused(anyone, "/auth/login", login | {"password": PASSWORD}) == (403, "auth")
    assert "127.0.0.1" in mail_to(server, "forgetful@example.com", 3)
    assert not mails(server, "no@example.com")


def test_a_changed_password_makes_older_tokens_worthless(server: Server, anyone: User) -> None:
    user = member(server, "two@example.com")
    anyone.post("/auth/recover", json={"email": "two@example.com"})
    token = token_in(mail_to(server, "two@example.com", 2), "reset")
    assert user.post("/auth/changePassword", json={"old": PASSWORD, "new": NEW}).json() == {}
    assert refused(anyone, "/auth/reset", {"token": token, "password": PASSWORD}) == (403, "token")


def test_a_token_serves_once_also_at_once(server: Server, anyone: User) -> None:
    member(server, "race@example.com")
    anyone.post("/auth/recover", json={"email": "race@example.com"})
    token = token_in(mail_to(server, "race@example.com", 2), "reset")
    with ThreadPoolExecutor(10) as pool:
        sent = [{"token": token, "password": f"the password number {n}"} for n in range(10)]
        got = list(pool.map(lambda body: User(server).post("/auth/reset", json=body).status_code, sent))
    assert sorted(got) == [200] + [403] * 9


def test_an_address_is_given_once_also_at_once(server: Server, anyone: User) -> None:
    login = {"email": "twice@example.com", "password": PASSWORD}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: User(server).post("/auth/signup", json=login), range(4)))
        tokens = [token_in(mail_to(server, "twice@example.com", n), "verify") for n in (1, 2, 3, 4)]
        sent = [{"token": token, "password": PASSWORD} for token in tokens]
        proofs = list(pool.map(lambda body: User(server).post("/auth/verifyEmail", json=body).status_code, sent))
    assert sorted(proofs) == [200, 403, 403, 403]


def test_tokens_stand_nowhere_in_clear(server: Server, anyone: User) -> None:
    member(server, "clear@example.com")
    anyone.post("/auth/recover", json={"email": "clear@example.com"})
    token = token_in(mail_to(server, "clear@example.com", 2), "reset")
    for file in (server.data / "redis").rglob("*"):
        assert not file.is_file() or token.encode() not in file.read_bytes(), file
    assert token not in server.said() and PASSWORD not in server.said()


def test_change_of_password(server: Server) -> None:
    user = member(server, "change@example.com")
    with User(server, "change@example.com") as other:
        other.log_in()
        assert refused(user, "/auth/changePassword", {"old": "wrong password", "new": NEW}) == (403, "auth")
        got = user.post("/auth/changePassword", json={"old": PASSWORD, "new": "change@example.com"}).json()
        assert got["where"] == "new" and "address" in got["why"]
        got = user.post("/auth/changePassword", json={"old": PASSWORD, "new": "KINDS-2026!"}).json()
        assert got["where"] == "new" and "name of this place" in got["why"]
        assert user.post("/auth/changePassword", json={"old": PASSWORD, "new": NEW}).json() == {}
        assert user.get("/who").status_code == 200  # this session goes on, others end
        assert other.get("/who").json() == {"error": "session"}


def test_change_of_address(server: Server) -> None:
    user = member(server, "old@example.com")
    change = {"email": "New.One@example.com", "password": PASSWORD}
    assert refused(user, "/auth/changeEmail", change | {"password": "wrong password"}) == (403, "auth")
    assert user.post("/auth/changeEmail", json=change).json() == {}
    assert user.get("/who").json() == {"email": "old@example.com"}  # not before it is proven
    token = token_in(mail_to(server, "new.one@example.com"), "verify")
    assert user.post("/auth/verifyEmail", json={"token": token}).json() == {}
    assert user.get("/who").json() == {"email": "new.one@example.com"}
    assert "new.one@example.com" in mail_to(server, "old@example.com", 2)
    assert refused(user, "/auth/login", {"email": "old@example.com", "password": PASSWORD}) == (403, "auth")


def test_a_change_of_address_is_the_accounts_own(server: Server, anyone: User) -> None:
    """11: whoever is talked into opening the link gives nobody their address, and takes over nobody's account."""
    attacker, victim = member(server, "attacker@example.com"), member(server, "bystander@example.com")
    assert attacker.post("/auth/changeEmail", json={"email": "admin@example.com", "password": PASSWORD}).json() == {}
    token = token_in(mail_to(server, "admin@example.com"), "verify")
    for sent in ({"token": token}, {"token": token, "password": PASSWORD}):
        assert refused(anyone, "/auth/verifyEmail", sent) == (403, "session")
        assert refused(victim, "/auth/verifyEmail", sent) == (403, "token")
    shown = attacker.get("/auth/csrf").json()["user"]
    assert (shown["email"], shown["admin"]) == ("attacker@example.com", False)
    assert victim.get("/who").json() == {"email": "bystander@example.com"}
    attacker.post("/auth/logout")
    assert refused(attacker, "/auth/verifyEmail", {"token": token}) == (403, "session")
    assert attacker.log_in().post("/auth/verifyEmail", json={"token": token}).json() == {}  # it took nothing from it


def test_the_whitelist_counts_for_another_address(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = {"whitelist": ["friends.example"]}
    with serving(KINDS, tmp_path_factory.mktemp("whitelist"), settings=settings) as server:
        user = User(server, "one@friends.example").sign_up()
        change = {"email": "one@elsewhere.example", "password": PASSWORD}
        assert refused(user, "/auth/changeEmail", change) == (403, "whitelist")
        assert user.post("/auth/changeEmail", json=change | {"email": "two@friends.example"}).json() == {}


def test_guessing_the_password_of_a_signup_is_limited(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = {"verify_email": True, "proxies": ["127.0.0.1"], "rates": {"verify-account": (3, 600)}}
    with serving(KINDS, tmp_path_factory.mktemp("proving"), settings=settings) as server, User(server) as user:
        user.post("/auth/signup", json={"email": "prove@example.com", "password": PASSWORD})
        sent = {"token": token_in(mail_to(server, "prove@example.com"), "verify"), "password": "a wrong password"}
        got = [
            user.post("/auth/verifyEmail", json=sent, headers={"x-forwarded-for": f"203.0.113.{n}"}).status_code
            for n in range(4)
        ]
        assert got == [403] * 3 + [429]  # from wherever it is tried


def test_change_to_a_taken_address(server: Server) -> None:
    member(server, "mine@example.com")
    other = member(server, "other@example.com")
    assert other.post("/auth/changeEmail", json={"email": "mine@example.com", "password": PASSWORD}).json() == {}
    assert "#verify=" not in mail_to(server, "mine@example.com", 2)
    assert other.get("/who").json() == {"email": "other@example.com"}


def test_sessions(server: Server) -> None:
    user = member(server, "many@example.com")
    others = [User(server, "many@example.com").log_in() for _ in range(2)]
    shown = user.get("/auth/sessions").json()["sessions"]
    assert [each["current"] for each in shown].count(True) == 1 and len(shown) == 3
    assert user.cookies["kinds"].partition(".")[0] not in str(shown)
    (mine,) = [each["id"] for each in others[0].get("/auth/sessions").json()["sessions"] if each["current"]]
    assert user.post("/auth/sessions/end", json={"id": mine}).json() == {}
    assert others[0].get("/who").json() == {"error": "session"} and others[1].get("/who").status_code == 200
    assert refused(user, "/auth/sessions/end", {"id": mine}) == (404, "session")
    assert user.post("/auth/sessions/end", json={"others": True}).json() == {}
    assert others[1].get("/who").json() == {"error": "session"} and user.get("/who").status_code == 200
    stranger = member(server, "stranger@example.com")
    own = user.get("/auth/sessions").json()["sessions"][0]["id"]
    assert refused(stranger, "/auth/sessions/end", {"id": own}) == (404, "session")


def test_a_login_from_a_new_browser_is_told(server: Server) -> None:
    member(server, "place@example.com")
    User(server, "place@example.com").log_in()  # the same browser again: no mail
    with User(server, "place@example.com") as new:
        new.headers["user-agent"] = "Strange/1.0\u00e9 (X)".encode().decode("latin-1")
        new.log_in()
    assert "Strange/1.0" in mail_to(server, "place@example.com", 2)


def test_destroy_erases_everything(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serving(SHOEBOX, tmp_path_factory.mktemp("destroy")) as server:
        login = {"email": "gone@example.com", "password": PASSWORD}
        user = User(server, "gone@example.com").sign_up()
        other = User(server, "gone@example.com").log_in()
        id = user.get("/auth/csrf").json()["user"]["id"]
        for n in range(3):
            user.post("/notes", json={"text": f"note {n}", "tags": ["red", "blue"]})
        assert refused(user, "/auth/destroy", {"password": "wrong password"}) == (403, "auth")
        done = user.post("/auth/destroy", json={"password": PASSWORD})
        assert done.json() == {} and "Max-Age=0" in done.headers["set-cookie"]
        assert other.get("/notes").json() == {"error": "session"}
        assert refused(other, "/auth/login", login) == (403, "auth")
        assert_nothing_kept(server, id, "gone@example.com")
        assert User(server, "gone@example.com").sign_up().get("/notes").json() == {"notes": [], "more": False}


def assert_nothing_kept(server: Server, id: str, email: str) -> None:
    """No key of the user's is left, but for limits, which end by themselves."""
    keys = subprocess.run([*engine_cli(server), "keys", "*"], capture_output=True, text=True).stdout.split()
    assert not [name for name in keys if (id[3:] in name or email in name) and not name.startswith("rate:")]


def test_an_erasure_that_was_cut_goes_on(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The server is killed while it erases: nobody logs in any more, and the periodic task ends the work."""
    with serving(SHOEBOX, tmp_path_factory.mktemp("cut")) as server:
        user = User(server, "half@example.com").sign_up()
        user.post("/notes", json={"text": "a note", "tags": ["red"]})
        id = user.get("/auth/csrf").json()["user"]["id"]
        for words in (["sadd", "destroying", id], ["hset", key("user", id), "state", "destroying"]):
            subprocess.run([*engine_cli(server), *words], check=True, capture_output=True)
        assert refused(user, "/auth/login", {"email": "half@example.com", "password": PASSWORD}) == (403, "auth")
        run_in_application(server, "server.app.identity.erasure.resume()")
        assert_nothing_kept(server, id, "half@example.com")
        User(server, "half@example.com").sign_up()


def test_nothing_is_made_an_admin_by_what_is_sent(server: Server, anyone: User) -> None:
    for path in ("/auth/signup", "/auth/login", "/auth/recover"):
        body = {"email": "root@example.com", "password": PASSWORD, "admin": True}
        assert refused(anyone, path, body)[0] == 400
    for wrong in ({"a": 1}, ["x"], None, 3, True):
        body = {"email": wrong, "password": wrong}
        assert refused(anyone, "/auth/signup", body) == (400, "payload")
        assert refused(anyone, "/auth/login", body) == (400, "payload")
        assert refused(anyone, "/auth/verifyEmail", {"token": wrong}) == (400, "payload")


def test_odd_addresses(server: Server, anyone: User) -> None:
    odd = [
        "a",
        "a@",
        "@b.c",
        "a b@c.de",
        "a@b..c",
        '"a"@b.c',
        "a@b.c\nBcc: x@y.z",
        "a@b.c,x@y.z",
        "a@[1.2.3.4]",
        "a@b/c.de",
    ]
    odd += [
        "a\u200b@b.c",
        "a@xn--\u00e9.de",
        "a" * 65 + "@b.c",
        "a@" + "b" * 64 + ".de",
        "<a@b.c>",
        "a@b.c;x",
        "a@b.c.",
    ]
    for address in odd:
        for path, more in (("/auth/signup", {"password": PASSWORD}), ("/auth/recover", {})):
            got = anyone.post(path, json={"email": address, **more})
            assert (got.status_code, got.json().get("where")) == (400, "email"), (address, path, got.text)
    assert anyone.post("/auth/recover", json={"email": "j\u00f6rg@b\u00fccher.example"}).json() == {}


def test_links_are_never_built_from_the_request(server: Server, anyone: User) -> None:
    evil = {"host": "evil.example", "x-forwarded-host": "evil.example", "origin": "https://evil.example"}
    anyone.post("/auth/signup", json={"email": "host@example.com", "password": PASSWORD}, headers=evil)
    assert "evil.example" not in mail_to(server, "host@example.com")


def test_guessing_is_limited_and_locks_nobody_out(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = {"rates": {"login-account": (5, 60)}, "proxies": ["127.0.0.1"]}
    with serving(KINDS, tmp_path_factory.mktemp("limits"), settings=settings) as server:
        User(server, "aim@example.com").sign_up()
        guess = {"email": "aim@example.com", "password": "a wrong password"}

        def tried(origin: str, body: dict) -> int:
            with User(server) as user:
                return user.post("/auth/login", json=body, headers={"x-forwarded-for": origin}).status_code

        assert [tried("203.0.113.9", guess) for _ in range(6)] == [403] * 5 + [429]
        spelt = guess | {"email": "AIM@Example.com"}
        assert tried("203.0.113.9", spelt) == 429  # another spelling is the same account
        assert tried("203.0.113.9", guess | {"password": PASSWORD}) == 429
        assert tried("203.0.113.10", guess | {"password": PASSWORD}) == 200  # elsewhere the owner logs in
        assert [tried(f"2001:db8::{n}", guess) for n in range(6)] == [403] * 5 + [429]  # one customer's network
        with User(server) as user:
            got = user.post("/auth/login", json=guess, headers={"x-forwarded-for": "203.0.113.9"})
        assert got.json() == {"error": "rate"} and int(got.headers["retry-after"]) >= 1


def test_of_too_many_sessions_the_unused_ends(server: Server) -> None:
    user = member(server, "crowd@example.com")
    unused = User(server, "crowd@example.com").log_in()
    with ThreadPoolExecutor(4) as pool:
        for _ in range(25):
            assert user.get("/who").status_code == 200
            list(pool.map(lambda _: User(server, "crowd@example.com").log_in(), range(4)))
    assert user.get("/who").status_code == 200 and unused.get("/who").json() == {"error": "session"}
    assert len(user.get("/auth/sessions").json()["sessions"]) <= 103  # of four at once, each leaves room for one
