"""Values that fit a type: plain ones, and those at every bound.

Law: the same type and seed give the same values.
"""

from collections.abc import Iterator
from itertools import chain
from random import Random
from typing import Any
from uuid import UUID

from backlore.tools.breaker.document import MATCHED, NEVER, Schema, flaw, items_of
from backlore.tools.breaker.formats import format_of
from backlore.tools.breaker.patterns import match_of

# Texts that programs trip over. One that breaks a field's type is not sent there as valid.
TRAPS = (
    "\x00", "a\x00b", "e\u0301", "\u00e9", "\u212b", "\u1100\u1161", "\u202eabc", "a\u200bb", "\u00df", "\u0130",
    "\u0131",
    "\ufb00", "\U0001f600", "\U0001f3f3\ufe0f\u200d\U0001f308", "\u2028", "\u2029", "\ufeffa", "\U0010ffff", "\ufffe",
    "\ud7ff", "\x7f", "\x85", "\x1f", "\t", "\n", "a\r\nset-cookie:x=y", "%00", "%s%n", "\\", '"', "'",
    "'--", "`", "*", "?",
    "[a-z]*", "<script>x</script>", "<b>", "&amp;", "${1}", "{{1}}", "{0}", "{a}", "../a", "..", "/", "a:b", "a|b", ";",
    "#", "0", "-1", "1e9", "null", "None", "true", "NaN", "[]", "{}", "__proto__", "constructor", "\u0661", "\u00bd",
    "\u2603" * 10, "Z\u0351\u036b\u0343\u036a\u0302",
)  # fmt: skip
FEW_TRAPS = ("\x00", "e\u0301", "\u0130", "\U0001f600", "\\", "a\nb")
# Common forms of texts that must match a pattern.
SHAPES = (
    "a", "abc", "a1", "0", "123456", "a@example.com", "https://example.com/", "2026-01-31", "2026-01-31T12:00:00Z",
    "12:00:00", "00000000-0000-4000-8000-000000000000", "192.0.2.1", "#aabbcc", "+4930123456", "A", "AB1",
    "a-b", "a_b", "YQ==",
)  # fmt: skip
LONG = 200_000  # characters, where there is no bound
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


class NoValue(Exception):
    """No value was found that fits; the text says for what."""


def kinds_of(schema: Schema) -> list[Schema]:
    """All types that a value may have, except null and what is nested too deeply."""
    if "anyOf" in schema:
        return [inner for each in schema["anyOf"] for inner in kinds_of(each)]
    return [] if schema.get("type") == "null" or schema == NEVER else [schema]


def kind_of(schema: Schema) -> Schema:
    """The type itself, if the value may also be null; the first of several."""
    return next(iter(kinds_of(schema)), {"type": "null"})


