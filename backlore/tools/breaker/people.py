"""The people of a run. Each has an account, a session, an address and words of its own.

Ann owns things that nobody else may see or change. Bob is another user. Eve is an admin, where one can be made. Attacks
that end sessions or accounts are tried by extras, who are made for one route and forgotten.
"""

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from backlore.tools.breaker.wire import Got, Sent, Wire

PASSWORD = "correct horse battery"
JSON = {"content-type": "application/json"}


@dataclass
class Person:
    """A user. `marker` is in the texts that it writes; `made` are the ids of what it made, by the path for that."""

    name: str
    email: str
    marker: str
    address: str
    password: str = PASSWORD
    session: str = ""
    csrf: str = ""
    id: str = ""
    is_admin: bool = False
    made: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))


def login_of(person: Person) -> dict[str, str]:
    """The payload that a person logs in with."""
    return {"email": person.email, "password": person.password}


class Cast:
    """Makes people through the routes. `cookie` is the session cookie's name, `domain` that of e-mail addresses."""

    def __init__(self, wire: Wire, cookie: str, make_admin: Callable[[str], None] | None, domain: str):
        self._wire = wire
        self._cookie = cookie
        self._make_admin = make_admin
        self.domain = domain
        self._lent: tuple[str, str] | None = None
        self._count = 0
        self.people: dict[str, Person] = {}
        self.can_sign_up = True

    def new(self, name: str) -> Person:
        """A user that has just signed up and logged in, or has no session where that is not possible."""
        self._count += 1
        email = f"{name}-{self._count}@{self.domain}"
        person = Person(name, email, f"{name}mk{self._count}", self._wire.new_address())
        self.people[f"{name}{self._count}"] = person
        if self.can_sign_up:
            self.sign_up(person)
        return person

    def sign_up(self, person: Person) -> None:
        """Make an account and a session. An account that an earlier run has left is used again."""
        got = self.post("/auth/signup", {"email": person.email, "password": person.password})
        if got.status not in (200, 403) or not self.log_in(person):
            self.can_sign_up = False

    def log_in(self, person: Person) -> bool:
        """Start a new session. Returns whether it worked."""
        got = self.post("/auth/login", login_of(person), person.address)
        session = self.session_of(got)
        if got.status != 200 or not session:
            return False
        person.session, person.csrf = session, str((got.body or {}).get("csrf", ""))
        who = self.ask(person, "/auth/csrf").body or {}
        person.id = str(who.get("user", {}).get("id", ""))
        return True

    def revive(self, person: Person) -> None:
        """Start a new session for a person that has lost its own, or its account."""
        if not self.log_in(person):
            person.password = PASSWORD
            if not self.log_in(person):
                self.post("/auth/signup", {"email": person.email, "password": person.password})
                self.log_in(person)

    def session_of(self, got: Got) -> str:
        """The session cookie that a reply sets, as NAME=VALUE; "" without one."""
        for cookie in got.cookies:
            pair = cookie.partition(";")[0]
            if pair.startswith(f"{self._cookie}=") and len(pair) > len(self._cookie) + 1:
                return pair
        return ""

    def lend_admin(self, email: str, password: str) -> None:
        """Let an admin that already exists play the admin."""
        self._lent = (email, password)

    def promote(self, person: Person) -> bool:
        """Make a user an admin. Returns whether it worked."""
        if self._lent:
            person.email, person.password = self._lent
            self.log_in(person)
        elif self._make_admin is None or not person.session:
            return False
        else:
            self._make_admin(person.email)
        who = self.ask(person, "/auth/csrf").body or {}
        person.is_admin = bool(who.get("user", {}).get("admin"))
        return person.is_admin

    def post(self, path: str, payload: Any, address: str = "", person: Person | None = None) -> Got:
        """A POST of JSON, from an address that was never used unless one is given."""
        body = json.dumps(payload).encode()
        session, csrf = (person.session, person.csrf) if person else ("", "")
        sent = Sent("POST", path, body, JSON, person.name if person else "stranger", session, csrf)
        got = self._wire.send(sent, address or self._wire.new_address())
        if got.status == 429:
            got = self._wire.send(sent, self._wire.new_address())
        return got

    def ask(self, person: Person, path: str) -> Got:
        """A GET in a person's session."""
        return self._wire.send(Sent("GET", path, None, {}, person.name, person.session), person.address)
