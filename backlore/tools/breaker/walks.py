"""Lists that are walked page by page while others write: each item that exists throughout must come exactly once.

The items are made at the same time, so that many share a timestamp. The list is walked in three ways: undisturbed;
while the last item of each page is deleted before the next page is asked for; and while others come and go at any
moment.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from backlore.tools.breaker.breaker import Breaker, TimeOver
from backlore.tools.breaker.composer import id_of
from backlore.tools.breaker.document import Operation, owners
from backlore.tools.breaker.judge import ANY, Flaw
from backlore.tools.breaker.people import Person
from backlore.tools.breaker.wire import Got, Sent

LIMITS = ("limit", "size", "count", "per_page")
SKIPS = ("offset", "skip", "start")
REMOVES = ("delete", "remove", "erase", "trash", "destroy")
AT_ONCE = 12
STEADY = 24  # items that exist throughout; as many others come and go
MOST = 400  # pages
TO_DO = (
    "Page by a cursor that is unique and the index's own order, and ask for it after what was read, not for a place."
)


@dataclass
class List:
    """A list, and the routes that make and delete its items. `steady` and `loose` are ids."""

    operation: Operation
    limit: str
    cursor: str
    items: str  # the reply's key for the items
    id: str
    maker: Operation
    remover: Operation | None
    person: Person
    steady: set[Any] = field(default_factory=set)
    loose: list[Any] = field(default_factory=list)


def walks(breaker: Breaker) -> None:
    """All lists that have a limit, a cursor, and a route that makes their items."""
    for each in lists(breaker):
        fill(breaker, each)
        if len(each.steady) < STEADY // 2:
            continue
        walk(breaker, each, 1, "in peace", lambda page: None)
        walk(breaker, each, 3, "in peace", lambda page: None)
        if each.remover:
            walk(breaker, each, 3, "while items come and go between the pages", replacer(breaker, each))
            walk_in_a_crowd(breaker, each)


def lists(breaker: Breaker) -> Iterator[List]:
    """The lists that can be walked, from the document."""
    for maker in owners(breaker.operations):
        operation = breaker.operation("GET", maker.path)
        shape = (operation.replies[200].shape or {}) if operation and 200 in operation.replies else {}
        properties = shape.get("properties") or {}
        items = next((key for key, each in properties.items() if each.get("type") == "array"), "")
        name = breaker.name_of(maker)
        inner = (properties.get(items, {}).get("items") or {}).get("properties") or {}
        limit = next((part.name for part in operation.of("query") if part.name in LIMITS), "") if operation else ""
        cursor = (
            next((part.name for part in operation.of("query") if leads_on(part.name, properties)), "")
            if operation
            else ""
        )
        if operation and name in inner and limit and cursor:
            person = breaker.cast.new("walker")
            yield List(operation, limit, cursor, items, name, maker, remover_of(breaker, maker, name), person)


def leads_on(name: str, reply: dict[str, Any]) -> bool:
    """Whether a query parameter leads to the next page."""
    return name in reply or name in (*SKIPS, "page", "before", "after", "cursor")


def remover_of(breaker: Breaker, maker: Operation, name: str) -> Operation | None:
    """The route that deletes what `maker` makes, whose name is in the path or in the body."""
    for each in breaker.operations:
        if not each.is_own or not each.changes:
            continue
        last = each.path.rpartition("/")[2]
        is_below = f"{{{name}}}" in each.path and breaker.maker_of(each, name) is maker
        if is_below and (each.method == "DELETE" or last in REMOVES):
            return each
        if each.path in [f"{maker.path}/{word}" for word in REMOVES[:2]] and name in (each.body or {}).get(
            "properties", {}
        ):
            return each
    return None


def fill(breaker: Breaker, walked: List) -> None:
    """Make the items, many at once. Every other one stays."""
    for _ in range(2 * STEADY // AT_ONCE):
        payloads = [breaker.payload(walked.maker, walked.person) for _ in range(AT_ONCE)]
        replies = breaker.wire.send_at_once([breaker.compose(walked.maker, walked.person, each) for each in payloads])
        for number, (payload, got) in enumerate(zip(payloads, replies, strict=True)):
            id = id_of(walked.id, payload, got)
            if id is not None and number % 2:
                walked.steady.add(id)
            elif id is not None:
                walked.loose.append(id)


def walk(breaker: Breaker, walked: List, limit: int, how: str, between: Callable[[list[Any]], None]) -> None:
    """Walk from the first page to the last. `between` is called between two pages, with the ids of the earlier one."""
    seen: Counter[Any] = Counter()
    query: dict[str, Any] = {walked.limit: limit}
    for number in range(MOST):
        sent = breaker.compose(walked.operation, walked.person, query=query)
        got = breaker.attack(walked.operation, sent, ANY, f"walked {how}", walked.person)
        if got.status != 200 or not isinstance(got.body, dict):
            return
        ids = [each.get(walked.id) for each in got.body.get(walked.items, [])]
        seen.update(ids)
        further = next_of(walked, got.body, ids, number, limit)
        if further is None:
            break
        query[walked.cursor] = further
        between(ids)
    judge(breaker, walked, seen, how, sent, got)


def next_of(walked: List, body: dict[str, Any], ids: list[Any], number: int, limit: int) -> Any:
    """The cursor of the next page; None at the end."""
    if walked.cursor in body:
        return body[walked.cursor] or None
    if not (body["more"] if isinstance(body.get("more"), bool) else len(ids) == limit):
        return None
    if walked.cursor in SKIPS:
        return (number + 1) * limit
    if walked.cursor == "page":
        return number + 2
    return ids[-1] if ids else None


def judge(breaker: Breaker, walked: List, seen: Counter[Any], how: str, sent: Sent, got: Got) -> None:
    """Each steady item must have come once."""
    never = sum(seen[id] == 0 for id in walked.steady)
    again = sum(seen[id] > 1 for id in walked.steady)
    if never or again:
        why = f"Of {len(walked.steady)} items that are there all the time {never} never come and {again} come again, "
        why += f"walked page by page {how}. {TO_DO}"
        breaker.keep(str(walked.operation), Flaw("walk", why), f"walked {how}", sent, got)


def replacer(breaker: Breaker, walked: List) -> Callable[[list[Any]], None]:
    """A function that deletes a page's last item, if it may go, and another one, and makes a new one."""

    def replace(page: list[Any]) -> None:
        last = [id for id in page[-1:] if id in walked.loose]
        for id in (*last, *[each for each in walked.loose if each not in last][:1]):
            walked.loose.remove(id)
            breaker.wire.send(to_remove(breaker, walked, id), walked.person.address)
        make(breaker, walked)

    return replace