def sample(schema: Schema, random: Random, marker: str = "", full: bool = True) -> Any:
    """A plain value that fits. Its texts begin with `marker` where their type allows that. `full`: with every optional
    key. Raises NoValue.
    """
    known = kind_of(schema)
    if "enum" in known or "const" in known:
        return known["const"] if "const" in known else random.choice(known["enum"])
    match known.get("type"):
        case "string":
            return text(known, marker or "abc", random)
        case "integer":
            step, low = known.get("multipleOf", 1), max(least(known), -1000)
            return random.randrange(-(-low // step) * step, max(low, min(most(known), low + 1000)) + 1, step)
        case "number":
            return _number(known)
        case "boolean":
            return random.random() < 0.5
        case "array":
            count = max(known.get("minItems", 0), min(2, known.get("maxItems", 2)))
            parts = items_of(known, 0 if known.get("items") == NEVER else count)
            return [sample(each, random, f"{marker}{n or ''}") for n, each in enumerate(parts)]
        case "object":
            return _object(known, random, marker, full)
        case "null":
            return None
    return marker or "anything"


def _object(known: Schema, random: Random, marker: str, full: bool) -> dict[str, Any]:
    required, more = known.get("required", ()), known.get("additionalProperties")
    made = {
        key: sample(each, random, marker, full)
        for key, each in known.get("properties", {}).items()
        if key in required or (full and each != NEVER)
    }
    if isinstance(more, dict) and more != NEVER:  # a dict: some types have numbers as keys
        made |= {str(number): sample(more, random, marker) for number in range(max(1, known.get("minProperties", 0)))}
    return made


def _number(known: Schema) -> float:
    low = known.get("minimum", known.get("exclusiveMinimum"))
    high = known.get("maximum", known.get("exclusiveMaximum"))
    if low is not None and high is not None:
        return float(low + (high - low) / 2)
    return float(low + 1.5 if low is not None else high - 1.5 if high is not None else 1.5)


def least(known: Schema) -> int:
    """The smallest whole number that fits."""
    return int(known.get("minimum", known.get("exclusiveMinimum", -(2**53) - 1) + 1))


def most(known: Schema) -> int:
    """The largest whole number that fits."""
    return int(known.get("maximum", known.get("exclusiveMaximum", 2**53 + 1) - 1))


def text(known: Schema, marker: str, random: Random) -> str:
    """A text that fits, with the marker if possible. Raises NoValue."""
    if known.get("format") == "uuid":
        return str(UUID(int=random.getrandbits(128), version=4))
    if form := format_of(known):
        return next((each for each in form.edges if not flaw(known, each)), "")
    low, high = known.get("minLength", 0), known.get("maxLength", 10_000)
    noise = "".join(random.choices(LETTERS, k=4))
    plain = (
        f"{marker}-{noise}",
        f"{marker}{noise}",
        f"{marker}@example.com",
        f"https://example.com/{marker}{noise}",
        marker,
    )
    for wish in chain(plain, SHAPES, _matches(known, f"{marker}{noise}", random)):
        fitted = (wish * (1 + low // len(wish)))[:high] if wish and not low <= len(wish) <= high else wish
        if not flaw(known, fitted):
            return fitted
    raise NoValue(f"no text is found that matches {known.get('pattern')}")


def _matches(known: Schema, marker: str, random: Random) -> Iterator[str]:
    """Texts that match the pattern, if there is one: first with the marker in them, then without."""
    if "pattern" not in known:
        return
    low = known.get("minLength", 0)
    found = []
    for more in (0, 1, 2, 4, 8, low, 24):
        base = match_of(known["pattern"], random, more)
        found.append(base)
        for start in (0, len(base) - len(marker), len(base)):
            if start >= 0:
                yield base[:start] + marker + base[start + len(marker) :]
    yield from found
    for more in range(1, 60):
        yield match_of(known["pattern"], random, more)


def edges(
    schema: Schema, random: Random, traps: tuple[str, ...] = TRAPS, whole: Any = None
) -> Iterator[tuple[str, Any]]:
    """Values that fit, at the type's bounds and with traps, each with its name. `whole` is an object that fits."""
    if "anyOf" in schema:
        if not flaw(schema, None):
            yield "null", None
        for each in kinds_of(schema):
            yield from edges(each, random, traps, whole)
        return
    known = schema
    found: Iterator[tuple[str, Any]] = iter(())
    match known.get("type"):
        case "string" if "enum" not in known:
            found = _edges_of_text(known, random, traps)
        case "integer":
            found = ((f"number {each}", each) for each in _numbers(known))
        case "number":
            found = ((f"number {each}", each) for each in (*_numbers(known), 0.1, -0.0, 5e-324, 1.7e308))
        case "boolean":
            found = iter((("true", True), ("false", False)))
        case "array":
            found = _edges_of_list(known, random, traps)
        case "object":
            found = _edges_of_object(known, random, traps, whole or sample(known, random))
    for each in known.get("enum", ()):
        yield f"choice {each}", each
    for name, value in found:
        is_judged = "pattern" not in known or len(value) < MATCHED
        if is_judged and not flaw(known, value):
            yield name, value


def _numbers(known: Schema) -> tuple[int, ...]:
    near = (least(known), least(known) + 1, most(known) - 1, most(known))
    return tuple(dict.fromkeys((*near, 0, 1, -1, 2**31, 2**53, 2**53 + 1, 2**63 - 1)))


def _edges_of_text(known: Schema, random: Random, traps: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if form := format_of(known):
        yield from ((each, each) for each in form.edges)
        return
    low, high = known.get("minLength", 0), known.get("maxLength", 1000)
    for more in (0, 1, 5) if "pattern" in known else ():
        yield "a match", match_of(known["pattern"], random, more)
    for fill in ("a", "\u00e9", "\U0001f600", "aA0."):
        yield f"{low} characters", (fill * low)[:low]
        yield f"{high} characters", (fill * high)[:high]
    base = text(known, "abc", random)
    yield f"{high} characters", base + "x" * (high - len(base))
    for trap in traps:
        for wish in (trap, f"{trap}{base}"[:high], f"{base[: high - len(trap) - 1]}{trap}z"):
            if not flaw(known, wish):
                yield f"trap {trap!r}", wish
                break


def _edges_of_list(known: Schema, random: Random, traps: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if "prefixItems" in known:
        whole = sample(known, random)
        for place, each in enumerate(known["prefixItems"]):
            for name, value in edges(each, random, traps):
                yield f"item {place} {name}", [*whole[:place], value, *whole[place + 1 :]]
        return
    items = known.get("items") or {}
    if items == NEVER:
        yield "0 items", []
        return
    for count in (known.get("minItems", 0), known.get("maxItems", 100)):
        yield f"{count} items", [sample(items, random, f"m{number}") for number in range(count)]
    for name, value in edges(items, random, traps):
        yield f"item {name}", [value] * max(1, known.get("minItems", 0))


def _edges_of_object(
    known: Schema, random: Random, traps: tuple[str, ...], whole: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    yield "all keys", whole
    yield "required keys only", {key: whole[key] for key in known.get("required", ())}
    for key, each in known.get("properties", {}).items():
        for name, value in edges(each, random, traps):
            yield f"{key}: {name}", {**whole, key: value}


def places(properties: dict[str, Schema], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Schema]]:
    """All fields of a type, including those of inner types."""
    for key, each in properties.items():
        known = kind_of(each)
        if known != NEVER:
            yield (*above, key), known
            yield from places(known.get("properties", {}), (*above, key))


def put(whole: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The payload with another value at one place."""
    first, *rest = path
    inner = whole.get(first)
    return {**whole, first: put(inner if isinstance(inner, dict) else {}, tuple(rest), value) if rest else value}
