"""What a test does to an account from beside its owner: looks into redis, reads the mails, resets it."""

import subprocess
import time

from tests.conftest import MANY_USERS, Server, User, engine_cli, mails, token_in

NEW = "another long password"
FREE = {
    "rates": MANY_USERS["rates"] | dict.fromkeys(("password", "passkey", "code", "knock"), (10000, 60)),
    "body_timeout": 20,
}


def redis(server: Server, *words: str) -> str:
    got = subprocess.run([*engine_cli(server), *words], check=True, capture_output=True, text=True)
    return got.stdout.strip()


def told(server: Server, email: str, part: str) -> str:
    """The text of the mail that has this part, once it is there. Letters leave side by side, in any order."""
    until = time.monotonic() + 10
    while True:
        for mail in mails(server, email):
            body = mail.get_body(("plain",))
            if body is not None and part in body.get_content():
                return str(body.get_content())
        assert time.monotonic() < until, f"{part!r} was never told"
        time.sleep(0.05)


def id_of(user: User) -> str:
    return user.get("/auth/csrf").json()["user"]["id"]


def reset(server: Server, user: User) -> None:
    """By whoever reads the mails."""
    with User(server) as owner:
        owner.post("/auth/recover", json={"email": user.email})
        token = token_in(told(server, user.email, "#reset="), "reset")
        assert owner.post("/auth/reset", json={"token": token, "password": NEW}).json() == {}
