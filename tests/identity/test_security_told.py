"""What is told to whom: nobody learns who has an account, and no secret stands in a log or a mail."""

import json
from collections.abc import Iterator

import httpx
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


def alike(*replies: httpx.Response) -> None:
    """Replies that a stranger can't tell apart: status, body, and headers but for the clock."""
    seen = {
        (got.status_code, got.content, tuple(sorted(pair for pair in got.headers.items() if pair[0] != "date")))
        for got in replies
    }
    assert len(seen) == 1, seen


def test_known_and_unknown_are_answered_alike(secure: Server, visitor: Stranger) -> None:
    for name in ("known", "closed"):
        join(visitor, secure, f"{name}@example.com")
    visitor.post("/auth/signup", json={"email": "waiting@example.com", "password": PASSWORD})
    mail_to(secure, "waiting@example.com")
    close(visitor, secure, "closed@example.com")
    addresses = [f"{name}@example.com" for name in ("known", "closed", "waiting", "unknown")]
    alike(*(visitor.enter(address, "a wrong password") for address in addresses))
    alike(visitor.enter("closed@example.com"), visitor.enter("unknown@example.com"))  # also with the right one
    alike(*(visitor.post("/auth/recover", json={"email": address}) for address in addresses))
    alike(*(visitor.post("/auth/signup", json={"email": address, "password": NEW}) for address in addresses))
    alike(*(visitor.enter(address, NEW) for address in addresses))  # to who has signed up with what is another's
    # the owners alone are told, each once by mail, a disabled one not at all of the link
    assert "#reset=" in mail_to(secure, "known@example.com", 2) and mail_to(secure, "known@example.com", 3)
    mail_to(secure, "unknown@example.com")
    mail_to(secure, "waiting@example.com", 2)
    mail_to(secure, "closed@example.com", 2)
    wait_until_letters_left(secure)
    numbers = [len(mails(secure, address)) for address in addresses]
    assert numbers == [3, 2, 2, 1]
    assert not any("#reset=" in mail.as_string() for mail in mails(secure, "closed@example.com"))


def close(visitor: Stranger, server: Server, email: str) -> None:
    """Disable an account, as an admin does."""
    join(visitor, server, "admin@example.com")
    given = visitor.enter("admin@example.com")
    boss = {"cookie": cookies_of(given)["__Host-shoebox"], "x-csrf-token": given.json()["csrf"]}
    (user,) = visitor.get("/admin/users", params={"search": email}, headers=boss).json()["users"]
    assert visitor.post(f"/admin/users/{user['id']}/disable", headers=boss).json() == {}


def test_secrets_stand_in_no_log_and_no_notification(server: Server) -> None:
    user = User(server, "quiet@example.com").sign_up()
    assert user.post("/auth/recover", json={"email": user.email}).json() == {}
    token = token_in(mail_to(server, user.email), "reset")
    session, _, signature = user.cookies["kinds"].partition(".")
    secrets = [token, session, signature, user.csrf, PASSWORD, "a wrong password", NEW]
    user.get(f"/auth/csrf?token={token}&csrf={user.csrf}&session={session}")  # in a query: not told either
    user.get(f"/nowhere?password={NEW.replace(' ', '+')}")
    user.post("/auth/login", json={"email": user.email, "password": "a wrong password"})
    user.post(
        "/auth/login", content=json.dumps({"password": PASSWORD})[:-1], headers={"content-type": "application/json"}
    )
    user.post("/auth/changePassword", json={"old": "a wrong password", "new": NEW})
    user.post("/auth/reset", json={"token": f"{token}x", "password": NEW})
    user.get("/fails", headers={"authorization": f"Bearer {session}", "x-csrf-token": user.csrf})
    with Stranger(server) as other:
        other.get("/who", headers={"cookie": f"kinds={session}.{'0' * 32}"})
    server.wait_said("session.tampered")
    assert user.post("/auth/reset", json={"token": token, "password": NEW}).json() == {}
    user.get("/the-end-of-secrets")
    said = server.wait_said("the-end-of-secrets")
    for secret in [*secrets, NEW.replace(" ", "+")]:
        assert secret not in said


def test_what_a_client_says_makes_no_header_of_a_mail(server: Server) -> None:
    user = User(server, "mailed@example.com").sign_up()
    with Stranger(server) as other:
        agent = "<b>Evil</b>\x85Bcc: evil@evil.example %0d%0aBcc:x {link} \xa0\xad\xff".encode("latin-1")
        assert other.enter(user.email, **{"user-agent": agent}).status_code == 200
        for ending in ("\r\nBcc: evil@evil.example", "\nBcc: evil@evil.example", "\r", "\0", "%0aBcc:x@y.example "):
            sent = {"email": f"mailed@example.com{ending}", "password": PASSWORD}
            assert error(other.post("/auth/signup", json=sent)) == (400, "payload"), repr(ending)
            change = {"email": sent["email"], "password": PASSWORD}
            assert error(user.post("/auth/changeEmail", json=change)) == (400, "payload"), repr(ending)
    text = mail_to(server, user.email)
    (mail,) = mails(server, user.email)
    assert not {"bcc", "cc"} & {name.lower() for name in mail.keys()} and mail["to"] == user.email  # noqa: SIM118
    assert not [line for line in text.splitlines() if line.startswith("Bcc")]
    assert "<b>" not in mail.get_body(("html",)).get_content()
