"""What attacks share: the people, the sender for each route, and payloads that can be shrunk."""

from typing import Any

from backlore.tools.breaker.breaker import Breaker
from backlore.tools.breaker.composer import knack_of
from backlore.tools.breaker.document import Operation, flaw, owners
from backlore.tools.breaker.judge import Expected
from backlore.tools.breaker.people import Person
from backlore.tools.breaker.values import kind_of
from backlore.tools.breaker.wire import Got, Sent


def populate(breaker: Breaker) -> None:
    """Create ann, bob and eve, and what ann and bob own."""
    breaker.cast.new("ann")
    breaker.cast.new("bob")
    breaker.cast.promote(breaker.cast.new("eve"))
    for maker in owners(breaker.operations):
        learn(breaker, maker, breaker.cast.people["bob2"])
    for name, count in (("ann1", 4), ("bob2", 3)):
        for maker in owners(breaker.operations):
            for number in range(count):
                person = breaker.cast.people[name]
                payload = breaker.payload(maker, person, f"{person.marker}{number or ''}")
                breaker.make(maker, person, breaker.name_of(maker), payload)


# Forms that a text often must have though its type doesn't say so. Each {} is filled with something new every time.
LOOKS = (
    "https://example.com/{}", "{}@example.com", "{}.example.com", "{}", "X{}", "+49301{}", "2026-01-31", "/{}",
    "{}.txt",
    "#aabbcc", "en", "EUR", "DE", "Europe/Berlin", "12:00",
)  # fmt: skip


def learn(breaker: Breaker, maker: Operation, person: Person) -> None:
    """Find out, one try at a time, what a route asks for beyond its type: that a key is better left out, because it
    names something that must exist, or that a text has a certain form.
    """
    payload = breaker.payload(maker, person)
    body = maker.body or {}

    def status_of(tried: Any) -> int:
        return breaker.wire.send(breaker.compose(maker, person, tried), person.address).status

    status = status_of(payload)
    if not isinstance(payload, dict) or status == 200:
        return
    for name in [key for key in payload if key not in body.get("required", ())]:
        if status_of({key: each for key, each in payload.items() if key != name}) == 200:
            breaker.unsaid.add((str(maker), name))
            return
    for name, part in body.get("properties", {}).items() if status == 400 else ():
        for look in LOOKS if kind_of(part).get("type") == "string" and "enum" not in kind_of(part) else ():
            wish = look.format(f"{person.marker}{breaker.random.randrange(10**6)}")
            if not flaw(part, wish) and status_of({**payload, name: wish}) == 200:
                breaker.knacks[knack_of(name, part)] = look
                return


def actor(breaker: Breaker, operation: Operation, name: str = "") -> Person:
    """Who attacks a route: eve on admin routes, an extra on account routes that change something, else bob."""
    people = breaker.cast.people
    if operation.stage == "admin" and "eve3" in people and people["eve3"].is_admin:
        return people["eve3"]
    if operation.stage == "private" and operation.changes and not operation.is_own:
        # it may end the session or the account
        key = f"extra {operation}"
        if key not in people:
            people[key] = breaker.cast.new("extra")
        return people[key]
    return people["bob2"]


def send(breaker: Breaker, operation: Operation, person: Person, payload: Any, expected: Expected, label: str) -> Got:
    """Send a payload that can be shrunk, and judge the reply."""

    def build(smaller: Any) -> Sent:
        return breaker.compose(operation, person, smaller)

    return breaker.attack(operation, build(payload), expected, label, person, build, payload)
