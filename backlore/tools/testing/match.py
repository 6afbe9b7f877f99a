"""Compares what came with what was expected, and lists every place where they differ.

    find({"id": int, "tags": ["a", ...]}, {"id": "7", "tags": ["b"]}, "body")
    ["body.id: expected int, got '7'", "body.tags[0]: expected 'a', got 'b'"]

Laws: true is not a number. 1 and 1.0 are the same number. `float` is any number, since JSON has only one kind.
"""

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any

TYPES = {str, int, float, bool, dict, list, bytes, NoneType}
SHOWN = 200  # characters of a value


def check_expected(expected: Any, where: str) -> None:
    """Raises TypeError if `expected` has a part that nothing in a reply could match."""
    if isinstance(expected, Mapping):
        if expected.get(..., ...) is not ...:
            raise TypeError(f"{where}: in a dict `...` stands as `...: ...`")
        for key, value in expected.items():
            if key is not ... and not isinstance(key, str):
                raise TypeError(f"{where}: {key!r} is no key of JSON")
            check_expected(value, f"{where}.{key}")
    elif isinstance(expected, list | tuple):
        for number, value in enumerate(expected):
            check_expected(value, f"{where}[{number}]")
    elif isinstance(expected, type | UnionType):
        if not set(kinds_of(expected)) <= TYPES:
            raise TypeError(f"{where}: no value that comes is {name_of(expected)}")
    elif not (expected in (None, ...) or isinstance(expected, str | int | float | bytes) or callable(expected)):
        raise TypeError(f"{where}: {expected!r} can't be compared with what comes")


def find(expected: Any, got: Any, where: str) -> list[str]:
    """The differences, one line each, which begins with the place; empty when `got` fits."""
    if expected is ...:
        return []
    if isinstance(expected, type | UnionType):
        fits = any(is_of(got, kind) for kind in kinds_of(expected))
    elif isinstance(expected, Mapping):
        if isinstance(got, dict):
            return find_in_dict(expected, got, where)
        fits = False
    elif isinstance(expected, list | tuple):
        if isinstance(got, list):
            return find_in_list(expected, got, where)
        fits = False
    elif callable(expected):
        return find_by_function(expected, got, where)
    else:
        fits = is_same(expected, got)
    return [] if fits else [f"{where}: expected {show(expected)}, got {show(got)}"]


def find_in_dict(expected: Mapping[Any, Any], got: dict[str, Any], where: str) -> list[str]:
    """The differences between two dicts; `...: ...` allows keys that are not expected."""
    found = []
    for key, value in expected.items():
        if key is ...:
            continue
        if key in got:
            found += find(value, got[key], f"{where}.{key}")
        else:
            found.append(f"{where}.{key}: missing, expected {show(value)}")
    if ... not in expected:
        found += [f"{where}.{key}: unknown, got {show(got[key])}" for key in got if key not in expected]
    return found


def find_in_list(expected: Any, got: list[Any], where: str) -> list[str]:
    """The differences between two lists. A `...` at the end allows more items; elsewhere it allows any one item."""
    more = bool(expected) and expected[-1] is ...
    wanted = expected[:-1] if more else expected
    found = []
    for number, value in enumerate(wanted):
        place = f"{where}[{number}]"
        found += find(value, got[number], place) if number < len(got) else [f"{place}: missing, expected {show(value)}"]
    if not more:
        found += [f"{where}[{n}]: unknown, got {show(got[n])}" for n in range(len(wanted), len(got))]
    return found


def find_by_function(check: Any, got: Any, where: str) -> list[str]:
    """What a function says against a value. The value fits only if it returns something true and does not raise."""
    try:
        said = check(got)
    except Exception as error:
        return [f"{where}: {show(check)} raised {type(error).__name__}: {error}; got {show(got)}"]
    # a function without a return would otherwise accept everything silently
    return [] if said and said is not NotImplemented else [f"{where}: {show(check)} said {said!r} of {show(got)}"]


def kinds_of(expected: Any) -> tuple[Any, ...]:
    """The types of `int | None`, or the one type."""
    return expected.__args__ if isinstance(expected, UnionType) else (expected,)


def is_of(value: Any, kind: type) -> bool:
    """Whether a JSON value is of a type."""
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def is_same(expected: Any, got: Any) -> bool:
    """Whether two values that are neither lists nor dicts are equal."""
    return bool(expected == got) and isinstance(expected, bool) == isinstance(got, bool)


def show(value: Any) -> str:
    """A value or an expectation, shortened for people."""
    if value is ...:
        return "anything"
    if isinstance(value, type | UnionType):
        return name_of(value)
    if callable(value):
        code = getattr(value, "__code__", None)
        place = f" (line {code.co_firstlineno} of {code.co_filename.rpartition('/')[2]})" if code else ""
        return f"{getattr(value, '__name__', repr(value))}{place}"
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text):,} characters)"


def name_of(kind: Any) -> str:
    """A type's name: int, str | None."""
    return " | ".join("None" if each is NoneType else each.__name__ for each in kinds_of(kind))


def follow(path: str, body: Any) -> Any:
    """The value at a path like "sessions.0.id" in a JSON body. Raises LookupError, which says what is missing."""
    found, gone = body, ""
    for step in path.split("."):
        gone = f"{gone}.{step}".removeprefix(".")
        try:
            found = found[int(step)] if isinstance(found, list) else found[step]
        except (KeyError, IndexError, TypeError, ValueError):
            raise LookupError(f"the body has no {gone}") from None
    return found
