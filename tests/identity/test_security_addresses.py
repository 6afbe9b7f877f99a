"""Whose an address is: who came first, how it is spelled, and what looks like it."""

import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import KINDS, PASSWORD, Server, User, mail_to, mails, serving, token_in, wait_until_letters_left
from tests.kit.accounts import NEW
from tests.kit.strangers import PLENTY, Stranger, cookies_of, error, join


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Addresses are not verified here, as by default in dev."""
    with serving(KINDS, tmp_path_factory.mktemp("security"), settings=PLENTY) as made:
        User(made, "admin@example.com").sign_up()
        yield made


# What an earlier claimant of an address has


def test_the_owner_of_an_address_gets_rid_of_who_came_first(server: Server, stranger: Stranger) -> None:
    """Pre-hijacking: sessions, password and mails under way of a squatter are worth nothing after a reset."""
    address = "victim@example.com"
    squatter = User(server, address).sign_up()
    other = User(server, address).log_in()
    change = {"email": "squatter@evil.example", "password": PASSWORD}
    assert squatter.post("/auth/changeEmail", json=change).json() == {}
    kept = token_in(mail_to(server, "squatter@evil.example"), "verify")
    assert squatter.post("/auth/recover", json={"email": address}).json() == {}
    waiting = token_in(mail_to(server, address), "reset")  # read by whoever, not used yet
    assert stranger.post("/auth/recover", json={"email": address}).json() == {}
    token = token_in(mail_to(server, address, 2), "reset")
    assert stranger.post("/auth/reset", json={"token": token, "password": NEW}).json() == {}
    for each in (squatter, other):
        assert error(each.get("/auth/csrf")) == (403, "session")
    assert error(stranger.enter(address)) == (403, "auth")
    assert error(stranger.post("/auth/verifyEmail", json={"token": kept})) == (403, "session")
    assert error(User(server, "bystander@example.com").sign_up().post("/auth/verifyEmail", json={"token": kept})) == (
        403,
        "token",
    )
    assert error(stranger.post("/auth/reset", json={"token": waiting, "password": PASSWORD})) == (403, "token")
    owner = cookies_of(stranger.enter(address, NEW))["kinds"]
    assert stranger.get("/auth/csrf", headers={"cookie": owner}).json()["user"]["email"] == address
    assert error(stranger.enter("squatter@evil.example")) == (403, "auth")


def test_an_address_is_given_once_where_it_is_not_verified(server: Server, stranger: Stranger) -> None:
    for number in range(3):
        with ThreadPoolExecutor(4) as pool:
            sent = [{"email": f"once{number}@example.com", "password": f"the password number {n}"} for n in range(4)]
            got = list(pool.map(lambda body: stranger.post("/auth/signup", json=body).status_code, sent))
        assert sorted(got) == [200] + [403] * 3
        made = [stranger.enter(body["email"], body["password"]).status_code for body in sent]
        assert made == got  # and who was told so has it


def test_a_password_counts_as_a_whole(stranger: Stranger) -> None:
    """As it was typed, whatever it is made of; only Unicode's two ways to write a letter are one."""
    longest = ("caf\u00e9 \U0001f600 'or 1=1 " * 9)[:127] + "x"
    simple = "nothing but small letters"
    for number, password in enumerate((longest, simple, "3141592653589793", " leading and trailing ", "\u0000" * 8)):
        email = f"whole{number}@example.com"
        assert stranger.post("/auth/signup", json={"email": email, "password": password}).json() == {}
        wrong = [password[:-1], password[:-1] + "y", password.swapcase(), password.strip(), password[:72]]
        for other in {each for each in wrong if each not in ("", password)}:
            assert error(stranger.enter(email, other)) == (403, "auth"), other
        assert stranger.enter(email, password).status_code == 200
    composed, apart = "caf\u00e9 au lait", "cafe\u0301 au lait"
    assert stranger.post("/auth/signup", json={"email": "nfd@example.com", "password": apart}).json() == {}
    assert stranger.enter("nfd@example.com", composed).status_code == 200
    for bad in ("a" * 7, "a" * 129, "password123", "NFD@example.com"):
        sent = {"email": "nfd@example.com", "password": bad}
        assert error(stranger.post("/auth/signup", json=sent)) == (400, "payload"), bad


# Limits


def spellings(email: str) -> list[str]:
    """Other ways to write an address that mean the same account."""
    local, _, domain = email.partition("@")
    forms = {unicodedata.normalize(form, email) for form in ("NFC", "NFD")}
    forms |= {each.upper() for each in list(forms)} | {f"{local.title()}@{domain}", f"{local}@{domain.upper()}"}
    return sorted(forms | {email.replace("k", "\u212a")})  # the Kelvin sign is a k (Unicode: canonical equivalence)


