"""Payloads that fit a route's type, and payloads that don't."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from backlore.tools.breaker.attacks import actor, send
from backlore.tools.breaker.breaker import Breaker
from backlore.tools.breaker.composer import id_of
from backlore.tools.breaker.document import Operation, flaw
from backlore.tools.breaker.faults import faults, slow_texts
from backlore.tools.breaker.formats import means_the_same
from backlore.tools.breaker.judge import ANY, INVALID, Flaw, valid
from backlore.tools.breaker.people import Person
from backlore.tools.breaker.values import FEW_TRAPS, LONG, TRAPS, edges, kind_of, places, put, sample
from backlore.tools.breaker.wire import Got

MEGABYTES = 3 << 20  # more than any JSON body may have by default
# Bodies that must be refused, each made from a valid one.
BODIES: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
    ("an empty body", lambda raw: b""),
    ("half a body", lambda raw: raw[: len(raw) // 2 or 1]),
    ("a body without its end", lambda raw: raw[:-1]),
    ("more behind the body", lambda raw: raw + b" x"),
    ("two bodies", lambda raw: raw + raw),
    ("a NUL behind the body", lambda raw: raw + b"\x00"),
    ("a byte order mark", lambda raw: b"\xef\xbb\xbf" + raw),
    ("UTF-16", lambda raw: raw.decode().encode("utf-16")),
    ("UTF-16 without its mark", lambda raw: raw.decode().encode("utf-16-le")),
    ("UTF-32", lambda raw: raw.decode().encode("utf-32")),
    ("invalid UTF-8", lambda raw: raw[:-1] + b',"\xff":1}'),
    ("overlong UTF-8", lambda raw: raw[:-1] + b',"\xc0\xaf":1}'),
    ("a surrogate in UTF-8", lambda raw: raw[:-1] + b',"\xed\xa0\x80":1}'),
    ("a lone surrogate, escaped", lambda raw: raw[:-1] + b',"\\ud800":1}'),
    ("a bare control character", lambda raw: raw[:-1] + b',"a\x01":1}'),
    ("a comma too many", lambda raw: raw[:-1] + b",}"),
    ("a comment", lambda raw: b"/* */" + raw),
    ("single quotes", lambda raw: raw.replace(b'"', b"'") if b'"' in raw else b"{'a':1}"),
    ("NaN", lambda raw: raw[:-1] + b',"n":NaN}'),
    ("Infinity", lambda raw: raw[:-1] + b',"n":-Infinity}'),
    ("1e400", lambda raw: raw[:-1] + b',"n":1e400}'),
    ("a number of 5,000 digits", lambda raw: raw[:-1] + b',"n":' + b"9" * 5000 + b"}"),
    ("100,000 arrays", lambda raw: b"[" * 100_000),
    ("100,000 objects", lambda raw: b'{"a":' * 100_000),
    ("deep, and closed", lambda raw: raw[:-1] + b',"n":' + b"[" * 3000 + b"]" * 3000 + b"}"),
    ("null", lambda raw: b"null"),
    ("true", lambda raw: b"true"),
    ("a number", lambda raw: b"3"),
    ("a text", lambda raw: b'"x"'),
    ("a list", lambda raw: b"[]"),
    ("the object in a list", lambda raw: b"[" + raw + b"]"),
    ("3 MB of spaces", lambda raw: b" " * MEGABYTES + raw),
    ("3 MB of text", lambda raw: raw[:-1] + b',"n":"' + b"x" * MEGABYTES + b'"}'),
)


def payloads_that_fit(breaker: Breaker) -> None:
    """Each field at its bounds, and with traps. What is stored must come back as it was sent."""
    tried: set[str] = set()
    for operation in breaker.operations:
        if operation.body is None or operation.is_form:
            continue
        person = actor(breaker, operation)
        expected = valid(operation)
        for name, part in operation.body.get("properties", {}).items():
            # the same type has the same code behind it: its traps are tried on one route
            known = json.dumps(part, sort_keys=True)
            traps = FEW_TRAPS if known in tried and not operation.is_own else TRAPS
            tried.add(known)
            for label, value in edges(part, breaker.random, traps):
                whole = breaker.payload(operation, person) | {name: value}
                payload = breaker.fill(whole, operation, person, name)
                got = send(breaker, operation, person, payload, expected, f"{name}: {label}")
                if got.status == 200 and operation.is_own:
                    comes_back(breaker, operation, person, payload, got, f"{name}: {label}")
        least = {key: breaker.payload(operation, person)[key] for key in operation.body.get("required", ())}
        send(breaker, operation, person, breaker.fill(least, operation, person), expected, "required keys only")


def payloads_that_break(breaker: Breaker) -> None:
    """Each field wrong in every way, and nested deeply; bodies that must be refused; a key twice."""
    for operation in breaker.operations:
        if not operation.changes or operation.is_raw:
            continue
        person = actor(breaker, operation)
        whole = breaker.payload(operation, person)
        if operation.is_form:
            wrong_forms(breaker, operation, person)
            continue
        schema = operation.body or {"type": "object", "properties": {}, "additionalProperties": False}
        for label, payload in faults(schema | {"additionalProperties": False}, breaker.random, whole):
            send(breaker, operation, person, payload, INVALID, label)
        for name, part in schema.get("properties", {}).items():
            if flaw(part, nested(2)):
                continue
            for levels in (200, 20_000):
                shown = json.dumps({**whole, name: "@deep"}).encode()
                deep = shown.replace(b'"@deep"', b'{"a":' * levels + b"1" + b"}" * levels)
                sent = replace(breaker.compose(operation, person, whole), body=deep)
                breaker.attack(operation, sent, INVALID, f"{name}: {levels:,} levels deep", person)
        raw = json.dumps(whole).encode() if whole else b'{"a":1}'
        first = next(iter(whole), "a")
        escaped = "".join(f"\\u{ord(letter):04x}" for letter in first)
        twice = (
            f'{raw.decode()[:-1]},"{key}":{json.dumps(whole.get(first, 1))}}}'.encode() for key in (first, escaped)
        )
        bodies = [(label, make(raw)) for label, make in BODIES]
        for label, body in [*bodies, *zip(("a key twice", "a key twice, escaped"), twice, strict=True)]:
            sent = replace(breaker.compose(operation, person, whole), body=body)
            breaker.attack(operation, sent, INVALID, label, person)


def wrong_forms(breaker: Breaker, operation: Operation, person: Person) -> None:
    """A multipart body that is right, and spoilt ones."""
    whole = breaker.payload(operation, person)
    sent = breaker.compose(operation, person, whole)
    breaker.attack(operation, sent, valid(operation), "a form", person)
    extra = breaker.compose(operation, person, {**whole, "extra": "x"})
    breaker.attack(operation, extra, INVALID, "an extra field", person)
    body = sent.body or b""
    for label, raw in (("half a form", body[: len(body) // 2]), ("an empty body", b""), ("no form", b"--x")):
        breaker.attack(operation, replace(sent, body=raw), INVALID, label, person)
    bare = replace(sent, headers={"content-type": "multipart/form-data"})
    breaker.attack(operation, bare, INVALID, "no boundary", person)


def slow_patterns(breaker: Breaker) -> None:
    """Texts that make a pattern backtrack, in bodies and queries."""
    for operation in breaker.operations:
        person = actor(breaker, operation, "ann" if operation.is_own else "")
        parts = (operation.body or {}).get("properties", {})
        for name, part in parts.items():
            known = kind_of(part)
            inner = known.get("items") if known.get("type") == "array" else None
            for value in slow_texts(inner or part):
                if any(kind == "hang" and route == str(operation) for route, kind in breaker.findings):
                    break
                payload = breaker.payload(operation, person) | {name: [value] if inner else value}
                breaker.attack(operation, breaker.compose(operation, person, payload), ANY, f"{name}: slow?", person)
        for parameter in operation.of("query"):
            for value in slow_texts(parameter.schema):
                if any(kind == "hang" and route == str(operation) for route, kind in breaker.findings):
                    break
                sent = breaker.compose(operation, person, query={parameter.name: value})
                breaker.attack(operation, sent, ANY, f"{parameter.name}: slow?", person)


def boundless(breaker: Breaker) -> None:
    """A very long text or list, where the type has no upper bound: anybody can fill a server that takes it."""
    for operation in breaker.operations:
        person = actor(breaker, operation)
        for path, known in places((operation.body or {}).get("properties", {})):
            bounded = {"maxLength", "enum", "const", "format", "contentEncoding"} & set(known)
            is_text = known.get("type") == "string" and not bounded
            is_list = known.get("type") == "array" and not {"maxItems", "prefixItems"} & set(known)
            if not (is_text or is_list):
                continue
            name, item = ".".join(path), sample(known.get("items") or {}, breaker.random) if is_list else ""
            payload = put(breaker.payload(operation, person), path, [item] * 20_000 if is_list else "x" * LONG)
            sent = breaker.compose(operation, person, payload)
            got = breaker.attack(operation, sent, ANY, f"{name}: no bound", person)
            if got.status == 200:
                why = f"{name} has no upper bound: {'20,000 items' if is_list else f'{LONG:,} characters'} were taken."
                breaker.keep(str(operation), Flaw("boundless", why), f"{name}: no bound", sent, got, INVALID)


def comes_back(breaker: Breaker, operation: Operation, person: Person, sent: Any, got: Got, label: str) -> None:
    """What was stored must be read as it was sent, by the route that reads what this one made or changed."""
    path = dict(breaker.path_values(operation, person))
    reader = breaker.operation("GET", operation.path) if path else None
    if reader is None:
        for other in breaker.operations:
            names = [each.name for each in other.of("path")]
            if other.method == "GET" and len(names) == 1 and breaker.maker_of(other, names[0]) is operation:
                reader, path = other, {names[0]: id_of(names[0], sent, got)}
    if reader is None:
        return
    question = breaker.compose(reader, person, path=path)
    shown = breaker.attack(reader, question, ANY, f"read again: {label}", person).body
    for key, value in sent.items() if isinstance(shown, dict) else ():
        if (
            key in shown
            and not means_the_same(kind_of((operation.body or {})["properties"].get(key, {})), value, shown[key])
            and not (isinstance(value, list) and len(set(map(str, value))) < len(value))
        ):
            why = f"{key} was sent as {json.dumps(value)[:80]} and comes back as {json.dumps(shown[key])[:80]}."
            breaker.keep(str(operation), Flaw("stored", why), label, breaker.compose(operation, person, sent), got)
            return


def nested(depth: int) -> Any:
    """Objects in objects, `depth` levels deep."""
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value
