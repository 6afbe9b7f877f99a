"""An authenticator app, and a user who has one."""

import http.client
import json
import time
from typing import Any

import pyotp

from tests.conftest import PASSWORD, Server, User

STEP = 30


def settle() -> float:
    """Now, with some seconds left of its step: what a test computes and sends falls into the same one."""
    left = STEP - time.time() % STEP
    if left < 8:
        time.sleep(left + 0.1)
    return time.time()


def code_of(secret: str, steps: int = 0) -> str:
    return pyotp.TOTP(secret).at(settle() + steps * STEP)


def posted(user: User, path: str, **body: Any) -> tuple[int, Any]:
    got = user.post(path, json=body)
    return got.status_code, got.json()


def set_up(server: Server, email: str, first: int = -1) -> tuple[User, str, list[str]]:
    """A user with an authenticator, its secret and the recovery codes. The step `first` from now has served."""
    user = User(server, email).sign_up()
    status, begun = posted(user, "/auth/totp/begin", password=PASSWORD)
    assert status == 200, begun
    status, confirmed = posted(user, "/auth/totp/confirm", code=code_of(begun["secret"], first))
    assert status == 200, confirmed
    return user, begun["secret"], confirmed["recoveryCodes"]


def ticket_for(user: User, password: str = PASSWORD) -> str:
    """What the password alone gives: a ticket, and no session."""
    got = user.post("/auth/login", json={"email": user.email, "password": password})
    assert (got.status_code, got.json()["error"]) == (403, "second"), got.text
    assert "set-cookie" not in got.headers and "csrf" not in got.json()
    return got.json()["ticket"]


def second(user: User, code: str, ticket: str = "") -> tuple[int, Any]:
    """The password, and then this code; as who has no session."""
    return posted(user, "/auth/second", ticket=ticket or ticket_for(user), code=code)


def at_once(server: Server, path: str, bodies: list[dict], user: User | None = None) -> list[int]:
    """The statuses of requests whose last bytes are sent side by side: all else has arrived by then."""
    headers = {"content-type": "application/json", "user-agent": "tests"}
    if user:
        headers |= {"cookie": "; ".join(f"{name}={value}" for name, value in user.cookies.items())}
        headers |= {"x-csrf-token": user.csrf}
    lines, raws = [], [json.dumps(body).encode() for body in bodies]
    for raw in raws:
        lines.append(line := http.client.HTTPConnection("127.0.0.1", server.port, timeout=20))
        line.putrequest("POST", path)
        for name, value in (headers | {"content-length": str(len(raw))}).items():
            line.putheader(name, value)
        line.endheaders(raw[:-1])
    time.sleep(0.2)
    for line, raw in zip(lines, raws, strict=True):
        line.send(raw[-1:])
    statuses = [line.getresponse().status for line in lines]
    for line in lines:
        line.close()
    return sorted(statuses)
