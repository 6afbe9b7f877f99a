"""Bounds and defaults of a JSON schema in words."""

import json
from typing import Any

from backlore.core.payload import patterns

# Keys of JSON schema that bound a size: least, most, and what is counted.
SIZES = (
    ("minLength", "maxLength", "character"),
    ("minItems", "maxItems", "item"),
    ("minProperties", "maxProperties", "key"),
)
REACH = (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"), ("exclusiveMaximum", "below"))


def explain(schema: dict[str, Any]) -> str:
    """A value's bounds and default in words; "" for none."""
    some = [each for each in schema.get("anyOf", []) if each.get("type") != "null"]
    bounded = some[0] if len(some) == 1 else schema
    words = []
    if pattern := bounded.get("pattern"):
        words.append(patterns.get(repr(pattern), f"matching {pattern}"))
    if bounded.get("format") not in (None, "binary"):
        words.append(bounded["format"])
    if "prefixItems" not in bounded:
        words += [span(bounded.get(least, 0), bounded.get(most), noun) for least, most, noun in SIZES]
    words.append(" ".join(f"{word} {amount(bounded[key])}" for key, word in REACH if key in bounded))
    if isinstance(items := bounded.get("items"), dict) and (each := explain(items)):
        words.append(f"each {each}")
    if (default := schema.get("default")) not in (None, "", [], {}):
        words.append(f"by default {amount(default)}")
    return ", ".join(filter(None, words))


def span(least: int, most: int | None, noun: str) -> str:
    """Bounds of a size; "" for none."""
    nouns = f"{noun}{'' if (most or least) == 1 else 's'}"
    if most is None:
        return f"at least {amount(least)} {nouns}" if least else ""
    return f"{f'{amount(least)} to' if least else 'up to'} {amount(most)} {nouns}"


def amount(value: Any) -> str:
    """A number with its thousands apart, a large power of two as one; anything else as JSON."""
    if type(value) is int and value.bit_length() > 31 and value.bit_count() == 1:
        return f"2^{value.bit_length() - 1}"
    return f"{value:,}" if type(value) in (int, float) else json.dumps(value, ensure_ascii=False)
