"""Describes types in words, from their JSON schema: "a word without spaces, 1 to 30 characters"."""

import json
from collections.abc import Mapping
from typing import Any

from backlore.core.payload import patterns

Schema = Mapping[str, Any]

PLAIN = {"null": "null", "boolean": "true or false", "string": "a string", "integer": "a whole number"}
FORMATS = {
    "binary": "a file",
    "date": "a date",
    "date-time": "a date and time",
    "decimal": "a decimal number",
    "duration": "a duration",
    "time": "a time of day",
    "uuid": "a UUID",
}
REACH = (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"), ("exclusiveMaximum", "below"))
SIZES = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
BOUNDS = frozenset({"pattern", "format", *SIZES, *(name for name, _ in REACH)})


def describe(schema: Schema, types: Mapping[str, Schema] | None = None) -> str:
    """What a value of this type is, with its bounds, in words. `types`: the schemas that it refers to, by name."""
    if "$ref" in schema:
        return describe((types or {}).get(schema["$ref"].rpartition("/")[2], {"type": "object"}), types)
    if "anyOf" in schema:
        return " or ".join(describe(each, types) for each in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " or ".join(amount(each) for each in schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "string":
            return describe_text(schema)
        case "integer" | "number" as kind:
            bounds = "".join(f" {word} {amount(schema[key])}" for key, word in REACH if key in schema)
            return f"{'a whole number' if kind == 'integer' else 'a number'}{bounds}"
        case "array" if "prefixItems" in schema:
            return f"a list: {', '.join(describe(each, types) for each in schema['prefixItems'])}"
        case "array":
            bounds = span(schema.get("minItems"), schema.get("maxItems"), "item") or "items"
            return f"a list of {bounds}: {describe(schema.get('items') or {}, types)}"
        case "object" if isinstance(each := schema.get("additionalProperties"), dict):
            bounds = span(schema.get("minProperties"), schema.get("maxProperties"), "key") or "any keys"
            return f"an object of {bounds}: {describe(each, types)}"
        case "object" if "properties" not in schema:
            bounds = span(schema.get("minProperties"), schema.get("maxProperties"), "key")
            return f"an object of {bounds}" if bounds else "an object"
        case "object":
            return f"{{{', '.join(schema['properties'])}}}"
        case None:
            return "anything"
    return PLAIN[schema["type"]]


def has_bounds(schema: Schema) -> bool:
    """Whether the description says more than the type's name."""
    items = schema.get("items")
    inner = [*schema.get("anyOf", ()), *([items] if isinstance(items, dict) else [])]
    return not BOUNDS.isdisjoint(schema) or any(map(has_bounds, inner))


def describe_text(schema: Schema) -> str:
    """Like `describe`, for a string."""
    bounds = span(schema.get("minLength"), schema.get("maxLength"), "character")
    what = FORMATS.get(schema.get("format", ""), "")
    if pattern := schema.get("pattern"):
        what = patterns.get(repr(pattern), f"matching {pattern}")
    return ", ".join(filter(None, (what, bounds))) or PLAIN["string"]


def span(least: int | None, most: int | None, noun: str) -> str:
    """The bounds of a length in words; "" for none."""
    nouns = f"{noun}{'' if (most or least) == 1 else 's'}"
    if least and most is not None:
        return f"{amount(least)}{'' if least == most else f' to {amount(most)}'} {nouns}"
    if most is not None:
        return f"up to {amount(most)} {nouns}"
    return f"at least {amount(least)} {nouns}" if least else ""


def amount(value: Any) -> str:
    """A number with commas between thousands, a large power of two as 2^N; anything else as JSON."""
    if type(value) is int and value.bit_length() > 31 and value.bit_count() == 1:
        return f"2^{value.bit_length() - 1}"
    return f"{value:,}" if type(value) in (int, float) else json.dumps(value, ensure_ascii=False, default=str)
