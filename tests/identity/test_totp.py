"""The second factor of an authenticator app over HTTP: what serves once, what opens nothing, what is limited."""

from collections.abc import Iterator

import pyotp
import pytest

from backlore.core.keys import key
from tests.conftest import KINDS, MANY_USERS, PASSWORD, Server, User, mail_to, mails, serving, token_in
from tests.kit.accounts import NEW, id_of, redis, told
from tests.kit.totp import at_once, code_of, posted, second, set_up, settle, ticket_for

FREE = {"rates": MANY_USERS["rates"] | dict.fromkeys(("password", "code"), (10000, 60))}
WRONG = (403, {"error": "code"})
ENDED = (403, {"error": "token"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(KINDS, tmp_path_factory.mktemp("totp"), settings=FREE) as made:
        yield made


# Setting up


def test_set_up(server: Server) -> None:
    user = User(server, "setup@example.com").sign_up()
    assert user.get("/auth/factors").json() == {"password": True, "totp": False, "recoveryCodes": 0}
    assert posted(user, "/auth/totp/begin", password="wrong password") == (403, {"error": "auth"})
    assert posted(user, "/auth/totp/confirm", code="123456") == ENDED
    _, begun = posted(user, "/auth/totp/begin", password=PASSWORD)
    known = pyotp.parse_uri(begun["uri"])
    assert (known.issuer, known.name, known.secret) == ("Kinds", "setup@example.com", begun["secret"])
    assert len(begun["secret"]) == 32 and known.digits == 6 and known.interval == 30
    qr = begun["qr"]
    assert qr.startswith("<svg ") and "viewBox=" in qr and qr.count("<path") == 1 and "style" not in qr
    status, got = posted(user, "/auth/totp/confirm", code=code_of(begun["secret"]))
    assert status == 200 and len(set(got["recoveryCodes"])) == 10
    assert user.get("/auth/factors").json() == {"password": True, "totp": True, "recoveryCodes": 10}
    assert "authenticator" in (text := mail_to(server, "setup@example.com")) and "127.0.0.1" in text
    assert posted(user, "/auth/totp/confirm", code=code_of(begun["secret"], 1)) == ENDED  # it has served


def test_a_secret_is_not_active_before_its_first_code(server: Server) -> None:
    user = User(server, "waiting@example.com").sign_up()
    _, begun = posted(user, "/auth/totp/begin", password=PASSWORD)
    assert posted(user, "/auth/totp/confirm", code=code_of(begun["secret"], 3)) == WRONG
    User(server, "waiting@example.com").log_in()
    assert not mails(server, "waiting@example.com")
    name = key("totp", id_of(user))
    assert 0 < int(redis(server, "ttl", name)) <= 600
    redis(server, "del", name)  # as when it has run out
    assert posted(user, "/auth/totp/confirm", code=code_of(begun["secret"])) == ENDED
    User(server, "waiting@example.com").log_in()


def test_of_two_begun_the_last_counts(server: Server) -> None:
    user = User(server, "again@example.com").sign_up()
    first, last = (posted(user, "/auth/totp/begin", password=PASSWORD)[1]["secret"] for _ in range(2))
    assert posted(user, "/auth/totp/confirm", code=code_of(first)) == WRONG
    assert posted(user, "/auth/totp/confirm", code=code_of(last))[0] == 200


def test_a_secret_is_confirmed_once_also_at_once(server: Server) -> None:
    user = User(server, "confirm@example.com").sign_up()
    _, begun = posted(user, "/auth/totp/begin", password=PASSWORD)
    code = code_of(begun["secret"])
    assert at_once(server, "/auth/totp/confirm", [{"code": code}] * 20, user) == [200] + [403] * 19


def test_another_authenticator_in_the_place_of_the_first(server: Server) -> None:
    user, old, codes = set_up(server, "replace@example.com")
    assert second(User(server, user.email), code_of(old))[0] == 200
    _, begun = posted(user, "/auth/totp/begin", password=PASSWORD)
    # in the same step as the login before; the codes for recovery stay as they are
    assert posted(user, "/auth/totp/confirm", code=code_of(begun["secret"])) == (200, {"recoveryCodes": []})
    with User(server, user.email) as other:
        assert second(other, code_of(old, 1)) == WRONG
        assert second(other, code_of(begun["secret"])) == WRONG  # it has served
        assert second(other, code_of(begun["secret"], 1))[0] == 200
        assert second(other, codes[0])[0] == 200


def test_sessions_without_the_factor_end(server: Server) -> None:
    other = User(server, "others@example.com").sign_up()
    user = User(server, "others@example.com").log_in()
    _, begun = posted(user, "/auth/totp/begin", password=PASSWORD)
    assert posted(user, "/auth/totp/confirm", code=code_of(begun["secret"]))[0] == 200
    assert other.get("/who").json() == {"error": "session"} and user.get("/who").status_code == 200


# Logging in


def test_login_asks_for_the_code(server: Server) -> None:
    owner, secret, _ = set_up(server, "login@example.com")
    with User(server, "login@example.com") as user:
        got = user.post("/auth/login", json={"email": user.email, "password": PASSWORD})
        assert (got.status_code, set(got.json())) == (403, {"error", "ticket", "factors"})
        assert got.json()["error"] == "second" and got.json()["factors"] == ["totp"]
        assert "set-cookie" not in got.headers and user.get("/who").json() == {"error": "nocookie"}
        ticket = got.json()["ticket"]
        assert second(user, code_of(secret, 3), ticket) == WRONG
        shown = user.post("/auth/second", json={"ticket": ticket, "code": code_of(secret)})
        assert shown.status_code == 200 and set(shown.json()) == {"csrf"}
        assert user.get("/who").json() == {"email": "login@example.com"}
        assert second(user, code_of(secret, 1), ticket) == ENDED  # a ticket serves once
    assert owner.get("/who").status_code == 200


def test_a_ticket_serves_once_also_at_once(server: Server) -> None:
    user, _, codes = set_up(server, "ticket@example.com")
    ticket = ticket_for(User(server, user.email))
    sent = [{"ticket": ticket, "code": code} for code in codes]
    assert at_once(server, "/auth/second", sent) == [200] + [403] * 9


def test_a_code_serves_once_also_at_once(server: Server) -> None:
    user, secret, _ = set_up(server, "once@example.com")
    tickets = [ticket_for(User(server, user.email)) for _ in range(20)]
    code = code_of(secret)
    assert at_once(server, "/auth/second", [{"ticket": each, "code": code} for each in tickets]) == [200] + [403] * 19
    assert second(User(server, user.email), code) == WRONG


def test_the_code_that_confirmed_has_served(server: Server) -> None:
    user, secret, _ = set_up(server, "served@example.com", first=0)
    assert second(User(server, user.email), code_of(secret)) == WRONG


def test_clocks_may_be_off_by_one_step(server: Server) -> None:
    user, secret, _ = set_up(server, "clock@example.com", first=0)
    with User(server, user.email) as other:
        settle()
        assert [second(other, code_of(secret, off))[0] for off in (-2, 2, -1, 1)] == [403, 403, 200, 200]


def test_a_recovery_code_serves_once_also_at_once(server: Server) -> None:
    user, _, codes = set_up(server, "recovery@example.com")
    tickets = [ticket_for(User(server, user.email)) for _ in range(20)]
    sent = [{"ticket": each, "code": codes[0]} for each in tickets]
    assert at_once(server, "/auth/second", sent) == [200] + [403] * 19
    told(server, user.email, "left: 9")
    assert user.get("/auth/factors").json()["recoveryCodes"] == 9


def test_codes_as_people_type_them(server: Server) -> None:
    user, secret, codes = set_up(server, "typed@example.com")
    with User(server, user.email) as other:
        assert second(other, codes[0].upper().replace("-", " "))[0] == 200
        assert second(other, f" {codes[1].replace('-', '')} ")[0] == 200
        code = code_of(secret)
        assert second(other, f"{code[:3]} {code[3:]}")[0] == 200


def test_odd_codes(server: Server) -> None:
    user, secret, _ = set_up(server, "odd@example.com")
    arabic = code_of(secret).translate({ord("0") + n: 0x660 + n for n in range(10)})
    wide = code_of(secret).translate({ord("0") + n: 0xFF10 + n for n in range(10)})
    posted(user, "/auth/totp/begin", password=PASSWORD)
    with User(server, user.email) as other:
        ticket = ticket_for(other)
        for odd in (arabic, wide, "\u00b9" * 6, "-" * 6, " " * 6, "\x00" * 6, "+12345", "1e5000", "\U0001f600" * 6):
            assert second(other, odd, ticket) == WRONG, odd
            assert posted(user, "/auth/totp/confirm", code=odd) == WRONG, odd
        for wrong in (["123456"], {"a": "123456"}, 123456, None, True, "12345", "1" * 41):
            for path, who, body in (("/auth/second", other, {"ticket": ticket}), ("/auth/totp/confirm", user, {})):
                status, got = posted(who, path, code=wrong, **body)
                assert (status, got["error"], got["where"]) == (400, "payload", "code"), (path, wrong)
        lone = {"content-type": "application/json"}
        for body in (b'{"ticket": "%s", "code": "\\ud800aaaaaa"}', b'{"ticket": "%s", "code": "\xff\xfe\xfd456789"}'):
            assert other.post("/auth/second", content=body % ticket.encode(), headers=lone).status_code == 400
        form = {"ticket": ticket, "code": b"\xff\xfe\xfd456789"}
        assert other.post("/auth/second", data=form).status_code in (400, 403)
        assert second(other, code_of(secret), ticket)[0] == 200


# What makes tickets worthless


def test_a_ticket_is_worthless_after_a_reset(server: Server) -> None:
    user, secret, codes = set_up(server, "reset@example.com")
    redis(server, "hset", key("user", id_of(user)), "verified", "1")  # else the reset takes the factor off
    with User(server, user.email) as other:
        ticket = ticket_for(other)
        assert posted(other, "/auth/recover", email=user.email) == (200, {})
        token = token_in(told(server, user.email, "#reset="), "reset")
        assert posted(other, "/auth/reset", token=token, password=NEW) == (200, {})
        assert second(other, code_of(secret), ticket) == ENDED
        assert second(other, codes[0], ticket) == ENDED
        assert second(other, code_of(secret), ticket_for(other, NEW))[0] == 200  # a mailbox takes no factor off


def test_a_ticket_is_worthless_when_the_account_is_disabled(server: Server) -> None:
    user, secret, _ = set_up(server, "disabled@example.com")
    with User(server, user.email) as other:
        ticket = ticket_for(other)
        redis(server, "hset", key("user", id_of(user)), "state", "disabled")
        assert second(other, code_of(secret), ticket) == ENDED


def test_a_ticket_ends_with_a_change_of_the_account(server: Server) -> None:
    user, secret, codes = set_up(server, "empty@example.com")
    with User(server, user.email) as other:
        ticket = ticket_for(other)
        assert posted(user, "/auth/totp/remove", password=PASSWORD) == (200, {})
        for code in (code_of(secret), "000000", codes[0]):
            assert second(other, code, ticket) == (403, {"error": "token"})


# Changes


def test_new_recovery_codes(server: Server) -> None:
    user, _, old = set_up(server, "renew@example.com")
    assert posted(user, "/auth/recoveryCodes", password="wrong password") == (403, {"error": "auth"})
    status, got = posted(user, "/auth/recoveryCodes", password=PASSWORD)
    assert status == 200 and not set(old) & set(got["recoveryCodes"])
    with User(server, user.email) as other:
        assert second(other, old[0]) == WRONG
        assert second(other, got["recoveryCodes"][0])[0] == 200
    told(server, user.email, "new recovery codes")
    plain = User(server, "plain@example.com").sign_up()
    assert posted(plain, "/auth/recoveryCodes", password=PASSWORD) == (403, {"error": "factor"})


def test_removal(server: Server) -> None:
    user, _, _ = set_up(server, "remove@example.com")
    assert posted(user, "/auth/totp/remove", password="wrong password") == (403, {"error": "auth"})
    ticket_for(User(server, user.email))
    posted(user, "/auth/totp/begin", password=PASSWORD)
    assert posted(user, "/auth/totp/remove", password=PASSWORD) == (200, {})
    assert posted(user, "/auth/totp/confirm", code="123456") == ENDED  # what waited has gone, too
    assert user.get("/auth/factors").json() == {"password": True, "totp": False, "recoveryCodes": 0}
    told(server, user.email, "was removed")
    User(server, user.email).log_in()
    assert posted(user, "/auth/totp/remove", password=PASSWORD) == (200, {})
    assert len(mails(server, user.email)) == 2  # nothing was removed, nothing is told


def test_codes_left_over_are_not_taken_for_new_ones(server: Server) -> None:
    """A removal that was cut leaves recovery codes: the next set-up has its own."""
    user, _, old = set_up(server, "cut@example.com")
    redis(server, "hdel", key("user", id_of(user)), "totp")
    _, begun = posted(user, "/auth/totp/begin", password=PASSWORD)
    _, got = posted(user, "/auth/totp/confirm", code=code_of(begun["secret"]))
    assert len(got["recoveryCodes"]) == 10 and second(User(server, user.email), old[0]) == WRONG


def test_an_admin_takes_factors_off(server: Server) -> None:
    user, _, _ = set_up(server, "helpless@example.com")
    admin = User(server, "admin@example.com").sign_up()
    assert posted(admin, f"/admin/users/{id_of(user)}/removeFactors") == (200, {})
    assert user.get("/auth/factors").json() == {"password": True, "totp": False, "recoveryCodes": 0}
    User(server, user.email).log_in()


def test_nothing_is_left_of_who_has_gone(server: Server) -> None:
    user, secret, codes = set_up(server, "gone@example.com")
    other = User(server, user.email)
    assert [second(other, code)[0] for code in (code_of(secret), code_of(secret, 1), codes[0])] == [200] * 3
    ticket, id = ticket_for(other), id_of(user)
    posted(user, "/auth/totp/begin", password=PASSWORD)
    assert posted(user, "/auth/destroy", password=PASSWORD) == (200, {})
    assert second(User(server, user.email), codes[1], ticket) == ENDED
    kept = [name for name in redis(server, "keys", "*").split() if id[3:] in name]
    assert all(name.startswith("rate:") for name in kept), kept


@pytest.mark.parametrize("path", ["totp/begin", "totp/confirm", "totp/remove", "recoveryCodes"])
def test_only_who_is_logged_in(server: Server, path: str) -> None:
    body = {"code": "123456"} if path == "totp/confirm" else {"password": PASSWORD}
    with User(server) as nobody:
        assert posted(nobody, f"/auth/{path}", **body) == (403, {"error": "nocookie"})
        assert nobody.get("/auth/factors").json() == {"error": "nocookie"}
    user = User(server, f"{path.replace('/', '-')}@example.com").sign_up()
    del user.headers["x-csrf-token"]
    assert posted(user, f"/auth/{path}", **body) == (403, {"error": "csrf"})


# Guessing


def test_guessing_is_limited_and_locks_nobody_out(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serving(KINDS, tmp_path_factory.mktemp("guesses")) as server:
        user, secret, codes = set_up(server, "aim@example.com")
        wrong = code_of(secret, 100)
        with User(server, user.email) as stranger:
            got = [second(stranger, wrong)[0] for _ in range(6)]
            assert got == [403] * 5 + [429]
            late = stranger.post("/auth/second", json={"ticket": ticket_for(stranger), "code": codes[0]})
            assert late.json() == {"error": "rate"} and int(late.headers["retry-after"]) >= 1
        posted(user, "/auth/logout")
        assert second(user, code_of(secret))[0] == 200  # this browser was in before
        with User(server, user.email) as elsewhere:
            elsewhere.headers["x-forwarded-for"] = "203.0.113.9"
            assert second(elsewhere, wrong)[0] == 429  # the limit is the user's, from wherever it is tried


def test_a_known_browser_is_limited_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serving(KINDS, tmp_path_factory.mktemp("known")) as server:
        user, secret, _ = set_up(server, "near@example.com")
        assert [second(user, code_of(secret, 100))[0] for _ in range(11)] == [403] * 10 + [429]
        assert second(user, code_of(secret))[0] == 429
        other = User(server, "setup@example.com").sign_up()
        posted(other, "/auth/totp/begin", password=PASSWORD)
        got = [posted(other, "/auth/totp/confirm", code="000000")[0] for _ in range(11)]
        assert got == [403] * 10 + [429]


# Secrets


def test_secrets_stand_nowhere(server: Server) -> None:
    user, secret, codes = set_up(server, "quiet@example.com")
    other, code = User(server, user.email), code_of(secret)
    assert [second(other, each)[0] for each in ("wrongcode", code, codes[0])] == [403, 200, 200]
    told(server, user.email, "left: 9")
    text = "".join(mail_to(server, user.email, number + 1) for number in range(len(mails(server, user.email))))
    for each in (secret, code, *codes):
        assert each not in server.said() and each not in text
    kept = redis(server, "smembers", key("recovery", id_of(user)))
    assert not [each for each in codes if each in kept or each.replace("-", "") in kept]


def test_replies_with_secrets_are_kept_by_no_cache(server: Server) -> None:
    user = User(server, "cache@example.com").sign_up()
    begun = user.post("/auth/totp/begin", json={"password": PASSWORD})
    confirmed = user.post("/auth/totp/confirm", json={"code": code_of(begun.json()["secret"])})
    assert [got.headers["cache-control"] for got in (begun, confirmed)] == ["no-store"] * 2
