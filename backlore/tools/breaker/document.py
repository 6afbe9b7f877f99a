"""What the breaker knows of a server: its OpenAPI document, as operations with their types and contracts."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from backlore.tools.breaker.formats import format_of

Schema = dict[str, Any]  # a JSON schema, without references

KINDS: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}
DEEPEST = 2  # levels of a type that contains itself
NEVER: Schema = {"not": {}}  # stands for the levels below: nothing is sent there
MATCHED = 2000  # characters: only shorter texts are compared with their pattern, which may be slow


@dataclass(frozen=True)
class Contract:
    """What a reply of one status must be: its media type ("" for no body), its shape, and the words of an error."""

    media: str
    shape: Schema | None
    words: frozenset[str]
    beyond_type: bool = False  # for a 400: what fits the type may be refused too


@dataclass(frozen=True)
class Parameter:
    """A parameter in the path or the query."""

    name: str
    place: str
    schema: Schema
    required: bool


@dataclass(frozen=True)
class Operation:
    """A route: what it takes and what it may answer."""

    method: str
    path: str
    stage: str
    parameters: tuple[Parameter, ...]
    body: Schema | None
    media: str
    replies: Mapping[int, Contract]
    fields: Mapping[str, str] = field(default_factory=dict)  # of its reply: key -> its place, such as notes.0.id

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def has_session(self) -> bool:
        """Whether it takes a user's session."""
        return self.stage in ("private", "admin")

    @property
    def is_form(self) -> bool:
        """Whether its body is multipart."""
        return self.media.startswith("multipart")

    @property
    def is_raw(self) -> bool:
        """Whether its body is bytes of any kind, described by no type."""
        return bool(self.media) and self.body is None

    @property
    def changes(self) -> bool:
        """Whether its method may change something."""
        return self.method not in ("GET", "HEAD", "OPTIONS")

    @property
    def is_own(self) -> bool:
        """Whether it is the application's own and not one that every application has."""
        return not self.path.startswith(("/auth/", "/admin/", "/outbox", "/docs", "/health", "/openapi.json"))

    def of(self, place: str) -> list[Parameter]:
        """The parameters of the `path` or the `query`."""
        return [each for each in self.parameters if each.place == place]


def read_document(document: dict[str, Any]) -> list[Operation]:
    """The operations, in the document's order. Raises KeyError if it is not an OpenAPI document."""
    parts = document["components"]["schemas"]
    found = []
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            content = said.get("requestBody", {}).get("content", {})
            media = next(iter(content), "")
            replies = {int(code): _contract(each, parts) for code, each in said["responses"].items()}
            parameters = tuple(
                Parameter(each["name"], each["in"], settle(each["schema"], parts), each.get("required", False))
                for each in said.get("parameters", [])
            )
            body = settle(content[media]["schema"], parts) if "schema" in content.get(media, {}) else None
            fields = _fields(replies[200].shape) if 200 in replies else {}
            stage = (said.get("tags") or ["public"])[0]
            found.append(Operation(method.upper(), path, stage, parameters, body, media, replies, fields))
    return found


def owners(operations: Iterable[Operation]) -> Iterator[Operation]:
    """The application's own routes that make something for a user."""
    for each in operations:
        if each.is_own and each.stage == "private" and each.method == "POST" and each.body and not each.of("path"):
            yield each


