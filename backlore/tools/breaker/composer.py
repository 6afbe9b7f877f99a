"""Requests that are valid except for what is given: to every route, as any person, with the ids of what was made."""

import json
from collections.abc import Mapping
from random import Random
from typing import Any
from urllib.parse import quote, urlencode

from backlore.tools.breaker.document import Operation, Schema, owners, read_document
from backlore.tools.breaker.forms import to_form
from backlore.tools.breaker.people import JSON, Cast, Person
from backlore.tools.breaker.values import NoValue, sample
from backlore.tools.breaker.wire import Got, Sent, Wire

NOTHING = object()


def knack_of(name: str, part: Schema) -> str:
    """The key of a field in `knacks`: fields with the same name and type need the same form on every route."""
    return f"{name} {json.dumps(part, sort_keys=True)}"


def id_of(name: str, payload: Any, got: Got) -> Any:
    """The id of what was made, from the reply or else from the payload; None if nothing was made."""
    if got.status != 200:
        return None
    told = got.body.get(name) if isinstance(got.body, dict) else None
    return payload.get(name) if told is None and isinstance(payload, dict) else told


class Composer:
    """Knows the routes and the people."""

    def __init__(self, wire: Wire, document: dict[str, Any], cast: Cast, random: Random):
        self.wire = wire
        self.cast = cast
        self.random = random
        # the application's own routes first: those that the time does not reach are ours, which many others have tried
        self.operations: list[Operation] = []
        self.speechless: list[str] = []  # routes for which no valid request was found, with the reason
        for each in sorted(read_document(document), key=lambda each: not each.is_own):
            try:
                for part in [*(parameter.schema for parameter in each.parameters), each.body or {}]:
                    sample(part, Random(1))
                self.operations.append(each)
            except NoValue as error:
                self.speechless.append(f"{each}: {error}")
        self.unsaid: set[tuple[str, str]] = set()  # keys of a route's payload that are better left out
        self.knacks: dict[str, str] = {}  # the form that texts of a field must have beyond their type: see `attacks`
        self._emails = 0

    def operation(self, method: str, path: str) -> Operation | None:
        """The operation with this method and path; None without one."""
        return next((each for each in self.operations if (each.method, each.path) == (method, path)), None)

    def compose(
        self,
        operation: Operation,
        person: Person | None,
        payload: Any = NOTHING,
        path: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> Sent:
        """A request to an operation, valid except for what is given."""
        values = self.path_values(operation, person) | dict(path or {})
        target = operation.path
        for name, value in values.items():
            target = target.replace(f"{{{name}}}", quote(str(value), safe=""))
        if query:
            target += "?" + urlencode(query, doseq=True)
        body: bytes | None = None
        headers: Mapping[str, str] = {}
        if operation.changes:
            shown = self.payload(operation, person) if payload is NOTHING else payload
            body, headers = to_form(shown, operation) if operation.is_form else (json.dumps(shown).encode(), JSON)
        named, session, csrf = (person.name, person.session, person.csrf) if person else ("stranger", "", "")
        return Sent(operation.method, target, body, headers, named, session, csrf if operation.changes else "")

    def payload(self, operation: Operation, person: Person | None, marker: str = "") -> Any:
        """A plain payload that fits the type."""
        if operation.body is None:
            return {}
        marker = marker or (person.marker if person else "abc")
        made = sample(operation.body, self.random, marker)
        made = {key: each for key, each in made.items() if (str(operation), key) not in self.unsaid}
        for name, part in operation.body.get("properties", {}).items():
            if name in made and (look := self.knacks.get(knack_of(name, part))):
                made[name] = look.format(f"{marker}{self.random.randrange(10**6)}")
        return self.fill(made, operation, person)

    def fill(self, payload: Any, operation: Operation, person: Person | None, but: str = "") -> Any:
        """The payload with the person's password, and its address to log in or else a new one; the key `but` stays."""
        if not isinstance(payload, dict):
            return payload
        filled = dict(payload)
        for key in filled:
            if key in ("password", "old", "new") and key != but and isinstance(filled[key], str) and person:
                filled[key] = person.password
            elif key == "email" and key != but and isinstance(filled[key], str):
                self._emails += 1
                knows = person and operation.path == "/auth/login"
                filled[key] = person.email if person and knows else f"x{self._emails}@{self.cast.domain}"
        return filled

    def path_values(self, operation: Operation, person: Person | None) -> dict[str, Any]:
        """Values for the path's parameters: ids of what the person has made, where a route makes such things."""
        values: dict[str, Any] = {}
        for parameter in operation.of("path"):
            maker = self.maker_of(operation, parameter.name)
            if maker and person and person.session:
                values[parameter.name] = self.make(maker, person, parameter.name)
            elif operation.stage == "admin" and parameter.name == "id":
                values[parameter.name] = self.target()
            else:
                values[parameter.name] = sample(parameter.schema, self.random)
        return values

    def target(self) -> str:
        """The id of a user for admins to act on."""
        found = self.cast.people.get("target")
        if found is None:
            found = self.cast.people["target"] = self.cast.new("target")
        return found.id or "a" * 16

    def maker_of(self, operation: Operation, name: str) -> Operation | None:
        """The route that makes what a path parameter names: a POST to a path above, with the name in reply or body."""
        above = operation.path.partition(f"/{{{name}}}")[0]
        while above:
            maker = self.operation("POST", above)
            if maker and (maker.fields.get(name) == name or name in (maker.body or {}).get("properties", {})):
                return maker
            above = above.rpartition("/")[0]
        return None

    def make(
        self, maker: Operation, person: Person, name: str, payload: Any = NOTHING, sent: Sent | None = None
    ) -> Any:
        """The id of something that the person has made; given a payload, it is made now. `sent` is the request."""
        known = person.made[maker.path]
        if payload is NOTHING:
            if known:
                return known[-1]
            payload = self.payload(maker, person)
        got = self.wire.send(sent or self.compose(maker, person, payload), person.address)
        id = id_of(name, payload, got)
        if id is not None:
            known.append(id)
        return 1 if id is None else id

    def referring(self, operation: Operation, person: Person, owner: Person | None = None) -> Any:
        """A plain payload that refers to what its sender, or another owner, has made: in a key with the name of the ids
        that a route above gives, or in a list with that name's plural.
        """
        payload = self.payload(operation, person)
        makers = [each for each in owners(self.operations) if operation.path.startswith(f"{each.path}/")]
        for maker in makers if isinstance(payload, dict) else ():
            name, made = self.name_of(maker), (owner or person).made[maker.path]
            if made and name in payload:
                payload[name] = made[-1]
            if made and isinstance(payload.get(f"{name}s"), list):
                payload[f"{name}s"] = made[-1:]
        return payload

    def name_of(self, maker: Operation) -> str:
        """The name that the paths below a route have for what it makes."""
        below = [(each, part.name) for each in self.operations for part in each.of("path")]
        names = [name for each, name in below if self.maker_of(each, name) is maker]
        return next((each for each in (*maker.fields, *names) if each in names), next(iter(maker.fields), "id"))
