"""What every attack begins with: the people, who sends to which route, and a payload that can be shrunk."""

from typing import Any

from backlore.breaker.breaker import Breaker
from backlore.breaker.document import Operation, owners
from backlore.breaker.judge import Expected
from backlore.breaker.people import Person
from backlore.breaker.wire import Got, Sent


def populate(breaker: Breaker) -> None:
    """Ann, bob and eve, and what ann and bob own."""
    breaker.cast.new("ann")
    breaker.cast.new("bob")
    breaker.cast.promote(breaker.cast.new("eve"))
    for name, count in (("ann1", 4), ("bob2", 3)):
        for maker in owners(breaker.operations):
            for number in range(count):
                person = breaker.cast.people[name]
                payload = breaker.payload(maker, person, f"{person.marker}{number or ''}")
                breaker.make(maker, person, next(iter(maker.fields), "id"), payload)


def actor(breaker: Breaker, operation: Operation, name: str = "") -> Person:
    """Who sends to a route what it is for: a stranger has no use for a session, but has a name and a password."""
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
    """Attack with a payload that can be shrunk."""

    def build(smaller: Any) -> Sent:
        return breaker.compose(operation, person, smaller)

    return breaker.attack(operation, build(payload), expected, label, person, build, payload)
