"""Texts that match a regular expression, made by walking it as Python's own parser has read it.

Lookahead and lookbehind are passed over: the caller compares each text with the pattern. (`re` has no public form of
what it has read. A library that makes such texts walks the same one, so this saves a dependency.)
"""

import importlib
import re
from functools import cache
from random import Random
from typing import Any

PLAIN = "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789_-.,:;@/#+~ !?%&'\"()[]{}<>=*|^$\\\t\u00e9\u4e2d"
LONGEST = 2000  # letters that repetitions may add
CATEGORIES = {
    "CATEGORY_DIGIT": r"\d", "CATEGORY_NOT_DIGIT": r"\D", "CATEGORY_SPACE": r"\s", "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w", "CATEGORY_NOT_WORD": r"\W",
}  # fmt: skip


@cache
def _read(pattern: str) -> Any:
    return _plain(importlib.import_module("re._parser").parse(pattern))


def _plain(parts: Any) -> Any:
    """What the parser has read, as tuples of a kind and its details."""
    return tuple((str(kind), _given(str(kind), given)) for kind, given in parts)


def _given(kind: str, given: Any) -> Any:
    match kind:
        case "IN":
            return tuple((str(name), value) for name, value in given)
        case "BRANCH":
            return tuple(map(_plain, given[1]))
        case "SUBPATTERN":
            return given[0], _plain(given[3])
        case "ATOMIC_GROUP":
            return _plain(given)
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            return given[0], int(given[1]), _plain(given[2])
        case "GROUPREF_EXISTS":
            return given[0], _plain(given[1]), _plain(given[2] or ())
    return given


def match_of(pattern: str, random: Random, more: int) -> str:
    """A random text that matches. Repetitions exceed their minimum by up to `more` times. Raises re.error."""
    return _Walk(random, more).through(_read(pattern))


class _Walk:
    def __init__(self, random: Random, more: int):
        self._random = random
        self._more = more
        self._left = LONGEST  # letters that repetitions may still add, so that nested ones end
        self._groups: dict[Any, str] = {}

    def through(self, parts: Any) -> str:
        return "".join(self._one(kind, given) for kind, given in parts)

    def _one(self, kind: str, given: Any) -> str:
        match kind:
            case "LITERAL":
                return chr(given)
            case "NOT_LITERAL":
                return self._any_but((("LITERAL", given),))
            case "ANY":
                return self._any_but((("LITERAL", 10),))
            case "IN":
                return self._of_set(given)
            case "BRANCH":
                return self.through(self._random.choice(given))
            case "SUBPATTERN":
                group, inner = given
                self._groups[group] = self.through(inner)
                return self._groups[group]
            case "ATOMIC_GROUP":
                return self.through(given)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                least, most, inner = given
                count = least + self._random.randint(0, min(most - least, self._more, self._left))
                self._left -= count - least
                return "".join(self.through(inner) for _ in range(count))
            case "GROUPREF":
                return self._groups.get(given, "")
            case "GROUPREF_EXISTS":
                group, yes, no = given
                return self.through(yes if group in self._groups else no)
        return ""  # AT, ASSERT, ASSERT_NOT: they match no letters

    def _of_set(self, choices: tuple[tuple[str, Any], ...]) -> str:
        if choices[0][0] == "NEGATE":
            return self._any_but(choices[1:])
        kind, value = self._random.choice(choices)
        match kind:
            case "LITERAL":
                return chr(value)
            case "RANGE":
                return chr(self._random.randint(*value))
        return self._random.choice(_letters(((kind, value),), True))

    def _any_but(self, choices: tuple[tuple[str, Any], ...]) -> str:
        return self._random.choice(_letters(choices, False) or "\U0001f600")


@cache
def _letters(choices: tuple[tuple[str, Any], ...], wanted: bool) -> str:
    """The letters of PLAIN that are among the choices, or that are not."""
    return "".join(each for each in PLAIN if any(_holds(*choice, each) for choice in choices) is wanted)


def _holds(kind: str, value: Any, letter: str) -> bool:
    match kind:
        case "LITERAL":
            return bool(value == ord(letter))
        case "RANGE":
            return bool(value[0] <= ord(letter) <= value[1])
    return bool(re.match(CATEGORIES[str(value)], letter))
