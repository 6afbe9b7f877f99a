"""Values that break a type: by one step beyond a bound, or altogether.

Law: every value is compared with the type before it is called a fault, so that nothing valid is called invalid.
"""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

from backlore.tools.breaker.document import NEVER, Schema, flaw
from backlore.tools.breaker.formats import format_of
from backlore.tools.breaker.values import LONG, TRAPS, kind_of, sample, text

STRANGE_KEYS = ("extra", "admin", "__proto__", "constructor", "", "\x00", "user", "owner", "role", "is_admin")
WRONG: dict[str, tuple[Any, ...]] = {
    "string": (1, 1.5, True, None, [], {}, ["a"], {"a": "b"}),
    "integer": ("1", "", 1.5, True, None, [], {}, [1], 2**63, 2**64, -(2**63) - 1, 1e300),
    "number": ("1", "", True, None, [], {}, [1]),
    "boolean": (0, 1, "true", "", None, [], {}),
    "array": ("a", 1, None, {}, {"0": "a"}, True),
    "object": ("a", 1, None, [], True, [["a", 1]]),
}


def faults(schema: Schema, random: Random, whole: Any = None) -> Iterator[tuple[str, Any]]:
    """Values that don't fit, each with its name. `whole` is an object that fits, to be spoilt."""
    for name, value in _faults(schema, random, whole):
        if flaw(schema, value):
            yield name, value


def _faults(schema: Schema, random: Random, whole: Any) -> Iterator[tuple[str, Any]]:
    known = kind_of(schema)
    kind = known.get("type", "")
    for value in WRONG.get(kind, ()):
        yield f"{json.dumps(value)} for {kind}", value
    if "enum" in known:
        for value in known["enum"]:
            yield "another choice", f"{value}x"
            yield "a choice in another case", str(value).swapcase()
        return
    match kind:
        case "string":
            yield from _faults_of_text(known, random)
        case "integer" | "number":
            for value in (known.get("minimum", 0) - 1, known.get("maximum", 0) + 1):
                yield f"{value}: out of bounds by one", value
            for bound in ("exclusiveMinimum", "exclusiveMaximum"):
                if bound in known:
                    yield f"{known[bound]}: its bound is not within", known[bound]
        case "array":
            yield from _faults_of_list(known, random)
        case "object":
            yield from _faults_of_object(known, random, whole or sample(known, random))


def _faults_of_text(known: Schema, random: Random) -> Iterator[tuple[str, Any]]:
    low, high = known.get("minLength", 0), known.get("maxLength")
    base = text(known, "abc", random)
    if low:
        yield f"{low - 1} characters", base[: low - 1]
    if high is not None:
        yield f"{high + 1} characters", (base * (1 + high // len(base)))[: high + 1]
        yield f"{high + 1} characters", (base + "x" * high)[: high + 1]
        yield f"{50 * high} characters", "x" * min(50 * high, LONG)
    if form := format_of(known):
        yield from ((f"no {known.get('format', 'base64')}: {each!r}", each) for each in form.faults)
    if "pattern" in known:
        for wish in (*TRAPS, " ", f" {base}", f"{base} ", f"{base}\n", f"{base}\u200b", f"{base},", f"{base}!"):
            yield f"pattern broken by {wish!r}", wish


def slow_texts(schema: Schema) -> Iterator[str]:
    """Texts on which a backtracking pattern takes forever: they nearly match, and are as long as allowed.

    They are not compared with the pattern here: that would take as long.
    """
    known = kind_of(schema)
    high = min(known.get("maxLength", 5000), 5000)
    for unit in ("a", "0", "a.", "a@a.", "-", "\u00e9") if "pattern" in known else ():
        for end in ("!", " ", "@", "\x00"):
            yield (unit * high)[: high - 1] + end


def _faults_of_list(known: Schema, random: Random) -> Iterator[tuple[str, Any]]:
    if "prefixItems" in known:
        whole = sample(known, random)
        for place, each in enumerate(known["prefixItems"]):
            for name, value in faults(each, random):
                yield f"item {place}: {name}", [*whole[:place], value, *whole[place + 1 :]]
        yield "one item too few", whole[:-1]
        yield "one item too many", [*whole, whole[-1]]
        return
    items = known.get("items") or {}
    if items == NEVER:
        return
    low, high = known.get("minItems", 0), known.get("maxItems")
    if low:
        yield f"{low - 1} items", [sample(items, random) for _ in range(low - 1)]
    if high is not None:
        yield f"{high + 1} items", [sample(items, random, f"m{number}") for number in range(high + 1)]
    good = sample(items, random)
    for name, value in faults(items, random):
        yield f"item 0: {name}", [value]
        if (high or 2) > 1:
            yield f"item 1: {name}", [good, value]


def _faults_of_object(known: Schema, random: Random, whole: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key in known.get("required", ()):
        yield f"{key} missing", {name: value for name, value in whole.items() if name != key}
    for key in STRANGE_KEYS:
        if key not in known.get("properties", {}):
            yield f"extra key {key!r}", {**whole, key: True}
    for key, each in known.get("properties", {}).items():
        for name, value in faults(each, random):
            yield f"{key}: {name}", {**whole, key: value}
