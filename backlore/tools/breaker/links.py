"""Links that need no session, since they carry a signature. A reset of their owner's password, or the disabling of the
account, must end them.
"""

from collections.abc import Iterator
from typing import Any

from backlore.tools.breaker.breaker import Breaker
from backlore.tools.breaker.document import Operation, owners
from backlore.tools.breaker.endings import ENDINGS, Ending
from backlore.tools.breaker.judge import Flaw
from backlore.tools.breaker.people import Person
from backlore.tools.breaker.wire import Sent

ENDED = ("POST /auth/reset", "POST /admin/users/{id}/disable")
TO_DO = "Let the signature depend on what a reset and a disabling change."


def links(breaker: Breaker) -> None:
    """Every link to what a user owns, before and after such an ending."""
    for ending in ENDINGS:
        if ending.route in ENDED and breaker.cast.can_sign_up:
            person = breaker.cast.new("links")
            for maker in owners(breaker.operations):
                breaker.make(maker, person, breaker.name_of(maker))
            found = [(each, link) for each in breaker.operations for link in links_of(breaker, each, person)]
            if found and ending.act(breaker, person):
                judge(breaker, person, found, ending)


def links_of(breaker: Breaker, operation: Operation, person: Person) -> Iterator[Sent]:
    """The links in a route's reply that show this person's data to anybody."""
    if not operation.is_own or operation.stage != "private" or not operation.body or operation.is_form:
        return
    made = breaker.wire.send(breaker.compose(operation, person, breaker.referring(operation, person)), person.address)
    for text in texts_in(made.body) if made.status == 200 else ():
        path = text.removeprefix(breaker.wire.url)
        link = Sent("GET", path)
        if path.startswith("/") and path.isascii() and path.isprintable() and " " not in path:
            got = breaker.wire.send(link, breaker.wire.new_address())
            if got.status == 200 and person.marker.encode() in got.raw:
                yield link


def judge(breaker: Breaker, person: Person, found: list[tuple[Operation, Sent]], ending: Ending) -> None:
    """None of the links may show the person's data now."""
    for operation, link in found:
        got = breaker.wire.send(link, breaker.wire.new_address())
        breaker.requests[str(operation)] += 1
        breaker.log.append(f"{breaker.phase} {operation} {ending.when}")
        if got.status == 200 and person.marker.encode() in got.raw:
            why = f"A link that it gave still shows what is {person.name}'s {ending.when}. {TO_DO}"
            breaker.keep(str(operation), Flaw("link", why), "a link, later", link, got)


def texts_in(value: Any) -> Iterator[str]:
    """All texts in a reply."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from texts_in(each)