def make(breaker: Breaker, walked: List, address: str = "") -> None:
    payload = breaker.payload(walked.maker, walked.person)
    got = breaker.wire.send(breaker.compose(walked.maker, walked.person, payload), address or walked.person.address)
    id = id_of(walked.id, payload, got)
    if id is not None:
        walked.loose.append(id)


def to_remove(breaker: Breaker, walked: List, id: Any) -> Sent:
    assert walked.remover
    if walked.remover.of("path"):
        return breaker.compose(walked.remover, walked.person, path={walked.id: id})
    required = (walked.remover.body or {}).get("required", ())
    payload = {key: each for key, each in breaker.payload(walked.remover, walked.person).items() if key in required}
    return breaker.compose(walked.remover, walked.person, {**payload, walked.id: id})


def walk_in_a_crowd(breaker: Breaker, walked: List) -> None:
    """Walk again and again while items are deleted."""
    ended = threading.Event()
    sents = [to_remove(breaker, walked, id) for id in walked.loose]

    def come_and_go() -> None:
        address = breaker.wire.new_address()
        with contextlib.suppress(TimeOver):
            for sent in sents:
                if not ended.is_set():
                    breaker.wire.send(sent, address)

    thread = threading.Thread(target=come_and_go, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            walk(breaker, walked, 2, "while others are deleted", lambda page: None)
    finally:
        ended.set()
        thread.join()
