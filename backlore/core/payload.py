"""Payload types: a handler declares the type of its input, and nothing reaches it unvalidated.

Laws: unknown keys are refused; so is a key that is given twice. The first error is reported: `where` is the path in
the payload (`tags[2]`), `why` is a sentence for people.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import inspect

T = TypeVar("T")

patterns: dict[str, str] = {}  # the repr of a pattern, as msgspec's errors name it → what a matching string is

MAX_DEPTH = 64  # nesting of values that the type leaves open (dict, Any); deeper ones are refused
MAX_PIECES = 50_000  # objects, lists and keys in such values
MAX_EXTREMES = 1_000  # numbers with an exponent of three digits: reading one may take 10 µs
EXTREME = re.compile(rb"[eE][+-]?0*[1-9]\d\d")
MAX_ESCAPES = 100_000  # percent escapes in a form or query
LIGHT = 4096  # bytes: JSON up to this size never takes long


class Payload(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of every payload type: its fields are annotated types, as in `class NewNote(Payload): text: str`."""


class Upload:
    """A file of a multipart body, on the disk for as long as the request lasts.

    `name` and `type` are what the client claims: never use them as a path, or as the type to serve it with. `size` is
    in bytes, `hash` is the SHA-256 in hexadecimal.
    """

    # Not a Struct: msgspec would make one from a JSON object, with a path of the client's choice.
    __slots__ = ("hash", "name", "path", "size", "type")

    def __init__(self, path: Path, name: str, type: str, size: int, hash: str):
        self.path = path
        self.name = name
        self.type = type
        self.size = size
        self.hash = hash


class Malformed(ValueError):
    """The raw bytes are not a valid JSON, urlencoded or multipart body."""


class Invalid(ValueError):
    """The payload breaks its type: `where` is the path in it ("" for the whole), `why` a readable sentence."""

    def __init__(self, where: str, why: str):
        super().__init__(f"{where}: {why}" if where else why)
        self.where = where
        self.why = why


def length(least: int, most: int) -> msgspec.Meta:
    """Bounds, both inclusive, on a string's characters or a list's items."""
    return msgspec.Meta(min_length=least, max_length=most)


def between(least: float, most: float) -> msgspec.Meta:
    """Bounds, both inclusive, on a number."""
    return msgspec.Meta(ge=least, le=most)


def matching(pattern: str, what: str) -> msgspec.Meta:
    """A regular expression for the whole string. `what` describes it in errors: "a word without spaces".

    Keep the expression linear: it runs on input from strangers.
    """
    whole = rf"^(?:{pattern})$(?!\n)"  # `$` alone lets a line break pass at the end; \Z is unknown to JSON schema
    patterns[repr(whole)] = what
    return msgspec.Meta(pattern=whole)