def settle(schema: Schema, parts: Mapping[str, Schema], within: tuple[str, ...] = ()) -> Schema:
    """The schema with references resolved. A type that contains itself ends after some levels."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return NEVER if within.count(name) >= DEEPEST else settle(parts[name], parts, (*within, name))
    settled = dict(schema)
    if isinstance(settled.get("properties"), dict):
        settled["properties"] = {key: settle(each, parts, within) for key, each in settled["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(settled.get(key), dict):
            settled[key] = settle(settled[key], parts, within)
    for key in ("anyOf", "prefixItems"):
        if key in settled:
            settled[key] = [settle(each, parts, within) for each in settled[key]]
    return settled


def _contract(said: dict[str, Any], parts: Mapping[str, Schema]) -> Contract:
    contents: dict[str, Schema] = said.get("content", {})
    media = next(iter(contents), "")
    content = contents.get(media, {})
    shape = settle(content["schema"], parts) if "schema" in content else None
    properties: Schema = (shape or {}).get("properties") or {}
    words = properties.get("error", {}).get("enum", ())
    return Contract(media, shape, frozenset(words), said.get("x-beyond-type", False))


def _fields(shape: Schema | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, each in ((shape or {}).get("properties") or {}).items():
        found.setdefault(key, key)
        for inner in (each.get("items") or {}).get("properties", {}):
            found.setdefault(inner, f"{key}.0.{inner}")
        for inner in each.get("properties", {}):
            found.setdefault(inner, f"{key}.{inner}")
    return found


def flaw(schema: Schema, value: Any, where: str = "") -> str:
    """Where a value breaks a schema, with the reason; "" when it fits."""
    if schema == NEVER:
        return f"{where} is nested deeper than is tried"
    if "anyOf" in schema:
        return "" if any(not flaw(each, value) for each in schema["anyOf"]) else f"{where} is none of its types"
    if "const" in schema or "enum" in schema:
        allowed = [schema["const"]] if "const" in schema else schema["enum"]
        return "" if any(value == each and type(value) is type(each) for each in allowed) else f"{where} is not allowed"
    kind = schema.get("type")
    if kind is None:
        return ""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "string" and schema.get("format") == "decimal" and is_number:
        return ""  # it may be written as a number
    if not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind in ("integer", "number")):
        return f"{where} is no {kind}"
    match value:
        case str():
            return _flaw_of_text(schema, value, where)
        case list():
            return _flaw_of_list(schema, value, where)
        case dict():
            return _flaw_of_object(schema, value, where)
    return _flaw_of_number(schema, value, where)


def _flaw_of_text(schema: Schema, value: str, where: str) -> str:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        return f"{where} has {len(value)} characters"
    if "pattern" in schema and len(value) < MATCHED and not re.search(schema["pattern"], value):
        return f"{where} breaks its pattern"
    if known := format_of(schema):
        try:
            known.read(value)
        except (ValueError, OverflowError):
            return f"{where} has not its format"
    return ""


def _flaw_of_number(schema: Schema, value: Any, where: str) -> str:
    if isinstance(value, bool) or value is None:
        return ""
    if value < schema.get("minimum", value) or value > schema.get("maximum", value):
        return f"{where} is out of its bounds"
    if "multipleOf" in schema and value % schema["multipleOf"]:
        return f"{where} is no multiple"
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        return f"{where} is too small"
    return f"{where} is too large" if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"] else ""


def _flaw_of_list(schema: Schema, value: list[Any], where: str) -> str:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        return f"{where} has {len(value)} items"
    found = (
        flaw(items, each, f"{where}[{n}]")
        for n, (items, each) in enumerate(zip(items_of(schema, len(value)), value, strict=False))
    )
    return next(filter(None, found), "")


def items_of(schema: Schema, count: int) -> list[Schema]:
    """The types of a list's first items. `prefixItems` gives each its own."""
    items = schema.get("items")
    return [*schema.get("prefixItems", ()), *[items if isinstance(items, dict) else {}] * count][:count]


def _flaw_of_object(schema: Schema, value: dict[str, Any], where: str) -> str:
    properties = schema.get("properties", {})
    for key in schema.get("required", ()):
        if key not in value:
            return f"{where}.{key} is missing"
    more = schema.get("additionalProperties", True)
    if not schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", len(value)):
        return f"{where} has {len(value)} keys"
    for key, each in value.items():
        if key in properties:
            found = flaw(properties[key], each, f"{where}.{key}")
        elif isinstance(more, dict):
            found = flaw(more, each, f"{where}.{key}")
        else:
            found = "" if more else f"{where}.{key} is unknown"
        if found:
            return found
    return ""
