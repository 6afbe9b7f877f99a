"""Makes openapi.json (3.1) from the route table, the types and the docstrings: nothing is written twice."""

import inspect
from collections.abc import Iterator
from itertools import product
from typing import Any

import msgspec
from msgspec import inspect as inspection

from backlore.core.payload import Upload
from backlore.web.body import Body, RawBody
from backlore.web.promises import Promise, read
from backlore.web.routes import SAFE, Route
from backlore.web.static import StaticFiles

ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}, "where": {"type": "string"}, "why": {"type": "string"}},
}
CSRF = "The session's token, in this header or in the body as `csrf`."
TEXTS = {
    "200": "Done.",
    "206": "The parts that were asked for.",
    "303": "See the URL in `Location`.",
    "304": "Not modified: it matches `If-None-Match`.",
    "400": "The payload is invalid, or a header was given twice: see `where` and `why`.",
    "403": "Not allowed: the word says why.",
    "404": "Not found.",
    "408": "Too slow.",
    "409": "Not now.",
    "413": "Too large.",
    "414": "The query is too long.",
    "415": "Unknown content-type.",
    "412": "It does not match `If-Match`.",
    "416": "The range lies outside of the content.",
    "429": "Too many tries.",
    "500": "A bug.",
    "503": "Unavailable.",
}
RETRY = {"Retry-After": {"description": "Seconds.", "required": True, "schema": {"type": "string"}}}
PARTS = "#/components/schemas/"
HELD = ("nocookie", "session", "tampered")  # the gatekeeper's words


def describe(name: str, version: str, routes: list[Route], cookie: str) -> dict[str, Any]:
    """The document of an application. Of several routes with one path and method, the first is described."""
    types = [route.body.payload for route in routes if isinstance(route.body, Body)]
    types += [route.query.type for route in routes if route.query]
    types += [codec.type for route in routes for codec in route.parameters.values()]
    unique = list(dict.fromkeys(types))
    shapes, components = describe_types(unique)
    schemas = dict(zip(unique, shapes, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if route.mounted is None and route.stage.name != "avant" and route.method != "*":
            path = route.path.replace("...}", "}")
            paths.setdefault(path, {}).setdefault(route.method.lower(), _operation(route, schemas, components))
    _link(paths)
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": version},
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": ERROR},
            "securitySchemes": {
                "session": {"type": "apiKey", "in": "cookie", "name": cookie},
                "csrf": {"type": "apiKey", "in": "header", "name": "x-csrf-token", "description": CSRF},
            },
        },
    }


def describe_types(types: list[Any]) -> tuple[tuple[dict[str, Any], ...], dict[str, dict[str, Any]]]:
    """The JSON schemas of `types`, in their order, and by name those of the types that they refer to."""
    schemas, parts = msgspec.json.schema_components(types, schema_hook=_file, ref_template=f"{PARTS}{{name}}")
    seen: set[str] = set()
    for kind, schema in zip(inspection.multi_type_info(types), schemas, strict=True):
        _say_times(kind, schema, parts, seen)
    return schemas, parts


def _say_times(kind: inspection.Type, schema: dict[str, Any], parts: dict[str, dict[str, Any]], seen: set[str]) -> None:
    """Add the format to times that may lack a zone: msgspec describes them as plain strings."""
    match kind:
        case inspection.Metadata():
            _say_times(kind.type, schema, parts, seen)
        case inspection.DateTimeType() | inspection.TimeType() if schema.get("type") == "string":
            name = "date-time" if isinstance(kind, inspection.DateTimeType) else "time"
            schema.setdefault("format", name if kind.tz is not False else f"{name}-local")
        case inspection.UnionType():
            leaves = list(_leaves(schema))
            structs = [each for each in kind.types if isinstance(each, inspection.StructType)]
            for struct, each in zip(structs, (each for each in leaves if "$ref" in each), strict=False):
                _say_times(struct, each, parts, seen)
            for inner, each in product([each for each in kind.types if each not in structs], leaves):
                _say_times(inner, each, parts, seen)
        case inspection.StructType() if schema.get("$ref", "") not in seen:
            seen.add(schema["$ref"])
            properties = parts[schema["$ref"].removeprefix(PARTS)]["properties"]
            for field in kind.fields:
                _say_times(field.type, properties[field.encode_name], parts, seen)
        case inspection.CollectionType() if isinstance(schema.get("items"), dict):
            _say_times(kind.item_type, schema["items"], parts, seen)
        case inspection.TupleType() if "prefixItems" in schema:
            for inner, each in zip(kind.item_types, schema["prefixItems"], strict=True):
                _say_times(inner, each, parts, seen)
        case inspection.DictType() if "additionalProperties" in schema:
            _say_times(kind.value_type, schema["additionalProperties"], parts, seen)


