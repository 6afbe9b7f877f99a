r"""Conditions on the fields of a line that is a JSON object.

    level=error   took>100   user.id!=abc   "log.level"=warn   time>="2026-10"   note exists

Laws: numbers are compared with numbers, and texts with texts, in the order of Unicode. `n=5` holds for 5, 5.0 and "5",
`n="5"` for the text alone. `n>5` holds for numbers only, `n>five` and `n>"5"` for texts only. An array or an object
equals nothing. For a missing field no condition holds, not even `!=`. A line that is no JSON object has no fields.
"""

import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

KEY = r'"[^"\\\x00-\x1f]+"|[^"\\\s.=!<>\x00-\x1f]+'
FIELD = re.compile(rf"\s*((?:{KEY})(?:\.(?:{KEY}))*)\s*(?:(!=|>=|<=|==?|>|<)(.*)|\sexists\s*)", re.DOTALL)
NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
WORDS: dict[str, Any] = {"true": True, "false": False, "null": None}
SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
KINDS: dict[type, str] = {bool: "word", type(None): "word", int: "number", float: "number", str: "text"}
SPACE = r"[ \t\r]*"
SPELLED = 30  # characters of a text that a scout looks for, at most
MISSING = msgspec.UNSET


class Field:
    """One condition. `scout`: an expression of RE2 found in every line that fits, "" if there is no good one; `rank`:
    the lower, the fewer lines it probably finds. Raises ValueError with a sentence.
    """

    def __init__(self, text: str):
        found = FIELD.fullmatch(text)
        if found is None:
            raise ValueError("Should be a field, a sign and a value, like level=error or took>100, or: note exists.")
        self.path = [key.strip('"') for key in re.findall(KEY, found[1])]
        self._sign = (found[2] or "").replace("==", "=")
        self._compare = SIGNS.get(self._sign)
        self._wanted = read_value(found[3].strip(), self._sign in ("=", "!=")) if found[2] else {}
        value = self._scout_of_value()
        self.rank = 9 if not value else 0 if self._sign == "=" else 2
        self.scout = f'"{spell(self.path[-1])}"{SPACE}:{SPACE}{value}' if value else ""

    def holds(self, value: Any) -> bool:
        """Whether it holds for the value that an object has at the first key of `path`, or for MISSING."""
        for key in self.path[1:]:
            value = value.get(key, MISSING) if isinstance(value, dict) else MISSING
        if value is MISSING:
            return False
        if self._compare is None:
            return True
        kind = KINDS.get(type(value))
        if kind in self._wanted:
            return self._compare(value, self._wanted[kind])
        return self._sign == "!="

    def _scout_of_value(self) -> str:
        """An expression for the beginning of each value that fits; "" if too many other values begin like it."""
        number, text = self._wanted.get("number"), self._wanted.get("text")
        if self._sign == "=":
            whole = "word" in self._wanted
            forms = [str(text)] if whole else [_same_number(number)] if number is not None else []
            ending = '"' if text is not None and len(text) <= SPELLED else ""
            forms += [f'"{spell(text[:SPELLED])}{ending}'] if text is not None else []
            return f"(?:{'|'.join(forms)})"
        if self._sign in (">", ">=") and number is not None and number >= 10:
            return f"(?:[0-9]{{{len(str(int(number)))},}}|[0-9.]+[eE])"
        return ""


class Fields:
    """Several conditions on one object. It is decoded once, and only the fields that are asked for."""

    def __init__(self, fields: Sequence[Field]):
        keys = list(dict.fromkeys(field.path[0] for field in fields))
        names = {f"key{place}": key for place, key in enumerate(keys)}
        shape = msgspec.defstruct("Line", [(name, Any, MISSING) for name in names], rename=names)
        self._decode = msgspec.json.Decoder(shape).decode
        places = {key: name for name, key in names.items()}
        self._each = [(operator.attrgetter(places[field.path[0]]), field.holds) for field in fields]

    def hold(self, line: bytes) -> bool:
        """Whether all conditions hold for a line."""
        try:
            found = self._decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False  # no JSON object, or a broken one
        return all(holds(get(found)) for get, holds in self._each)


def read_value(text: str, is_same: bool) -> dict[str, Any]:
    """The meanings of a value, by the kind of value that it is compared with. `is_same`: for `=` and `!=`."""
    if text.startswith('"'):
        try:
            return {"text": msgspec.json.decode(text, type=str)}
        except msgspec.DecodeError:
            raise ValueError("Has a quoted value that is no string of JSON.") from None
    if NUMBER.fullmatch(text):
        number = float(text) if "e" in text.lower() or "." in text else int(text)
        if abs(number) == float("inf"):
            raise ValueError("Has a number that is out of range.")
        return {"number": number, "text": text} if is_same else {"number": number}
    if text in WORDS and is_same:
        return {"word": WORDS[text], "text": text}
    return {"text": text}


def spell(text: str) -> str:
    """An expression for all the ways to write a text in JSON."""
    return "".join(f"(?:{'|'.join(_spellings(each))})" for each in text)


def _spellings(character: str) -> list[str]:
    units = character.encode("utf-16-be").hex()
    coded = "".join(rf"\\u(?i:{units[at : at + 4]})" for at in range(0, len(units), 4))
    short = {"\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", '"': '"', "\\": r"\\", "/": "/"}.get(character)
    plain = [] if character in '"\\' or character < " " else [re.escape(character)]
    return [*plain, coded, *([rf"\\{short}"] if short else [])]


def _same_number(number: float) -> str:
    """An expression for the beginning of each way to write a number."""
    if number != int(number) or abs(number) >= 2**53:
        return "-?[0-9]"
    return rf"-?(?:{abs(int(number))}|[0-9]+(?:\.|[eE]))"