class Codec(Generic[T]):
    """Decodes one payload type from JSON, or from the fields of a form or query.

    Raises TypeError for a type that can't be a payload.
    """

    def __init__(self, type: type[T]):
        self.type = type
        self._decode = msgspec.json.Decoder(type, dec_hook=_accept_upload).decode
        self._convert = partial(msgspec.convert, type=type, dec_hook=_accept_upload)
        shapes = list(_shapes(inspect.type_info(type)))
        for shape in shapes:
            _check_closed(shape)
        structs = [shape for shape in shapes if isinstance(shape, inspect.StructType)]
        self._open = any(isinstance(shape, inspect.DictType | inspect.AnyType) for shape in shapes)
        self._heavy = self._open or any(isinstance(shape, inspect.FloatType) for shape in shapes)
        self._keys = tuple({f'"{field.encode_name}"'.encode() for s in structs for field in s.fields})
        fields = structs[0].fields if structs else ()
        # in a flat object whose fields are all required this many colons mean no repeated key; -1: no count proves it
        is_plain = len(structs) == 1 and shapes[0] is structs[0] and not self._open
        self._colons = len(fields) if is_plain and all(field.required for field in fields) else -1
        self.uploads = frozenset(f.encode_name for f in fields if any(map(_is_upload, _shapes(f.type))))  # names
        self._lists = {f.encode_name for f in fields if isinstance(f.type, inspect.ListType)}
        # the type whose default value an empty query stands for, as most queries are empty
        self._blank = type if structs and shapes[0] is structs[0] and not any(f.required for f in fields) else None

    def from_json(self, raw: bytes) -> T:
        """The value of the JSON text `raw`. Raises Malformed or Invalid."""
        if self._heavy and len(raw) > LIGHT:
            _check_weight(raw, self._open)
        try:
            value = self._decode(raw)
        except msgspec.ValidationError as error:
            raise _explain(error) from None
        except RecursionError:
            raise Invalid("", "Is nested too deeply.") from None
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise Malformed(str(error)) from None
        if raw.count(b":") != self._colons and self._may_repeat(raw):
            _check_keys(raw)
        return value

    def _may_repeat(self, raw: bytes) -> bool:
        """Whether a key may be given twice: msgspec would silently keep the last.

        It may only if its name occurs twice, literally or hidden in an escape. Only then is the slow, exact check run.
        """
        return self._open or raw.find(b"\\u") >= 0 or any(raw.count(key) > 1 for key in self._keys)

    def from_fields(self, fields: list[tuple[str, Any]]) -> T:
        """The value of a query's or form's pairs: texts are converted, and a list field collects all pairs of its name.

        Raises Invalid.
        """
        values: dict[str, Any] = {}
        for name, value in fields:
            if name in self._lists:
                values.setdefault(name, []).append(value)
            elif name in values:
                raise Invalid(name, "Is given more than once.")
            else:
                values[name] = value
        return self.from_object(values, strict=False)

    def from_object(self, value: Any, strict: bool = True) -> T:
        """The value of plain Python data; without `strict`, texts are converted to numbers and the like.

        Raises Invalid.
        """
        try:
            converted: T = self._convert(value, strict=strict)
            return converted
        except msgspec.ValidationError as error:
            raise _explain(error) from None

    def from_urlencoded(self, text: str) -> T:
        """The value of a query or an urlencoded body. Raises Malformed or Invalid."""
        if self._blank and not text:
            return self._blank()
        return self.from_fields(parse_urlencoded(text))


def parse_urlencoded(text: str) -> list[tuple[str, str]]:
    """The pairs of `a=1&b=2`, with percent escapes as UTF-8. Raises Malformed."""
    if not text:
        return []
    if text.count("%") > MAX_ESCAPES:
        raise Malformed(f"more than {MAX_ESCAPES:,} escapes")
    try:
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=1000)
    except ValueError as error:
        raise Malformed(str(error)) from None


def _accept_upload(type: type, value: Any) -> Any:
    if isinstance(value, type):
        return value
    raise ValueError("Expected `file`, got something else")


def _is_upload(shape: inspect.Type) -> bool:
    return isinstance(shape, inspect.CustomType) and shape.cls is Upload


def _shapes(shape: inspect.Type, seen: frozenset[type] = frozenset()) -> Iterator[inspect.Type]:
    """The type and, depth first, all types that it contains; a recursive type is entered once."""
    yield shape
    inner: list[inspect.Type] = []
    if isinstance(shape, inspect.StructType):
        if shape.cls in seen:
            return
        seen |= {shape.cls}
        inner = [field.type for field in shape.fields]
    elif isinstance(shape, inspect.UnionType):
        inner = list(shape.types)
    elif isinstance(shape, inspect.DictType):
        inner = [shape.key_type, shape.value_type]
    elif isinstance(shape, inspect.CollectionType):
        inner = [shape.item_type]
    elif isinstance(shape, inspect.TupleType):
        inner = list(shape.item_types)
    elif isinstance(shape, inspect.Metadata):
        inner = [shape.type]
    for each in inner:
        yield from _shapes(each, seen)


def _check_closed(shape: inspect.Type) -> None:
    """Raises TypeError for a class other than Payload: only a Payload refuses unknown keys."""
    if isinstance(shape, inspect.CustomType) and shape.cls not in (Upload, Path):
        raise TypeError(f"{shape.cls.__qualname__} can't stand in a payload; Any takes every value")
    lax = isinstance(shape, inspect.TypedDictType | inspect.DataclassType | inspect.NamedTupleType)
    if isinstance(shape, inspect.StructType):
        lax = not shape.forbid_unknown_fields
    if lax:
        raise TypeError(f"{shape.cls.__qualname__} stands in a payload, so it must be a Payload")  # type: ignore[attr-defined]


