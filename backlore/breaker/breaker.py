"""The breaker: sends to every route of a server what it should refuse, and what it should take, as everybody.

It knows the server by its OpenAPI document alone, and judges replies by it. A finding is one wrong reply a route and
kind; the smallest payload that still shows it is kept.
"""

import json
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from urllib.parse import quote, urlencode

from backlore.breaker.document import Operation, Schema, flaw, owners, read_document
from backlore.breaker.forms import to_form
from backlore.breaker.judge import ANY, Expected, Flaw, Judge
from backlore.breaker.people import JSON, Cast, Person
from backlore.breaker.shrink import shrink
from backlore.breaker.strain import strain
from backlore.breaker.values import NoValue, sample
from backlore.breaker.wire import PATIENCE, Got, Sent, Wire

NOTHING = object()
TRIES = 40  # requests that a payload's shrinking may cost


@dataclass
class Finding:
    """Something wrong: where, of what kind, in words, and the request that shows it."""

    route: str
    kind: str
    why: str
    label: str  # what was tried
    sent: Sent
    got: Got
    expected: Expected
    count: int = 1
    before: Sent | None = None  # what made what the path names


def knack_of(name: str, part: Schema) -> str:
    """Fields of one name and type are asked the same everywhere."""
    return f"{name} {json.dumps(part, sort_keys=True)}"


def id_of(name: str, payload: Any, got: Got) -> Any:
    """The name of what was made: as the reply has it, else as it was sent; None if nothing was."""
    if got.status != 200:
        return None
    told = got.body.get(name) if isinstance(got.body, dict) else None
    return payload.get(name) if told is None and isinstance(payload, dict) else told


class TimeOver(Exception):
    """The seconds are over: what is left is not tried."""


