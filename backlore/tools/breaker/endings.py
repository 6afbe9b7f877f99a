"""What ends a session, or an admin's rights: each by the account routes, where the server has them."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from backlore.tools.breaker.breaker import Breaker
from backlore.tools.breaker.people import JSON, Person
from backlore.tools.breaker.wire import Got, Sent

NEW = "yet another battery"


@dataclass(frozen=True)
class Ending:
    """`act` ends a person's sessions and returns whether it could; `when` says in words when that was."""

    route: str
    when: str
    act: Callable[[Breaker, Person], bool]


def ask(breaker: Breaker, path: str, payload: Any, person: Person | None = None, address: str = "") -> tuple[Sent, Got]:
    """Send a POST. Returns the request and its reply."""
    session, csrf = (person.session, person.csrf) if person else ("", "")
    sent = Sent("POST", path, json.dumps(payload).encode(), JSON, person.name if person else "stranger", session, csrf)
    return sent, breaker.wire.send(sent, address or breaker.wire.new_address())


def has(breaker: Breaker, *paths: str) -> bool:
    """Whether the server has all these routes, and users can be made."""
    return breaker.cast.can_sign_up and all(breaker.operation("POST", path) for path in paths)


def _log_out(breaker: Breaker, person: Person) -> bool:
    return has(breaker, "/auth/logout") and ask(breaker, "/auth/logout", {}, person)[1].status == 200


def _from_elsewhere(breaker: Breaker, person: Person, path: str, payload: Any) -> bool:
    other = Person(person.name, person.email, person.marker, breaker.wire.new_address(), person.password)
    return has(breaker, path) and breaker.cast.log_in(other) and ask(breaker, path, payload, other)[1].status == 200


def _end_others(breaker: Breaker, person: Person) -> bool:
    return _from_elsewhere(breaker, person, "/auth/sessions/end", {"others": True})


def _change_password(breaker: Breaker, person: Person) -> bool:
    changed = _from_elsewhere(breaker, person, "/auth/changePassword", {"old": person.password, "new": NEW})
    person.password = NEW if changed else person.password
    return changed


def _reset(breaker: Breaker, person: Person) -> bool:
    token = reset_token(breaker, person) if has(breaker, "/auth/recover", "/auth/reset") else ""
    if not token or ask(breaker, "/auth/reset", {"token": token, "password": NEW})[1].status != 200:
        return False
    person.password = NEW
    return True


def _disable(breaker: Breaker, person: Person) -> bool:
    return _as_admin(breaker, "/admin/users/{id}/disable", person, {})


def demote(breaker: Breaker, person: Person) -> bool:
    """Take an admin's rights from a person."""
    return _as_admin(breaker, "/admin/users/{id}/admin", person, {"admin": False})


def promote(breaker: Breaker, person: Person) -> bool:
    """Give a person an admin's rights."""
    return _as_admin(breaker, "/admin/users/{id}/admin", person, {"admin": True})


def _as_admin(breaker: Breaker, path: str, person: Person, payload: Any) -> bool:
    eve = breaker.cast.people.get("eve3")
    if eve is None or not eve.is_admin or not has(breaker, path):
        return False
    return ask(breaker, path.replace("{id}", quote(person.id)), payload, eve)[1].status == 200


ENDINGS = (
    Ending("POST /auth/logout", "after the logout", _log_out),
    Ending("POST /auth/sessions/end", "after it was ended from another session", _end_others),
    Ending("POST /auth/changePassword", "after the password was changed in another session", _change_password),
    Ending("POST /auth/reset", "after the password was reset", _reset),
    Ending("POST /admin/users/{id}/disable", "after the user was disabled", _disable),
)


def reset_token(breaker: Breaker, person: Person) -> str:
    """The token from a mail that resets the password, read from /outbox, which is there in dev; "" without one."""
    if breaker.operation("GET", "/outbox") is None:
        return ""
    ask(breaker, "/auth/recover", {"email": person.email})
    until = time.monotonic() + 10
    token = ""
    while not token and time.monotonic() < until:
        token = _mailed(breaker, person.email, "reset")
    return token


def _mailed(breaker: Breaker, email: str, kind: str) -> str:
    """The token in the newest mail to an address, as the outbox shows it; "" when there is none yet."""
    here = "127.0.0.1" if breaker.wire.has_addresses else ""
    known = breaker.wire.send(Sent("GET", f"/outbox?key={breaker.wire.key}"), here)
    cookie = "".join(known.cookies).partition(";")[0]
    page = breaker.wire.send(Sent("GET", "/outbox", session=cookie), here)
    for name in re.findall(rb'href="/outbox/([^"?#]+)"', page.raw)[:20]:
        mail = breaker.wire.send(Sent("GET", f"/outbox/{name.decode()}", session=cookie), here)
        found = re.search(rf"#{kind}=(\w+)".encode(), mail.raw)
        if found and email.encode() in mail.raw:
            return found[1].decode()
    return ""