def _leaves(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The alternatives of a schema, with nested `anyOf` flattened."""
    if "anyOf" not in schema:
        yield schema
    for each in schema.get("anyOf", ()):
        yield from _leaves(each)


def _file(kind: type) -> dict[str, Any]:
    if kind is Upload:
        return {"type": "string", "format": "binary"}
    raise NotImplementedError(f"{kind} has no JSON schema")


def _operation(route: Route, schemas: dict[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    text = inspect.getdoc(route.handler) if inspect.isroutine(route.handler) else None
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()} {route.path}",
        "tags": [route.stage.name],
        "responses": _responses(route, read(text or "")),
    }
    if text:
        operation["summary"], _, rest = text.partition("\n")
        if rest.strip():
            operation["description"] = rest.strip()
    if parameters := _parameters(route, schemas, components):
        operation["parameters"] = parameters
    if isinstance(route.body, Body) and "body" in inspect.signature(route.handler).parameters:
        kind = "multipart/form-data" if route.body.codec.uploads else "application/json"
        operation["requestBody"] = {"required": True, "content": {kind: {"schema": schemas[route.body.payload]}}}
    elif isinstance(route.body, RawBody):
        operation["requestBody"] = {"required": True, "content": {"*/*": {}}}
    if route.stage.has_session:
        safe = route.method == "GET"
        operation["security"] = [{"session": []} if safe else {"session": [], "csrf": []}]
    return operation


def _parameters(route: Route, schemas: dict[Any, Any], components: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in route.names:
        schema = schemas[route.parameters[name].type] if name in route.parameters else {"type": "string"}
        if f"{{{name}...}}" in route.path:
            schema = {**schema, "description": "The rest of the path, with its slashes."}
        found.append({"name": name, "in": "path", "required": True, "schema": schema})
    if route.query:
        shape = components[schemas[route.query.type]["$ref"].rsplit("/", 1)[1]]
        for name, schema in shape.get("properties", {}).items():
            required = name in shape.get("required", [])
            found.append({"name": name, "in": "query", "required": required, "schema": schema})
    return found


# Replies


def _responses(route: Route, promises: dict[int, Promise]) -> dict[str, Any]:
    """The replies of a route: those that its docstring promises, and those of its stage and of the decoding."""
    found = _file_replies(route.handler) if isinstance(route.handler, StaticFiles) else _good(route, promises)
    words = _words(route)
    keys: dict[str, tuple[str, ...]] = {}
    for status, promise in promises.items():
        if status >= 400:
            code = str(status)
            words[code] = [*words.get(code, []), *(promise.words or (("rate",) if status == 429 else ()))]
            keys[code] = promise.keys
    for code, said in words.items():
        found[code] = _error(code, list(dict.fromkeys(said)), keys.get(code, ()))
    if 400 in promises and "400" in found:
        found["400"]["x-beyond-type"] = True  # the handler demands more than a schema can express
    return dict(sorted(found.items()))


def _good(route: Route, promises: dict[int, Promise]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, promise in promises.items():
        if status < 400:
            found[str(status)] = {"description": TEXTS.get(str(status), "Done.")}
            if promise.media or promise.shape is not None:
                schema = {} if promise.shape is None else {"schema": promise.shape}
                found[str(status)]["content"] = {promise.media or "application/json": schema}
    found = found or {"200": {"description": TEXTS["200"], "content": {"*/*": {}}}}
    if route.method == "GET" and "200" in found:
        found["304"] = {"description": TEXTS["304"]}
    return found


def _file_replies(files: StaticFiles) -> dict[str, Any]:
    content = {files.media: {"schema": {"type": "string"}}}
    parts = {code: {"description": TEXTS[code], "content": content} for code in ("200", "206")}
    errors = {"412": _error("412", ["changed"], ()), "416": _error("416", ["range"], ())}
    return {**parts, "304": {"description": TEXTS["304"]}, **errors}


def _words(route: Route) -> dict[str, list[str]]:
    """The error words of the stages and of the decoding, by status."""
    found = {"400": ["header"], "414": ["query"], "500": ["server"], "503": ["unavailable"]}
    if isinstance(route.body, Body) or route.query:
        found["400"] += ["json", "payload"]
    if route.body:
        found |= {"408": ["timeout"], "413": ["size"]} | ({"415": ["type"]} if isinstance(route.body, Body) else {})
    if route.names or isinstance(route.handler, StaticFiles):
        found["404"] = ["route"]
    refusals = [] if route.method in SAFE or not route.stage.gates else ["csrf"]
    refusals += HELD if route.stage.has_session else ()
    refusals += ["admin"] if route.stage.name == "admin" else []
    return found | {"403": refusals} if refusals else found


def _error(code: str, words: list[str], keys: tuple[str, ...]) -> dict[str, Any]:
    """An error reply, `{"error": WORD}`: with `where` and `why` for 400, and with further `keys` of its own."""
    more = (*keys, "where", "why") if code == "400" else keys
    properties: dict[str, Any] = {"error": {"type": "string", **({"enum": words} if words else {})}}
    properties |= {key: {"type": "string"} if key in ("where", "why") else {} for key in more}
    schema = {"type": "object", "required": ["error"], "properties": properties, "additionalProperties": False}
    reply: dict[str, Any] = {
        "description": TEXTS.get(code, "Refused: the word says why."),
        "content": {"application/json": {"schema": schema}},
    }
    return reply | {"headers": RETRY} if code in ("429", "503") else reply


# Links: a key in one route's reply is a parameter of another route, if that route lies below the first one's path and
# names the parameter like the key


def _link(paths: dict[str, dict[str, Any]]) -> None:
    for path, methods in paths.items():
        for operation in methods.values():
            reply = operation["responses"].get("200", {})
            shape = reply.get("content", {}).get("application/json", {}).get("schema", {})
            links = {}
            for name, place in _places(shape):
                for below, others in paths.items():
                    if below.startswith(f"{path}/{{{name}}}") and below.count("{") == path.count("{") + 1:
                        for other in others.values():
                            id = other["operationId"]
                            parameters = {name: f"$response.body#/{place}"}
                            links[id.translate(NAMES)] = {"operationId": id, "parameters": parameters}
            if links:
                reply["links"] = links


NAMES = str.maketrans({" ": "-", "/": ".", "{": "", "}": ""})


def _places(shape: dict[str, Any]) -> list[tuple[str, str]]:
    """The keys of a reply and their JSON pointers: top-level ones, and those of the first item of each list."""
    found = []
    for name, each in shape.get("properties", {}).items():
        found.append((name, name))
        inner = each.get("items", {}).get("properties", {})
        found += [(below, f"{name}/0/{below}") for below in inner]
    return found
