"""Many requests at once, and one after another: things are made, changed and used up while others do the same; what one
user can see and do with what another made; memory that grows.

Changes at the same time must leave what some order of them would have left. To test this, a twin, another user, makes
the same changes one by one, the winner last. Both must then see the same.
"""

import itertools
import json
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backlore.tools.breaker.breaker import Breaker
from backlore.tools.breaker.document import Operation, owners
from backlore.tools.breaker.judge import ANY, Flaw, valid
from backlore.tools.breaker.people import Person
from backlore.tools.breaker.wire import Got, Sent
from backlore.tools.testing.server import descendants

AT_ONCE = 20
ROUNDS = 3
MOMENT = 10**9  # numbers above this are times
ROUND = 400  # requests between two looks at the memory
GROWTH = 1_500_000  # bytes in a round: more than noise


def observe(breaker: Breaker, person: Person) -> str:
    """All that a user sees on the application's own routes. What differs between any two users is masked."""
    seen = []
    for operation in breaker.operations:
        if operation.is_own and operation.method == "GET" and operation.has_session:
            names = [each.name for each in operation.of("path")]
            if not names:
                seen.append(_body(breaker, operation, person, {}))
            elif maker := breaker.maker_of(operation, names[0]):
                seen += [_body(breaker, operation, person, {names[0]: id}) for id in person.made[maker.path]]
    return json.dumps([mask(each, person) for each in seen], sort_keys=True)


def _body(breaker: Breaker, operation: Operation, person: Person, path: dict[str, Any]) -> Any:
    query = {each.name: each.schema["maximum"] for each in operation.of("query") if each.name == "limit"}
    got = breaker.wire.send(breaker.compose(operation, person, path=path, query=query), person.address)
    return got.body


def mask(value: Any, person: Person) -> Any:
    """A reply with its times, ids and addresses replaced."""
    if isinstance(value, dict):
        return {key: mask(each, person) for key, each in value.items()}
    if isinstance(value, list):
        return [mask(each, person) for each in value]
    ids = [id for known in person.made.values() for id in known]
    if value in ids and not isinstance(value, bool):
        return f"id {ids.index(value)}"
    if isinstance(value, int | float) and value > MOMENT:
        return "time"
    return "address" if value == person.email else value


def foreign(breaker: Breaker) -> None:
    """Bob asks for what ann made, and tries to change it: he may see nothing of it, and nothing of it may change."""
    ann, bob = breaker.cast.people["ann1"], breaker.cast.people["bob2"]
    before = observe(breaker, ann)
    known = {"id": breaker.cast.ask(ann, "/auth/sessions").body}
    for operation in breaker.operations:
        if not operation.has_session:
            continue
        names = [each.name for each in operation.of("path")]
        maker = breaker.maker_of(operation, names[0]) if names else None
        sents = [breaker.compose(operation, bob, path={names[0]: id}) for id in ann.made[maker.path]] if maker else []
        if not names and operation.method == "GET":
            query = {each.name: each.schema.get("maximum") for each in operation.of("query") if each.name == "limit"}
            sents.append(breaker.compose(operation, bob, query=query))
        if (names and operation.stage == "admin") or "id" in (operation.body or {}).get("properties", {}):
            sents += _with_ids(breaker, operation, bob, ann, known)
        for sent in sents:
            got = breaker.attack(operation, sent, ANY, "what another user made", bob)
            if not operation.changes:
                continue
            after = observe(breaker, ann)
            if after != before or breaker.cast.ask(ann, "/auth/csrf").status != 200:
                why = "bob's request changed what is ann's."
                breaker.keep(str(operation), Flaw("changed", why), "what another user made", sent, got)
                breaker.cast.revive(ann)
                before = observe(breaker, ann)


def _with_ids(breaker: Breaker, operation: Operation, bob: Person, ann: Person, known: Any) -> list[Sent]:
    if operation.of("path"):
        return [breaker.compose(operation, bob, path={"id": ann.id})]
    sessions = (known["id"] or {}).get("sessions", [])
    payload = breaker.payload(operation, bob)
    ids = [each["id"] for each in sessions]
    plain = {key: each for key, each in payload.items() if key != "others"}
    return [breaker.compose(operation, bob, {**plain, "id": id}) for id in ids]


