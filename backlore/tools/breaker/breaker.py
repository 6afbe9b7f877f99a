"""The breaker: sends every route of a server what it should refuse and what it should accept, as each kind of user.

It knows the server by its OpenAPI document alone, and judges replies by it. Wrong replies of one kind from one route
are one finding; the smallest payload that still shows it is kept.
"""

import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from backlore.tools.breaker.composer import Composer
from backlore.tools.breaker.document import Operation, flaw
from backlore.tools.breaker.judge import ANY, Expected, Flaw, Judge
from backlore.tools.breaker.people import Cast, Person
from backlore.tools.breaker.shrink import shrink
from backlore.tools.breaker.strain import strain
from backlore.tools.breaker.wire import PATIENCE, Got, Sent, Wire

TRIES = 40  # requests that shrinking one payload may cost


@dataclass
class Finding:
    """Something wrong: the route, the kind, a sentence, and the request that shows it."""

    route: str
    kind: str
    why: str
    label: str  # what was tried
    sent: Sent
    got: Got
    expected: Expected
    count: int = 1
    before: Sent | None = None  # the request that made what the path names


def route_of(operation: Operation | None, sent: Sent) -> str:
    """The name under which findings are kept."""
    return str(operation) if operation else f"{sent.method} {sent.path.partition('?')[0]}"


class TimeOver(Exception):
    """The time is over: what is left is not tried."""


class Breaker(Composer):
    """One run against one server. `seconds` limits it; `seed` decides every choice in it.

    `make_admin` makes the user with an e-mail address an admin, where that is possible. `heal` restarts a server that
    hangs. `domain` is that of all e-mail addresses; a server that remembers earlier runs needs a new one.
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
        cookie = document["components"].get("securitySchemes", {}).get("session", {}).get("name", "")
        super().__init__(wire, document, Cast(wire, cookie, make_admin, domain), Random(seed))
        self.judge = Judge()
        self.findings: dict[tuple[str, str], Finding] = {}
        self.requests: Counter[str] = Counter()
        self.limited: Counter[str] = Counter()
        self.log: list[str] = []  # what was tried, in order
        self.on_progress: Callable[[str], None] = lambda phase: None
        self.phase = ""
        self._until = time.monotonic() + seconds
        self.heal = heal or (lambda: None)
        wire.before_sending = self._look_at_clock

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
        """Send a request, judge the reply, and keep findings. `rebuild` makes it from a smaller `payload`."""
        name = route_of(operation, sent)
        self.requests[name] += 1
        self.log.append(f"{self.phase} {name} {label} {zlib.crc32(sent.body or b''):x}")
        self.on_progress(name)
        sent, got = self._send(operation, sent, expected, person)
        for each in [*self.flaws(operation, sent, got, expected), *self.leaks(sent, got, person)]:
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

    def flaws(self, operation: Operation | None, sent: Sent, got: Got, expected: Expected = ANY) -> list[Flaw]:
        """All that is wrong with a reply. What the machine may have caused counts only if it happens again."""
        found = self.judge.examine(operation, sent, got, expected)
        for each in [each for each in found if each.kind in ("hang", "no reply")]:
            is_known = (route_of(operation, sent), each.kind) in self.findings
            if not is_known and not self._is_so_again(operation, sent, got, each):
                found.remove(each)
        return found

    def _is_so_again(self, operation: Operation | None, sent: Sent, got: Got, first: Flaw) -> bool:
        """Whether it happens twice more when sent alone: a busy machine is not a finding."""
        for _ in range(2):
            if got.why == "time":
                self.heal()
            busy = strain()
            got = self.wire.send(sent, self.wire.new_address(), PATIENCE * busy)
            alone = replace(got, seconds=got.seconds / max(busy, strain()))
            same = got.status == 0 if first.kind == "no reply" else self.judge.is_slow(str(operation), alone)
            if not same:
                return False
        if got.why == "time":
            self.heal()
        return True

    def leaks(self, sent: Sent, got: Got, person: Person | None) -> list[Flaw]:
        """What a reply shows of another user's."""
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
        """Keep a finding. Returns None when the route already has one of this kind."""
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
        """Run one phase after another, until the time is over."""
        try:
            for name, phase in phases:
                self.phase = name
                phase(self)
        except TimeOver:
            self.log.append("the time is over")
        finally:
            self.wire.close()
