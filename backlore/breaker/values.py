"""Values from types: those that fit, at every bound, and those that don't, by one or altogether.

Laws: everything here is the same for the same type and seed; what should not fit is compared with the type before it
is called a fault, so that nothing valid is called invalid.
"""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

from backlore.breaker.document import MATCHED, Operation, Schema, flaw

Place = tuple[str | int, ...]  # in a payload

# Texts that programs trip over. What breaks a field's type is not sent there as valid.
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
# What is sent as a file, with a text behind it: a PNG of one pixel.
PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010100000000376ef9240000000a49444154789c636000000002000148afa471"
    "0000000049454e44ae426082"
)
FEW_TRAPS = ("\x00", "e\u0301", "\u0130", "\U0001f600", "\\", "a\nb")
STRANGE_KEYS = ("extra", "admin", "__proto__", "constructor", "", "\x00", "user", "owner", "role", "is_admin")
WRONG: dict[str, tuple[Any, ...]] = {
    "string": (1, 1.5, True, None, [], {}, ["a"], {"a": "b"}),
    "integer": ("1", "", 1.5, True, None, [], {}, [1], 2**63, 2**64, -(2**63) - 1, 1e300),
    "number": ("1", "", True, None, [], {}, [1]),
    "boolean": (0, 1, "true", "", None, [], {}),
    "array": ("a", 1, None, {}, {"0": "a"}, True),
    "object": ("a", 1, None, [], True, [["a", 1]]),
}
# What a text that has to match a pattern often looks like.
SHAPES = (
    "a", "abc", "a1", "0", "123456", "a@example.com", "https://example.com/", "2026-01-31", "2026-01-31T12:00:00Z",
    "12:00:00", "00000000-0000-4000-8000-000000000000", "192.0.2.1", "#aabbcc", "+4930123456", "A", "AB1",
    "a-b", "a_b", "YQ==",
)  # fmt: skip
FORMATS = {
    "date-time": "2026-01-31T12:00:00Z",
    "date": "2026-01-31",
    "time": "12:00:00Z",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "duration": "PT1H",
    "decimal": "1.5",
}
LONG = 200_000  # characters, where no bound is


def kind_of(schema: Schema) -> Schema:
    """The type itself, of one that may also be null."""
    for each in schema.get("anyOf", ()):
        if each.get("type") != "null":
            return kind_of(each)
    return schema


def sample(schema: Schema, random: Random, marker: str = "", full: bool = True) -> Any:
    """A plain value that fits; its texts begin with `marker` where their type lets them. `full`: with all that may be
    left out."""
    known = kind_of(schema)
    if "enum" in known or "const" in known:
        return known["const"] if "const" in known else random.choice(known["enum"])
    match known.get("type"):
        case "string":
            return text(known, marker or "abc", random)
        case "integer":
            return random.randint(max(least(known), -1000), min(most(known), max(least(known), -1000) + 1000))
        case "number":
            return float(max(known.get("minimum", 1.5), known.get("exclusiveMinimum", 0) + 0.5))
        case "boolean":
            return random.random() < 0.5
        case "array":
            count = max(known.get("minItems", 0), min(2, known.get("maxItems", 2)))
            return [sample(known.get("items") or {}, random, f"{marker}{n or ''}") for n in range(count)]
        case "object":
            required = known.get("required", ())
            return {
                key: sample(each, random, marker, full)
                for key, each in known.get("properties", {}).items()
                if full or key in required
            }
        case "null":
            return None
    return marker or "anything"


def least(known: Schema) -> int:
    """The smallest whole number that fits."""
    return int(known.get("minimum", known.get("exclusiveMinimum", -(2**53) - 1) + 1))


def most(known: Schema) -> int:
    """The largest whole number that fits."""
    return int(known.get("maximum", known.get("exclusiveMaximum", 2**53 + 1) - 1))


def text(known: Schema, marker: str, random: Random) -> str:
    """A text that fits, with the marker if it can be. Raises ValueError when none is found for the pattern."""
    low, high = known.get("minLength", 0), known.get("maxLength", 10_000)
    if known.get("format") in FORMATS:
        return FORMATS[known["format"]]
    noise = "".join(random.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=4))
    for wish in (f"{marker}-{noise}", f"{marker}{noise}", f"{marker}@example.com", marker, *SHAPES):
        fitted = (wish * (1 + low // len(wish)))[:high] if len(wish) < low or len(wish) > high else wish
        if not flaw(known, fitted):
            return fitted
    raise ValueError(f"no text is known that matches {known.get('pattern')}")


def edges(
    schema: Schema, random: Random, traps: tuple[str, ...] = TRAPS, whole: Any = None
) -> Iterator[tuple[str, Any]]:
    """Values that fit, at the bounds of the type and with traps; each with its name. `whole` is an object that fits."""
    known = kind_of(schema)
    if known is not schema and not flaw(schema, None):
        yield "null", None
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
    low, high = known.get("minLength", 0), known.get("maxLength", 1000)
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
    items = known.get("items") or {}
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


def faults(schema: Schema, random: Random, whole: Any = None) -> Iterator[tuple[str, Any]]:
    """Values that don't fit; each with its name. `whole` is an object that fits, to be spoilt."""
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
    if "pattern" in known:
        for wish in (*TRAPS, " ", f" {base}", f"{base} ", f"{base}\n", f"{base}\u200b", f"{base},", f"{base}!"):
            yield f"pattern broken by {wish!r}", wish


def slow_texts(schema: Schema) -> Iterator[str]:
    """Texts on which a pattern that goes back and forth takes for ever: they nearly match, as long as may be.

    They are compared with nothing here: that would take as long.
    """
    known = kind_of(schema)
    high = min(known.get("maxLength", 5000), 5000)
    for unit in ("a", "0", "a.", "a@a.", "-", "\u00e9") if "pattern" in known else ():
        for end in ("!", " ", "@", "\x00"):
            yield (unit * high)[: high - 1] + end


def _faults_of_list(known: Schema, random: Random) -> Iterator[tuple[str, Any]]:
    items = known.get("items") or {}
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


def to_form(payload: Any, operation: Operation) -> tuple[bytes, dict[str, str]]:
    """A multipart body of a payload, files as files: small pictures, which suit also whoever takes nothing else."""
    boundary = "backlore-breaker"
    shapes = (operation.body or {}).get("properties", {})
    body = b""
    for key, value in payload.items() if isinstance(payload, dict) else ():
        shape = kind_of(shapes.get(key, {}))
        is_file = "binary" in (shape.get("format"), shape.get("items", {}).get("format"))
        name = '; filename="a.png"' if is_file else ""
        for each in value if isinstance(value, list) else [value]:
            shown = (each if isinstance(each, str) else json.dumps(each)).encode("utf-8", "surrogatepass")
            head = f'--{boundary}\r\ncontent-disposition: form-data; name="{key}"{name}\r\n\r\n'
            body += head.encode("utf-8", "surrogatepass") + (PICTURE if is_file else b"") + shown + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), {"content-type": f"multipart/form-data; boundary={boundary}"}