def pages(breaker: Breaker) -> None:
    """A list is never longer than its limit."""
    for operation in breaker.operations:
        limits = [each for each in operation.of("query") if each.name in ("limit", "size", "count", "per_page")]
        if operation.method != "GET" or not limits:
            continue
        people = breaker.cast.people
        person = people["eve3"] if operation.stage == "admin" and people["eve3"].is_admin else people["ann1"]
        for limit in (1, 2, 3):
            sent = breaker.compose(operation, person, query={limits[0].name: limit})
            got = breaker.attack(operation, sent, valid(operation), f"{limits[0].name}={limit}", person)
            lists = [each for each in (got.body or {}).values() if isinstance(each, list)]
            if any(len(each) > limit for each in lists):
                why = f"{max(map(len, lists))} items with {limits[0].name}={limit}."
                breaker.keep(str(operation), Flaw("limit", why), f"{limits[0].name}={limit}", sent, got)


def made_at_once(breaker: Breaker) -> None:
    """Make the same thing twenty times at once: there must be twenty ids, and each must be found."""
    for maker in owners(breaker.operations):
        person = breaker.cast.new("crowd")
        sent = breaker.compose(maker, person)
        replies = together(breaker, maker, [sent] * AT_ONCE, person, "made 20 times at once")
        names = [
            name for name, place in maker.fields.items() if name == place and names_something(breaker, maker, name)
        ]
        if set(names) & set((maker.body or {}).get("properties", {})):
            continue  # the sender chooses the name: twenty requests with one name may make one thing
        for name in names:
            ids = [each.body[name] for each in replies if each.status == 200 and isinstance(each.body, dict)]
            if len(set(map(str, ids))) < len(ids):
                why = f"{len(ids)} made at once have {len(set(map(str, ids)))} different {name}s."
                breaker.keep(str(maker), Flaw("lost", why), "made 20 times at once", sent, replies[0])
            for reader in breaker.operations:
                if (reader.method, [part.name for part in reader.of("path")]) != ("GET", [name]):
                    continue
                for id in ids if breaker.maker_of(reader, name) is maker else ():
                    one = breaker.compose(reader, person, path={name: id})
                    got = breaker.attack(reader, one, ANY, "made at once", person)
                    if got.status != 200:
                        why = f"{name} {id} was given, and is {got.status} {got.error} afterwards."
                        breaker.keep(str(maker), Flaw("lost", why), "made 20 times at once", sent, got)


def names_something(breaker: Breaker, maker: Operation, name: str) -> bool:
    """Whether a key of a reply names what was made: it is `id`, or a path takes it."""
    return name == "id" or any(
        each.name == name and breaker.maker_of(operation, name) is maker
        for operation in breaker.operations
        for each in operation.of("path")
    )


def changed_at_once(breaker: Breaker) -> None:
    """Change one thing in ten ways at once, and use one up at once: the outcome must be that of one by one."""
    for maker in owners(breaker.operations):
        for name in dict.fromkeys([*maker.fields, *(maker.body or {}).get("properties", {})]):
            changers = [
                each
                for each in breaker.operations
                if each.changes and each.is_own and breaker.maker_of(each, name) is maker and len(each.of("path")) == 1
            ]
            for operation in changers:
                pair = breaker.cast.new("crowd"), breaker.cast.new("twin")  # they stay alike after each round
                for number in range(ROUNDS):
                    if not operation.body:
                        _use_up(breaker, maker, operation, name, pair[0])
                    elif not _race(breaker, maker, operation, name, number, pair):
                        break