def test_a_limit_is_the_same_for_all_spellings_and_connections(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = {"rates": PLENTY["rates"] | {"login-account": (5, 600), "recover-account": (2, 600)}}
    with serving(KINDS, tmp_path_factory.mktemp("spelt"), settings=settings) as server:
        email = "frank.m\u00fcller@example.com"
        User(server, email).sign_up()
        ways = spellings(email)
        assert len(ways) >= 6
        with Stranger(server) as client, ThreadPoolExecutor(50) as pool:
            tries = [(ways[n % len(ways)], f"guess number {n}") for n in range(50)]
            got = list(pool.map(lambda each: client.enter(*each).status_code, tries))
            assert (got.count(403), got.count(429)) == (5, 45)
            for way in ways:
                refused = client.enter(way)
                assert error(refused) == (429, "rate") and int(refused.headers["retry-after"]) >= 1
            batch = [{"email": email, "password": f"guess {n}"} for n in range(50)]
            assert error(client.post("/auth/login", json=batch)) == (400, "payload")
            # nor is a space in front a way around: it is no address, or another account's that is not there
            assert error(client.enter(f" {email} ")) == (403, "auth")
            assert error(client.post("/auth/recover", json={"email": f" {email}"})) == (400, "payload")
            # what stands behind a plus is another account, and another mailbox for all we know
            assert client.enter(email.replace("@", "+1@")).status_code == 403
            sent = [client.post("/auth/recover", json={"email": way}).status_code for way in ways]
            assert (sent.count(200), sent.count(429)) == (2, len(ways) - 2)


# Addresses that look alike

STORED = "kate@example.com"
ALIKE = [
    "k\u0430te@example.com",  # Cyrillic a
    "\u212aate@ex\u0430mple.com",  # Kelvin sign, and a Cyrillic a
    "\uff4bate@example.com",  # fullwidth k
    "k\u03b1te@example.com",  # Greek alpha
    "kate\u0301@example.com",  # an accent
    "kate\u034f@example.com",  # combining grapheme joiner, unseen
    "kate@ex\u0101mple.com",
    "kate@example.c\u043em",  # Cyrillic o
    "kate+x@example.com",
    "kate.@example.com",
]
REFUSED = [
    "kate\u200b@example.com", "kate\u00ad@example.com", "kate\u2060@example.com", "\u202ekate@example.com",
    "kate@exam\u200dple.com", "kate@example\u3002com\n", "kate @example.com", "kate@example.com ", "kate\u3000@x.com",
]  # fmt: skip


def test_who_looks_like_another_is_another(secure: Server, visitor: Stranger) -> None:
    """Either no address, or a distinct account: no mail, no token and no login of one is the other's."""
    join(visitor, secure, STORED)
    for address in REFUSED:
        for path, more in (("/auth/signup", {"password": NEW}), ("/auth/recover", {})):
            assert error(visitor.post(path, json={"email": address, **more})) == (400, "payload"), ascii(address)
    for address in ALIKE:
        assert visitor.post("/auth/recover", json={"email": address}).status_code == 200
        assert error(visitor.enter(address)) == (403, "auth"), ascii(address)  # it is not kate's password
        assert visitor.post("/auth/signup", json={"email": address, "password": NEW}).status_code == 200
    visitor.post("/auth/recover", json={"email": "end@example.com"})
    visitor.post("/auth/signup", json={"email": "end@example.com", "password": NEW})
    wait_until_letters_left(secure)
    assert mails(secure, "end@example.com")
    assert len(mails(secure, STORED)) == 1  # the verification of her own
    assert visitor.enter(STORED).status_code == 200 and error(visitor.enter(STORED, NEW)) == (403, "auth")


def test_a_link_goes_to_the_address_as_it_is_kept(secure: Server, visitor: Stranger) -> None:
    """However it is typed when asking: a mailbox that our account does not name gets no link to it."""
    kept = "\u01f0ack@example.com"
    join(visitor, secure, kept)
    for typed in (
        "\u01f0ack@example.com",
        "j\u030cack@example.com",
        "J\u030cACK@Example.com",
        "J\u030cack@example.com",
    ):
        assert visitor.post("/auth/recover", json={"email": typed}).json() == {}
    wait_until_letters_left(secure)
    wrong = [file for file in (secure.data / "outbox").glob("[0-9]*.eml") if "j\u030cack" in file.read_text("utf-8")]
    assert not wrong, "a link was mailed to another mailbox than the account's"
    assert len(mails(secure, kept)) == 5


@pytest.mark.parametrize("domain", ["\uff45xample.com", "exa\ufe0fmple.com", "\u2163.example"])
def test_a_domain_that_mail_takes_for_another_is_refused(secure: Server, visitor: Stranger, domain: str) -> None:
    """IDNA 2003 maps these to other domains, whose owners would get the mails."""
    for path, more in (("/auth/signup", {"password": NEW}), ("/auth/recover", {})):
        got = visitor.post(path, json={"email": f"kate@{domain}", **more})
        assert error(got) == (400, "payload"), got.text


def test_nobody_becomes_an_admin_by_looking_like_one(server: Server) -> None:
    for address in (
        "adm\u0131n@example.com",
        "\u0430dmin@example.com",
        "\uff41dmin@example.com",
        "ADM\u0130N@example.com",
    ):
        user = User(server, address).sign_up()
        assert user.get("/auth/csrf").json()["user"]["admin"] is False, ascii(address)
        assert error(user.get("/admin/users")) == (403, "admin")
