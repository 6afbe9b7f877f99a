"""What every language needs from an OpenAPI document: operations by name, and the types that they take and return."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from backlore.core.words import amount, describe, has_bounds

Schema = dict[str, Any]  # a JSON schema, as the document has it


class Language(NamedTuple):
    """How a language writes types. `array`, `record` and `fixed` (a list of known length) have a place for a type."""

    plain: dict[str, str]  # the types of JSON Schema, and `file` and `any`
    array: str
    record: str
    fixed: str
    choice: Callable[[list[Any]], str]  # the type of one of some values
    method: Callable[[str], str]  # a method's name from its words: create_note
    members: frozenset[str]  # names that no method may have
    types: frozenset[str]  # names that no type may have


class TypedField(NamedTuple):
    """A parameter in a path, or a field of a type."""

    name: str
    type: str
    required: bool
    text: str  # its bounds in words


class Shape(NamedTuple):
    """A named type: an object with fields or, when `fields` is None, another name for `type`."""

    name: str
    text: str
    fields: list[TypedField] | None
    type: str = ""


class TypedOperation(NamedTuple):
    """A route, as a method of the client. `reply` is a type, "" when it is not known."""

    name: str
    method: str
    path: str
    text: str
    parts: list[TypedField]
    query: Shape | None
    body: Shape | None
    is_form: bool
    reply: str

    @property
    def optional(self) -> bool:
        """Whether the whole query may be left out."""
        return not any(field.required for field in (self.query and self.query.fields) or [])


def content_of(operation: Schema) -> dict[str, Any]:
    """The content of its request body by media type; {} if it has no body."""
    content: dict[str, Any] = operation.get("requestBody", {}).get("content", {})
    return content


class Document:
    """An OpenAPI document (3.1, as web/openapi.py makes it) in the words of a language.

    `names` gives words for operations, by method and path. `operations` keep the order of the document. Operations that
    answer with something other than JSON are left out, and so are those that take raw bytes, since they have a protocol
    of their own. `shapes` are the types, sorted by name.
    """

    def __init__(self, document: dict[str, Any], language: Language, names: Mapping[tuple[str, str], str]):
        self.title: str = " ".join(document["info"]["title"].split())
        self._language = language
        self._components: dict[str, Schema] = document["components"]["schemas"]
        self._taken = set(language.types)
        self._names = {name: unused([pascal(snake(name)) or "Type"], self._taken) for name in sorted(self._components)}
        self._shapes: dict[str, Shape] = {}
        self.operations: list[TypedOperation] = []
        members = set(language.members)
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if (given := good_reply(operation)) is None or "*/*" in content_of(operation):
                    continue
                words = snake(f"{method} {path}")
                wishes = [snake(names.get((method.upper(), path), "")), words]
                name = unused([language.method(each) for each in wishes if each], members)
                self.operations.append(self._read(name, method.upper(), path, operation, given))
        self.shapes = [self._shapes[name] for name in sorted(self._shapes)]

    def _read(self, name: str, method: str, path: str, operation: dict[str, Any], given: Schema) -> TypedOperation:
        hint = pascal(snake(name))
        fields: dict[str, list[TypedField]] = {"path": [], "query": []}
        for each in operation.get("parameters", []):
            fields[each["in"]].append(self._field(each["name"], each["schema"], each["required"], hint))
        query = self._keep(f"{hint}Query", "", fields["query"]) if fields["query"] else None
        kinds = content_of(operation)
        body = None
        for kind in kinds.values():
            body = self._shapes[self._spell(kind["schema"], f"{hint}Body")]
        reply = self._spell(given, f"{hint}Reply") if given.get("properties") or given.get("type") == "array" else ""
        text = "\n\n".join(operation[key] for key in ("summary", "description") if key in operation)
        form = "multipart/form-data" in kinds
        return TypedOperation(name, method, path, text, fields["path"], query, body, form, reply)

    def _field(self, name: str, schema: Schema, required: bool, hint: str) -> TypedField:
        words = [describe(schema, self._components)] if has_bounds(schema) else []
        if (default := schema.get("default")) not in (None, "", [], {}):
            words.append(f"by default {amount(default)}")
        return TypedField(name, self._spell(schema, hint + pascal(snake(name))), required, ", ".join(words))

    def _keep(self, wish: str, text: str, fields: list[TypedField]) -> Shape:
        shape = Shape(unused([wish], self._taken), text, fields)
        self._shapes[shape.name] = shape
        return shape

    def _spell(self, schema: Schema, hint: str) -> str:
        """The type in the language. Types that it refers to become shapes; so does an object, named `hint`."""
        language = self._language
        if reference := schema.get("$ref"):
            return self._refer(reference.rsplit("/", 1)[1])
        if "enum" in schema or "const" in schema:
            return language.choice(schema.get("enum") or [schema["const"]])
        if "anyOf" in schema:
            return " | ".join(dict.fromkeys(self._spell(each, hint) for each in schema["anyOf"]))
        if "prefixItems" in schema:
            return language.fixed.format(", ".join(self._spell(each, hint) for each in schema["prefixItems"]))
        match schema.get("type"):
            case "array":
                return language.array.format(self._spell(schema.get("items") or {}, hint))
            case "object" if schema.get("properties"):
                return self._keep(hint, "", self._fields(schema, hint)).name
            case "object":
                more = schema.get("additionalProperties")
                return language.record.format(self._spell(more if isinstance(more, dict) else {}, hint))
            case "string" if schema.get("format") == "binary":
                return language.plain["file"]
            case kind:
                return language.plain[kind or "any"]

    def _fields(self, schema: Schema, hint: str) -> list[TypedField]:
        required = schema.get("required", [])
        return [self._field(key, each, key in required, hint) for key, each in schema.get("properties", {}).items()]

    def _refer(self, component: str) -> str:
        name = self._names[component]
        if name not in self._shapes:
            schema = self._components[component]
            text = schema.get("description", "")
            # entered first, so that a type that contains itself is read only once
            self._shapes[name] = Shape(name, text, [])
            if "properties" in schema or schema.get("type") == "object":
                self._shapes[name] = Shape(name, text, self._fields(schema, name))
            else:
                self._shapes[name] = Shape(name, text, None, self._spell(schema, name))
        return name


def good_reply(operation: dict[str, Any]) -> Schema | None:
    """The schema of the 2xx reply, {} when it has none; None when there is no such reply in JSON."""
    for status, reply in sorted(operation["responses"].items()):
        content = reply.get("content", {"*/*": {}})
        if status.startswith("2"):
            for kind in {"application/json", "*/*"} & content.keys():
                return content[kind].get("schema", {})  # type: ignore[no-any-return]
    return None


def snake(text: str) -> str:
    """The words of a name, a path or a sentence: `GET /auth/changeEmail` → `get_auth_change_email`."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", unicodedata.normalize("NFKC", text))
    letters = "".join(each if f"a{each}".isidentifier() else " " for each in apart)
    name = "_".join(re.findall(r"[^\W_]+", letters)).lower()
    return name if name.isidentifier() or not name else f"n{name}"


def camel(name: str) -> str:
    """create_note → createNote."""
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


def pascal(name: str) -> str:
    """create_note → CreateNote."""
    return "".join(map(str.capitalize, name.split("_")))


def unused(wishes: list[str], taken: set[str]) -> str:
    """The first of the wishes that is not taken, else the last with a number. It counts as taken from now on."""
    numbered = (f"{wishes[-1]}{number}" for number in range(2, len(taken) + 3))
    name = next(name for name in (*wishes, *numbered) if name not in taken)
    taken.add(name)
    return name
