"""openapi.json (3.1) from the route table and the types: nothing is written twice."""

import inspect
from typing import Any

import msgspec

from backlore.core.payload import Upload
from backlore.web.routes import Route

ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}, "where": {"type": "string"}, "why": {"type": "string"}},
}


def describe(name: str, version: str, routes: list[Route], cookie: str) -> dict[str, Any]:
    """The document of an application; routes that several stages answer under one path are described once."""
    types = [route.body.payload for route in routes if route.body] + [r.query.type for r in routes if r.query]
    types += [codec.type for route in routes for codec in route.parameters.values()]
    unique = list(dict.fromkeys(types))
    shapes, components = msgspec.json.schema_components(
        unique, schema_hook=_file, ref_template="#/components/schemas/{name}"
    )
    schemas = dict(zip(unique, shapes, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if route.mounted is None and route.stage.name != "avant" and route.method != "*":
            path = route.path.replace("...}", "}")
            paths.setdefault(path, {}).setdefault(route.method.lower(), _operation(route, schemas, components))
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": version},
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": ERROR},
            "securitySchemes": {
                "session": {"type": "apiKey", "in": "cookie", "name": cookie},
                "csrf": {"type": "apiKey", "in": "header", "name": "x-csrf-token"},
            },
        },
    }


def _file(kind: type) -> dict[str, Any]:
    if kind is Upload:
        return {"type": "string", "format": "binary"}
    raise NotImplementedError(f"{kind} has no JSON schema")


def _operation(route: Route, schemas: dict[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    text = inspect.getdoc(route.handler) if inspect.isfunction(route.handler) else None
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()} {route.path}",
        "tags": [route.stage.name],
        "responses": {"200": {"description": "Done."}, **_errors(route)},
    }
    if text:
        operation["summary"], _, rest = text.partition("\n")
        if rest.strip():
            operation["description"] = rest.strip()
    if parameters := _parameters(route, schemas, components):
        operation["parameters"] = parameters
    if route.body and "body" in inspect.signature(route.handler).parameters:
        kind = "multipart/form-data" if route.body.codec.has_uploads else "application/json"
        operation["requestBody"] = {"required": True, "content": {kind: {"schema": schemas[route.body.payload]}}}
    if route.stage.has_session:
        safe = route.method == "GET"
        operation["security"] = [{"session": []} if safe else {"session": [], "csrf": []}]
    return operation


def _parameters(route: Route, schemas: dict[Any, Any], components: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in route.names:
        schema = schemas[route.parameters[name].type] if name in route.parameters else {"type": "string"}
        found.append({"name": name, "in": "path", "required": True, "schema": schema})
    if route.query:
        shape = components[schemas[route.query.type]["$ref"].rsplit("/", 1)[1]]
        for name, schema in shape.get("properties", {}).items():
            required = name in shape.get("required", [])
            found.append({"name": name, "in": "query", "required": required, "schema": schema})
    return found


def _errors(route: Route) -> dict[str, Any]:
    """The replies beside 200 that the stages and the decoding of this route can give."""
    codes = {"503": "Unavailable."}
    if route.body or route.query:
        codes["400"] = "The payload breaks its type: `where` and `why`."
    if route.body:
        codes |= {"408": "Too slow.", "413": "Too large.", "415": "Unknown content-type."}
    if route.query:
        codes["414"] = "The query is too long."
    if route.stage.gates:
        codes["403"] = "Not allowed: the word says why."
    if route.names:
        codes["404"] = "Not found."
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {code: {"description": text, "content": content} for code, text in sorted(codes.items())}
