"""Types of payloads in words: "a word without spaces, 1 to 30 characters"."""

import json
from typing import Any

from msgspec import inspect as types

from backlore.core.payload import Upload, patterns

PLAIN = {
    types.AnyType: "anything",
    types.NoneType: "null",
    types.BoolType: "true or false",
    types.DateTimeType: "a date and time",
    types.DateType: "a date",
    types.TimeType: "a time of day",
    types.UUIDType: "a UUID",
    types.DecimalType: "a decimal number",
}


def describe(shape: types.Type) -> str:
    """What a value of this type is, with its bounds."""
    if plain := PLAIN.get(type(shape)):
        return plain
    match shape:
        case types.StrType():
            bounds = span(shape.min_length, shape.max_length, "character")
            if shape.pattern is None:
                return bounds or "a string"
            what = patterns.get(repr(shape.pattern), f"matching {shape.pattern}")
            return f"{what}, {bounds}" if bounds else what
        case types.IntType():
            return f"a whole number{reach(shape)}"
        case types.FloatType():
            return f"a number{reach(shape)}"
        case types.CollectionType():
            return (
                f"a list of {span(shape.min_length, shape.max_length, 'item') or 'items'}: {describe(shape.item_type)}"
            )
        case types.DictType():
            bounds = span(shape.min_length, shape.max_length, "key")
            return f"an object of {bounds or 'any keys'}: {describe(shape.value_type)}"
        case types.TupleType():
            return f"a list: {', '.join(map(describe, shape.item_types))}"
        case types.StructType():
            return f"{{{', '.join(field.encode_name for field in shape.fields)}}}"
        case types.LiteralType():
            return one_of(list(shape.values))
        case types.EnumType():
            return one_of([each.value for each in shape.cls])
        case types.UnionType():
            return " or ".join(map(describe, shape.types))
        case types.Metadata():
            return describe(shape.type)
        case types.CustomType() if shape.cls is Upload:
            return "a file"
    return "a string"  # of some form that msgspec knows: a duration, base64


def span(least: int | None, most: int | None, noun: str) -> str:
    """Bounds of a length; "" for none."""
    nouns = f"{noun}{'' if (most or least) == 1 else 's'}"
    if least and most is not None:
        return f"{amount(least)}{'' if least == most else f' to {amount(most)}'} {nouns}"
    if most is not None:
        return f"up to {amount(most)} {nouns}"
    return f"at least {amount(least)} {nouns}" if least else ""


def reach(shape: types.IntType | types.FloatType) -> str:
    """Bounds of a number."""
    words = [
        f"{word} {amount(bound)}"
        for word, bound in (("from", shape.ge), ("above", shape.gt), ("to", shape.le), ("below", shape.lt))
        if bound is not None
    ]
    return "".join(f" {word}" for word in words)


def amount(number: float) -> str:
    """A number with its thousands apart; a large power of two as one."""
    if isinstance(number, int) and number.bit_length() > 31 and number.bit_count() == 1:
        return f"2^{number.bit_length() - 1}"
    return f"{number:,}"


def one_of(values: list[Any]) -> str:
    """A choice."""
    return " or ".join(json.dumps(value, ensure_ascii=False, default=str) for value in values)
