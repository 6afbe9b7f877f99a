"""The route table: every route on one screen, found by lookup, not by trying each."""

import inspect
import re
import sys
import typing
from collections.abc import Awaitable, Callable, Sequence
from opcode import opmap
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from backlore.core.payload import Codec, Invalid, Payload
from backlore.web.body import Body, Nothing, RawBody, Stream
from backlore.web.handlers import may_pass
from backlore.web.limits import Limits
from backlore.web.reply import Header, Next, Reply
from backlore.web.request import Refused, Request, become_task

Handler = Callable[..., Awaitable[Reply | Next]]
Answer = Any  # a Reply or NEXT; the application checks it, because handlers are not ours
Limit = Callable[[Request], Awaitable[Reply | None]]  # counts a request; None lets it pass
Verdict = Reply | None | Awaitable[Reply | None]  # a refusal; None lets a request pass
Gate = Callable[[Request, "Route", Any], Verdict]  # stands before a stage

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # methods that change nothing and take no body


class RouteError(Exception):
    """A route that can't work. Raised when the table is made, not when a request comes."""


class Stage:
    """Makes routes at one stage: `private.post("/notes", create_note)`.

    In a path, `{id}` is one segment and `{path...}` all the rest; a handler takes them as arguments of these names.
    """

    def __init__(
        self, name: str, rank: int, gates: tuple[Gate, ...] = (), again: tuple[Gate, ...] = (), most: int = sys.maxsize
    ):
        self.name = name
        self.rank = rank
        self.gates = gates
        self.again = again  # the gates that depend on the session, and are asked again: it may end during a request
        self.has_session = bool(again)  # whether requests at this stage belong to a user
        self.most = most  # bytes of a body that is no upload; a smaller `body_limit` wins

    def get(self, path: str, handler: Handler) -> "Route":
        """A route that reads. It answers HEAD too."""
        return Route(self, "GET", path, handler)

    def post(self, path: str, handler: Handler, limit: Limit | None = None) -> "Route":
        """A route that changes something.

        `limit` counts its requests before their bodies are read, unless the csrf gate had to look for its token there.
        """
        return Route(self, "POST", path, handler, limit=limit)

    def route(self, method: str, path: str, handler: Handler) -> "Route":
        """A route of any other method; `*` is every method."""
        return Route(self, method.upper(), path, handler)

    def mount(self, path: str, application: Any) -> "Route":
        """Any ASGI application below `path`, behind the gates of this stage (csrf token in the header only).

        The application finds the user in `scope["state"]["user"]`.
        """
        return Route(self, "*", f"{path.rstrip('/')}/{{path...}}", application, mounted=path.rstrip("/"))

    def __repr__(self) -> str:
        return self.name