class Breaker:
    """One run against one server. `seconds` bound it; `seed` decides every choice in it.

    `make_admin` makes an admin of an address, where that can be done; `heal` brings a server back that hangs;
    `domain` has all addresses of e-mail, another one for each run against a server that remembers the last.
    """

    def __init__(
        self,
        wire: Wire,
        document: dict[str, Any],
        *,
        seed: int = 1,
        seconds: float = 60,
        make_admin: Callable[[str], None] | None = None,
        heal: Callable[[], None] | None = None,
        domain: str = "break.example.com",
    ):
        self.wire = wire
        # the application's own routes first: what is left when the time is over is what many others have tried
        self.operations: list[Operation] = []
        self.speechless: list[str] = []  # routes to which nothing valid can be said, with the reason
        for each in sorted(read_document(document), key=lambda each: not each.is_own):
            try:
                for part in [*(parameter.schema for parameter in each.parameters), each.body or {}]:
                    sample(part, Random(seed))
                self.operations.append(each)
            except NoValue as error:
                self.speechless.append(f"{each}: {error}")
        self.unsaid: set[tuple[str, str]] = set()  # keys of a route's payload that are better left out
        self.knacks: dict[str, str] = {}  # what texts of a field have to look like beyond their type: see `attacks`
        cookie = document["components"].get("securitySchemes", {}).get("session", {}).get("name", "")
        self.cast = Cast(wire, cookie, make_admin, domain)
        self.random = Random(seed)
        self.judge = Judge()
        self.findings: dict[tuple[str, str], Finding] = {}
        self.requests: Counter[str] = Counter()
        self.limited: Counter[str] = Counter()
        self.log: list[str] = []  # what was tried, in order
        self.on_progress: Callable[[str], None] = lambda phase: None
        self.phase = ""
        self._until = time.monotonic() + seconds
        self._heal = heal
        self._emails = 0
        wire.before_sending = self._look_at_clock

    def operation(self, method: str, path: str) -> Operation | None:
        """The operation of that name."""
        return next((each for each in self.operations if (each.method, each.path) == (method, path)), None)

    def untried(self) -> list[str]:
        """What could not be tried, in words."""
        eve = self.cast.people.get("eve3")
        lines = list(self.speechless)
        if "the time is over" in self.log:
            lines.append(f"what comes after the phase {self.phase!r}: the time was over.")
        if not self.cast.can_sign_up:
            lines.append("all that needs a user: nobody could sign up and log in.")
        if eve is not None and not eve.is_admin:
            lines.append("admin routes as an admin: give --admin.")
        if not self.wire.has_addresses and self.limited:
            lines.append(f"what limits refused: {sum(self.limited.values())} requests, all from one address.")
        return lines

    # Making requests

    def compose(
        self,
        operation: Operation,
        person: Person | None,
        payload: Any = NOTHING,
        path: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> Sent:
        """A request to an operation, valid but for what is given."""
        values = self.path_values(operation, person) | dict(path or {})
        target = operation.path
        for name, value in values.items():
            target = target.replace(f"{{{name}}}", quote(str(value), safe=""))
        if query:
            target += "?" + urlencode(query, doseq=True)
        body: bytes | None = None
        headers: Mapping[str, str] = {}
        if operation.changes:
            shown = self.payload(operation, person) if payload is NOTHING else payload
            body, headers = to_form(shown, operation) if operation.is_form else (json.dumps(shown).encode(), JSON)
        named, session, csrf = (person.name, person.session, person.csrf) if person else ("stranger", "", "")
        return Sent(operation.method, target, body, headers, named, session, csrf if operation.changes else "")

    def payload(self, operation: Operation, person: Person | None, marker: str = "") -> Any:
        """A plain payload that fits."""
        if operation.body is None:
            return {}
        marker = marker or (person.marker if person else "abc")
        made = sample(operation.body, self.random, marker)
        made = {key: each for key, each in made.items() if (str(operation), key) not in self.unsaid}
        for name, part in operation.body.get("properties", {}).items():
            if name in made and (look := self.knacks.get(knack_of(name, part))):
                made[name] = look.format(f"{marker}{self.random.randrange(10**6)}")
        return self.fill(made, operation, person)

    def fill(self, payload: Any, operation: Operation, person: Person | None, but: str = "") -> Any:
        """The payload with what only this person knows, but for one key."""
        if not isinstance(payload, dict):
            return payload
        filled = dict(payload)
        for key in filled:
            if key in ("password", "old", "new") and key != but and isinstance(filled[key], str) and person:
                filled[key] = person.password
            elif key == "email" and key != but and isinstance(filled[key], str):
                self._emails += 1
                knows = person and operation.path == "/auth/login"
                filled[key] = person.email if person and knows else f"x{self._emails}@{self.cast.domain}"
        return filled

    def path_values(self, operation: Operation, person: Person | None) -> dict[str, Any]:
        """Values for the parts of the path: of something that the person has made, where there is a route for that."""
        values: dict[str, Any] = {}
        for parameter in operation.of("path"):
            maker = self.maker_of(operation, parameter.name)
            if maker and person and person.session:
                values[parameter.name] = self.make(maker, person, parameter.name)
            elif operation.stage == "admin" and parameter.name == "id":
                values[parameter.name] = self.target()
            else:
                values[parameter.name] = sample(parameter.schema, self.random)
        return values

    def target(self) -> str:
        """The id of a user on whom admins act."""
        found = self.cast.people.get("target")
        if found is None:
            found = self.cast.people["target"] = self.cast.new("target")
        return found.id or "a" * 16

    def maker_of(self, operation: Operation, name: str) -> Operation | None:
        """The route that makes what a part of the path names: POST on a path before it, which replies with it, or is
        told it."""
        above = operation.path.partition(f"/{{{name}}}")[0]
        while above:
            maker = self.operation("POST", above)
            if maker and (maker.fields.get(name) == name or name in (maker.body or {}).get("properties", {})):
                return maker
            above = above.rpartition("/")[0]
        return None

    def make(
        self, maker: Operation, person: Person, name: str, payload: Any = NOTHING, sent: Sent | None = None
    ) -> Any:
        """The id of something that the person has made, just for this if a payload is given. `sent` carries it."""
        known = person.made[maker.path]
        if payload is NOTHING:
            if known:
                return known[-1]
            payload = self.payload(maker, person)
        got = self.wire.send(sent or self.compose(maker, person, payload), person.address)
        id = id_of(name, payload, got)
        if id is not None:
            known.append(id)
        return 1 if id is None else id

    def referring(self, operation: Operation, person: Person, owner: Person | None = None) -> Any:
        """A plain payload that names what its sender, or another owner, has made: in a key that is called as the name
        of what the route above makes, or as several of them."""
        payload = self.payload(operation, person)
        makers = [each for each in owners(self.operations) if operation.path.startswith(f"{each.path}/")]
        for maker in makers if isinstance(payload, dict) else ():
            name, made = self.name_of(maker), (owner or person).made[maker.path]
            if made and name in payload:
                payload[name] = made[-1]
            if made and isinstance(payload.get(f"{name}s"), list):
                payload[f"{name}s"] = made[-1:]
        return payload

    def name_of(self, maker: Operation) -> str:
        """What the paths below a route call that which it makes."""
        below = [(each, part.name) for each in self.operations for part in each.of("path")]
        names = [name for each, name in below if self.maker_of(each, name) is maker]
        return next((each for each in (*maker.fields, *names) if each in names), next(iter(maker.fields), "id"))

    # Sending and judging

    def attack(
        self,
        operation: Operation | None,
        sent: Sent,
        expected: Expected = ANY,
        label: str = "",
        person: Person | None = None,
        rebuild: Callable[[Any], Sent] | None = None,
        payload: Any = None,
    ) -> Got:
        """Send, judge, and keep what is wrong. `rebuild` makes the request anew from a smaller `payload`."""
        name = str(operation) if operation else f"{sent.method} {sent.path.partition('?')[0]}"
        self.requests[name] += 1
        self.log.append(f"{self.phase} {name} {label} {zlib.crc32(sent.body or b''):x}")
        self.on_progress(name)
        sent, got = self._send(operation, sent, expected, person)
        flaws = [*self.judge.examine(operation, sent, got, expected), *self.leaks(sent, got, person)]
        for each in flaws:
            is_new = (name, each.kind) not in self.findings
            if each.kind in ("hang", "no reply") and is_new and not self._is_so_again(operation, sent, got, each):
                continue
            new = self.keep(name, each, label, sent, got, expected)
            if new and rebuild and each.kind not in ("hang", "no reply", "etag"):
                self._shrink(new, operation, expected, person, rebuild, payload)
        return got

    def _send(
        self, operation: Operation | None, sent: Sent, expected: Expected, person: Person | None
    ) -> tuple[Sent, Got]:
        stranger = operation is None or operation.stage in ("auth", "public") or person is None
        got = self.wire.send(sent, self.wire.new_address() if stranger or person is None else person.address)
        if got.status == 429:
            self.limited[str(operation)] += 1
            got = self.wire.send(sent, self.wire.new_address())
        lost = got.status == 403 and got.error in ("session", "nocookie") and expected.kind != "gate"
        if person and (got.status == 429 or lost) and operation and operation.has_session:
            if got.status == 429:
                person.email = f"n{self.wire.count}-{person.email}"
            self.cast.revive(person)
            sent = replace(sent, session=person.session, csrf=person.csrf if sent.csrf else "")
            got = self.wire.send(sent, self.wire.new_address())
        return sent, got

    def _is_so_again(self, operation: Operation | None, sent: Sent, got: Got, first: Flaw) -> bool:
        """Whether it comes so twice more, alone: a busy machine is no finding."""
        for _ in range(2):
            if self._heal and got.why == "time":
                self._heal()
            busy = strain()
            got = self.wire.send(sent, self.wire.new_address(), PATIENCE * busy)
            alone = replace(got, seconds=got.seconds / max(busy, strain()))
            same = got.status == 0 if first.kind == "no reply" else self.judge.is_slow(str(operation), alone)
            if not same:
                return False
        if self._heal and got.why == "time":
            self._heal()
        return True

    def leaks(self, sent: Sent, got: Got, person: Person | None) -> list[Flaw]:
        """What belongs to another user, in a reply."""
        if person is not None and person.is_admin:
            return []
        given = sent.path.encode() + (sent.body or b"")
        for other in (self.cast.people.get("ann1"), self.cast.people.get("bob2")):
            if other and other is not person:
                for word in (other.marker.encode(), other.email.encode()):
                    if word in got.raw and word not in given:
                        return [Flaw("leak", f"{sent.who} sees what is {other.name}'s: {word.decode()!r}.")]
        return []

    def keep(
        self, route: str, each: Flaw, label: str, sent: Sent, got: Got, expected: Expected = ANY
    ) -> Finding | None:
        """Keep a finding; None when there is one of its kind for the route."""
        known = self.findings.get((route, each.kind))
        if known:
            known.count += 1
            return None
        finding = Finding(route, each.kind, each.why, label, sent, got, expected)
        self.findings[route, each.kind] = finding
        return finding

    def _shrink(
        self,
        finding: Finding,
        operation: Operation | None,
        expected: Expected,
        person: Person | None,
        rebuild: Callable[[Any], Sent],
        payload: Any,
    ) -> None:
        schema = operation.body if operation else None
        fits = schema is not None and not flaw(schema, payload)

        def shows(smaller: Any) -> bool:
            if schema is not None and (not flaw(schema, smaller)) is not fits:
                return False
            sent, got = self._send(operation, rebuild(smaller), expected, person)
            same = [each for each in self.judge.examine(operation, sent, got, expected) if each.kind == finding.kind]
            if same:
                finding.sent, finding.got, finding.why = sent, got, same[0].why
            return bool(same)

        shrink(payload, shows, TRIES)

    # Phases

    def _look_at_clock(self) -> None:
        if time.monotonic() > self._until:
            raise TimeOver

    def run(self, phases: Iterable[tuple[str, Callable[["Breaker"], None]]]) -> None:
        """One phase after another, until the time is over."""
        try:
            for name, phase in phases:
                self.phase = name
                phase(self)
        except TimeOver:
            self.log.append("the time is over")
        finally:
            self.wire.close()