def _check_weight(raw: bytes, is_open: bool) -> None:
    """Refuse JSON that would take long to decode, before it is decoded: the event loop would stand still meanwhile."""
    if not (is_open and _pieces(raw) > MAX_PIECES) and not _has_extremes(raw):
        return
    # the matches may lie within strings: once escaped quotes are removed, every second part between quotes is a string
    bare = b"".join(raw.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2])
    if is_open and _pieces(bare) > MAX_PIECES:
        raise Invalid("", f"Has more than {MAX_PIECES:,} objects, lists and keys.")
    if _has_extremes(bare):
        raise Invalid("", f"Has more than {MAX_EXTREMES:,} numbers with an exponent of three digits.")


def _pieces(raw: bytes) -> int:
    return raw.count(b"{") + raw.count(b"[") + raw.count(b":")


def _has_extremes(raw: bytes) -> bool:
    return any(islice(EXTREME.finditer(raw), MAX_EXTREMES, None))


def _check_keys(raw: bytes) -> None:
    """Refuse a key that an object gives twice, and nesting beyond MAX_DEPTH."""
    try:
        _check_depth(json.loads(raw, object_pairs_hook=_unique, parse_int=len, parse_float=len), 0)
    except RecursionError:
        raise Invalid("", "Is nested too deeply.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise Invalid(key, "Is given more than once.")
            seen.add(key)
    return found


def _check_depth(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Invalid("", "Is nested too deeply.")
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return
    for each in value:
        _check_depth(each, depth + 1)


# msgspec's words for types, and ours.
KINDS = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
    "array": "an array",
    "object": "an object",
    "file": "a file",
}
# Patterns of msgspec's messages, and our sentence made from their groups. The first match wins.
PHRASES: list[tuple[str, Callable[..., str]]] = [
    (r"Expected `str` of length >= (\d+)", lambda n: f"Should have at least {_many(n, 'character')}."),
    (r"Expected `str` of length <= (\d+)", lambda n: f"Should have at most {_many(n, 'character')}."),
    (r"Expected `(?:array|object)` of length >= (\d+)", lambda n: f"Should have at least {_many(n, 'item')}."),
    (r"Expected `(?:array|object)` of length <= (\d+)", lambda n: f"Should have at most {_many(n, 'item')}."),
    (r"Expected `(?:int|float)` >= (\S+)", lambda n: f"Should be at least {n}."),
    (r"Expected `(?:int|float)` <= (\S+)", lambda n: f"Should be at most {n}."),
    (r"Expected `str` matching regex (.+)", lambda pattern: f"Should be {patterns.get(pattern, pattern)}."),
    (r"Expected `([^`]+)`, got `([^`]+)`", lambda want, got: f"Should be {_kinds(want)}, not {_kinds(got)}."),
    (r"Expected `file`", lambda: "Should be a file."),
    (r"Invalid enum value (.+)", lambda value: f"Is none of the allowed values: {value}."),
    (r"Number out of range", lambda: "Is out of the range of numbers."),
]


def _explain(error: msgspec.ValidationError) -> Invalid:
    said, _, path = str(error).partition(" - at `")
    where = path.rstrip("`").removeprefix("$").removeprefix(".")
    if match := re.fullmatch(r"Object (missing required|contains unknown) field `(.*)`", said, re.DOTALL):
        why = "Is missing." if match[1].startswith("missing") else "Is not known here."
        return Invalid(f"{where}.{match[2]}".removeprefix("."), why)
    for pattern, phrase in PHRASES:
        if match := re.match(pattern, said):
            return Invalid(where, phrase(*match.groups()))
    return Invalid(where, f"{said}.")


def _many(number: str, noun: str) -> str:
    return f"{number} {noun}" if number == "1" else f"{number} {noun}s"


def _kinds(names: str) -> str:
    return " or ".join(KINDS.get(name, name) for name in names.split(" | "))