class Route:
    """One row of the table. The handler's signature says what it takes: `body`, `query`, and parameters of the path.

    Raises RouteError for a route that can't work.
    """

    def __init__(
        self, stage: Stage, method: str, path: str, handler: Any, mounted: str | None = None, limit: Limit | None = None
    ):
        self.stage = stage
        self.method = method
        self.path = path
        self.handler = handler
        self.most = stage.most
        self.limit = limit
        self.mounted = mounted  # the path below which another ASGI application answers
        self.segments = tuple(path.removeprefix("/").split("/"))
        self.parameters: dict[str, Codec[Any]] = {}
        self.query: Codec[Any] | None = None
        self.body: Body | RawBody | None = None
        self.limits: Limits  # set by the owner of the table, like the keeper
        self.keeper: Any
        self.said: list[Header] = []  # headers of every error reply to a request for its path
        # of each parameter: its name, its place in the path, and whether it takes all the rest
        self.places = [
            (s[1:-1].removesuffix("..."), place, s.endswith("...}"))
            for place, s in enumerate(self.segments)
            if s.startswith("{")
        ]
        # the same for paths that differ only in the names of their parameters
        self.shape = tuple(re.sub(r"^\{.*?(\.*)\}$", r"{\1}", segment) for segment in self.segments)
        self.names = [name for name, _, _ in self.places]
        if not path.startswith("/"):
            raise RouteError(f"{self}: a path begins with /")
        if mounted is None:
            self._read_signature()

    @property
    def may_pass(self) -> bool:
        """Whether a request may go on to the next route."""
        return self.mounted is None and may_pass(self.handler)

    def __repr__(self) -> str:
        return f"{self.stage.name}.{self.method.lower()}({self.path!r})"

    def _read_signature(self) -> None:
        function = self.handler if inspect.isroutine(self.handler) else self.handler.__call__
        if not inspect.iscoroutinefunction(function):
            raise RouteError(f"{self}: the handler must be `async def`")
        kinds = typing.get_type_hints(function, include_extras=True)
        taken = list(inspect.signature(function).parameters)[1:]
        for name in taken:
            if name == "body" and kinds.get(name) is Stream:
                self.body = RawBody()
            elif name == "body" and self.method not in SAFE:
                self.body = Body(_payload(self, kinds.get(name)), with_csrf=self.stage.has_session)
            elif name == "query":
                self.query = Codec(_payload(self, kinds.get(name)))
            elif name in self.names:
                self.parameters[name] = Codec(kinds.get(name, str))
            else:
                raise RouteError(f"{self}: the handler takes {name!r}, which is no body, query or part of the path")
        if self.body is None and self.method not in SAFE and self.method != "*":
            self.body = Body(Nothing, with_csrf=self.stage.has_session)
        # the fast path: a handler that takes only the request, or the request and a body, is called directly
        self._takes_body = "body" in taken
        self._plain = not self.parameters and self.query is None
        self._waits = may_wait(function)
        self._texts = {name for name in self.parameters if kinds.get(name, str) is str}  # any text is valid for these

    def run(self, request: Request) -> Awaitable[Answer]:
        """Decode the handler's arguments and call it. Raises what `Body.read`, `Codec` and the handler raise."""
        if self.body is None and self._plain and not self._waits:
            answer: Awaitable[Answer] = self.handler(request)
            return answer
        return self._run(request)

    async def _run(self, request: Request) -> Answer:
        if self.body is None:
            if self._waits:
                await become_task()
            return await self.handler(request, **({} if self._plain else self._arguments(request)))
        if self.limit and (refused := await self.limit(request)):
            return refused
        body = await self.body.read(request, self.limits)
        if self._waits:
            await become_task()
        arguments = {} if self._plain else self._arguments(request)
        if self._takes_body:
            return await self.handler(request, body=body, **arguments)
        return await self.handler(request, **arguments)

    async def look_again(self, request: Request) -> None:
        """See `Request.look_again`."""
        verdict = self.judge(request, self.stage.again)
        if verdict is not None:
            refusal = verdict if isinstance(verdict, Reply) else await verdict
            if refusal is not None:
                raise Refused(refusal)

    def judge(self, request: Request, gates: Sequence[Gate]) -> Verdict:
        """The first refusal of these gates, or None if all let the request pass. An awaitable if a gate has to wait."""
        for gate in gates:
            verdict = gate(request, self, self.keeper)
            if verdict is not None:
                if isinstance(verdict, Reply):
                    return verdict
                return self._judge_on(verdict, request, gates[gates.index(gate) + 1 :])
        return None

    async def _judge_on(self, first: Awaitable[Reply | None], request: Request, gates: Sequence[Gate]) -> Reply | None:
        if refusal := await first:
            return refusal
        verdict = self.judge(request, gates)
        return verdict if verdict is None or isinstance(verdict, Reply) else await verdict

    async def csrf_of(self, request: Request) -> str:
        """The csrf token in the body, for the csrf gate; "" if there is none."""
        return "" if self.body is None else await self.body.csrf(request, self.limits)

    def _arguments(self, request: Request) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        for name, codec in self.parameters.items():
            if name in self._texts:
                arguments[name] = request.parameters[name]
                continue
            try:
                arguments[name] = codec.from_object(request.parameters[name], strict=False)
            except Invalid:
                raise NoSuchPath from None
        if self.query is not None:
            arguments["query"] = self.query.from_urlencoded(request.query_string.decode("latin-1"))
        return arguments


def may_wait(function: Any) -> bool:
    """Whether a coroutine function may wait: it can't if its code has no `await`."""
    code = getattr(function, "__code__", None)
    return code is None or opmap["SEND"] in code.co_code[::2]  # every second byte is an argument


class NoSuchPath(Exception):
    """A part of the path doesn't match its type, or has bad escapes, so the path doesn't exist: 404."""