def _race(
    breaker: Breaker, maker: Operation, operation: Operation, name: str, number: int, pair: tuple[Person, Person]
) -> bool:
    """One round. Returns whether the two are alike after it."""
    label = "changed in 10 ways at once"
    one, two = pair
    first = breaker.payload(maker, one, "first")
    ids = [breaker.make(maker, each, name, first) for each in (one, two)]
    payloads = [breaker.payload(operation, one, f"m{number}{letter}") for letter in "abcdefghij"]
    sents = [breaker.compose(operation, one, payload, path={name: ids[0]}) for payload in payloads]
    replies = together(breaker, operation, sents, one, label)
    reader = breaker.operation("GET", operation.path)
    if reader is None or any(each.status != 200 for each in replies):
        return False
    got = breaker.wire.send(breaker.compose(reader, one, path={name: ids[0]}), one.address)
    if not isinstance(got.body, dict):  # a file: it doesn't show which change won
        return False
    winners = [each for each in payloads if all(got.body.get(key, value) == value for key, value in each.items())]
    if not winners:
        breaker.keep(str(operation), Flaw("lost", "What is left is none of ten changes at once."), label, sents[0], got)
        return False
    for payload in [each for each in payloads if each is not winners[0]] + winners[:1]:
        breaker.wire.send(breaker.compose(operation, two, payload, path={name: ids[1]}), two.address)
    if observe(breaker, one) == observe(breaker, two):
        return True
    why = "Ten changes at once leave what no order of them leaves."
    breaker.keep(str(operation), Flaw("lost", why), label, sents[0], got)
    return False


def _use_up(breaker: Breaker, maker: Operation, operation: Operation, name: str, person: Person) -> None:
    """What works only once must work only once under simultaneous requests, too."""
    label = "used 20 times at once"
    id = breaker.make(maker, person, name, breaker.payload(maker, person))
    sent = breaker.compose(operation, person, path={name: id})
    serial = [breaker.wire.send(sent, person.address).status for _ in range(2)]
    if serial[0] != 200 or serial[1] == 200:
        return
    id = breaker.make(maker, person, name, breaker.payload(maker, person))
    sent = breaker.compose(operation, person, path={name: id})
    replies = together(breaker, operation, [sent] * AT_ONCE, person, label)
    good = sum(each.status == 200 for each in replies)
    if good != 1:
        breaker.keep(str(operation), Flaw("lost", f"It works once, but {good} times at once."), label, sent, replies[0])


def together(
    breaker: Breaker, operation: Operation, sents: Sequence[Sent], person: Person | None, label: str
) -> list[Got]:
    """Send requests at the same time. Each reply is judged."""
    breaker.requests[str(operation)] += len(sents)
    breaker.log.append(f"{breaker.phase} {operation} {label}")
    breaker.on_progress(str(operation))
    replies = breaker.wire.send_at_once(sents)
    for sent, got in zip(sents, replies, strict=True):
        for each in [*breaker.flaws(operation, sent, got), *breaker.leaks(sent, got, person)]:
            breaker.keep(str(operation), each, label, sent, got)
    return replies


def memory(breaker: Breaker, server: int) -> None:
    """Send the same requests over and over: the memory of the processes below `server` (a process id) must not grow."""
    readers = [each for each in breaker.operations if each.method == "GET"]
    makers = list(owners(breaker.operations))
    for operation in readers + makers:
        person = breaker.cast.people["eve3" if operation.stage == "admin" else "bob2"]
        sent = breaker.compose(operation, person)
        for _ in range(30 if breaker.judge.usual(str(operation)) < 0.05 else 0):
            breaker.attack(operation, sent, ANY, "over and over", person)
    sizes = []
    whole = [each for each in readers + makers if breaker.judge.usual(str(each)) < 0.05]
    for _ in range(5):
        for number in range(ROUND):
            operation = whole[number % len(whole)]
            person = breaker.cast.people["eve3" if operation.stage == "admin" else "bob2"]
            breaker.attack(operation, breaker.compose(operation, person), ANY, "over and over", person)
        sizes.append(resident(server))
    steps = [after - before for before, after in itertools.pairwise(sizes)]
    if min(steps[1:]) > GROWTH:
        why = f"The workers grow by {sum(steps) / len(steps) / ROUND / 1000:.0f} kB a request, without an end."
        sent = breaker.compose(whole[0], breaker.cast.people["bob2"])
        breaker.keep("all routes", Flaw("memory", why), "over and over", sent, Got(200, {}, b"", 0))


def resident(server: int) -> int:
    """Resident bytes of the processes below one, except the engine, which keeps what it is given; 0 without /proc."""
    size = 0
    for process in descendants(server):
        try:
            words = Path(f"/proc/{process}/cmdline").read_bytes()
            held = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        except OSError:
            continue  # it has just ended
        size += 0 if b"-server" in words.partition(b"\0")[0] else held * resource.getpagesize()
    return size