def _payload(route: Route, kind: Any) -> type[Any]:
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct | Payload)):
        raise RouteError(f"{route}: give `body` and `query` a type that is a Payload")
    return kind


class Branch:
    """A node of the tree of paths."""

    __slots__ = ("branches", "parameter", "rest", "routes")

    def __init__(self) -> None:
        self.branches: dict[str, Branch] = {}
        self.parameter: Branch | None = None
        self.rest: Branch | None = None
        self.routes: list[tuple[int, Route]] = []


class Table:
    """All routes of an application, ordered by stage, and within a stage as they were added."""

    def __init__(self) -> None:
        self.routes: list[Route] = []
        self._root = Branch()
        self._fixed: dict[str, list[Route]] = {}

    def add(self, routes: list[Route]) -> None:
        """Add routes after those of the same stage. Raises RouteError for one that no request would reach."""
        ordered = sorted([*self.routes, *routes], key=lambda route: route.stage.rank)
        _refuse_unreachable(ordered)
        self.routes = ordered
        self._root = Branch()
        for rank, route in enumerate(self.routes):
            self._grow(route).routes.append((rank, route))
        paths = {route.path for route in self.routes if not route.names}
        self._fixed = {path: self._walk_all(path.removeprefix("/").split("/")) for path in paths}

    def _grow(self, route: Route) -> Branch:
        branch = self._root
        for segment in route.segments:
            if segment.startswith("{") and segment.endswith("...}"):
                branch.rest = branch.rest or Branch()
                return branch.rest
            if segment.startswith("{"):
                branch.parameter = branch.parameter or Branch()
                branch = branch.parameter
            else:
                branch = branch.branches.setdefault(segment, Branch())
        return branch

    def find(self, request: Request) -> list[Route]:
        """The routes that match the request's path, of all methods, in order. Raises NoSuchPath for bad escapes."""
        raw: bytes = request.scope["raw_path"]
        if raw.find(b"%") >= 0:  # `in` on bytes raises and catches an exception internally: four times as slow
            return self._walk_all([decode_path(part) for part in raw.removeprefix(b"/").split(b"/")])
        fixed = self._fixed.get(request.path)
        return self._walk_all(request.path.removeprefix("/").split("/")) if fixed is None else fixed

    def said(self, request: Request) -> list[Header]:
        """The headers that error replies for the request's path carry."""
        try:
            return next((route.said for route in self.find(request) if route.said), [])
        except NoSuchPath:
            return []

    def _walk_all(self, segments: list[str]) -> list[Route]:
        found: list[tuple[int, Route]] = []
        _walk(self._root, segments, 0, found)
        found.sort(key=lambda each: each[0])
        return [route for _, route in found]


def _refuse_unreachable(routes: list[Route]) -> None:
    """Raises RouteError for a second route of a method and path, unless the first is another handler that may pass."""
    seen: dict[tuple[str, tuple[str, ...]], list[Route]] = {}
    for route in routes:
        before = seen.setdefault((route.method, route.shape), [])
        for each in before:
            if each.handler == route.handler or not each.may_pass:
                raise RouteError(f"{route} is never reached: {each} is in the table before it, and never gives NEXT")
        before.append(route)


def _walk(branch: Branch, segments: list[str], at: int, found: list[tuple[int, Route]]) -> None:
    if branch.rest:
        found.extend(branch.rest.routes)
    if at == len(segments):
        found.extend(branch.routes)
        return
    if inner := branch.branches.get(segments[at]):
        _walk(inner, segments, at + 1, found)
    if branch.parameter and segments[at]:
        _walk(branch.parameter, segments, at + 1, found)


def decode_path(raw: bytes) -> str:
    """Decode a part of a path. Percent escapes are UTF-8 (RFC 3986, §2.5); raises NoSuchPath if they are not."""
    try:
        return (unquote_to_bytes(raw) if b"%" in raw else raw).decode("utf-8")
    except UnicodeDecodeError:
        raise NoSuchPath from None


def read_parameters(route: Route, raw_path: bytes) -> dict[str, str]:
    """The path's parameters, by the names in the route. An escaped slash is no separator."""
    parts = raw_path.removeprefix(b"/").split(b"/")
    return {
        name: decode_path(b"/".join(parts[place:]) if takes_rest else parts[place])
        for name, place, takes_rest in route.places
    }
