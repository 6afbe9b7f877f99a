"""The ASGI application: takes a request through its stages, and sends exactly one reply, whatever happens."""

import errno
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec.structs import replace

from backlore.core.notify import Level, Notify
from backlore.core.origins import read_network
from backlore.core.payload import Invalid, Malformed
from backlore.web.body import UnknownType
from backlore.web.delivery import StreamReply, watched
from backlore.web.fields import Repeated
from backlore.web.handlers import place
from backlore.web.limits import Limits, TooLarge, TooSlow
from backlore.web.mounted import Handover
from backlore.web.reply import NEXT, NO_STORE, REVALIDATE, SECURITY, Header, Reply, Send, etag_matches, etag_of, reply
from backlore.web.request import Disconnected, Proxies, Receive, Refused, Request, Scope, become_task
from backlore.web.routes import Gate, NoSuchPath, Route, Table, read_parameters
from backlore.web.stages import Keeper

HSTS: Header = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
UNREAD = [("connection", "close")]  # for a reply sent before the body was read: the server closes such a connection

Hook = Callable[[], Awaitable[None]]
Refusals = Mapping[type[Exception], tuple[int, str]]  # status and word


class Application:
    """Give it routes, then serve it with any ASGI server.

    `keeper` knows sessions, None if no route needs them. `unavailable`: exceptions of clients that become 503.
    `refusals`: exceptions of services, with their status and word. The hooks `on_start` and `on_stop` run when the
    server starts and stops. `draining` is set when the worker is about to end: open-ended replies end then.
    """

    def __init__(
        self,
        keeper: Keeper | None,
        notify: Notify,
        limits: Limits,
        unavailable: tuple[type[Exception], ...] = (),
        refusals: Refusals | None = None,
        proxies: list[str] | None = None,
        secure: bool = False,
    ):
        self.table = Table()
        self.draining = False
        self.under_way = 0  # requests in flight
        self.served = 0  # requests since the start
        self.on_start: list[Hook] = []
        self.on_stop: list[Hook] = []
        self.tells_all = False  # notify of successful requests too
        self._keeper = keeper
        self._notify = notify
        self._limits = limits
        self._unavailable = unavailable
        self._refusals = refusals or {}
        self._proxies = Proxies([read_network(proxy) for proxy in proxies or []])
        self._always: list[Header] = [HSTS] if secure else []

    def add(self, *routes: Route) -> None:
        """Add routes to the table, after those of the same stage. Raises RouteError for one that is never reached."""
        for route in routes:
            route.limits = replace(self._limits, body=min(self._limits.body, route.most))
            route.keeper = self._keeper
        self.table.add(list(routes))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3.0: HTTP and lifespan."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            self.under_way += 1
            request = Request(scope, receive, self._proxies)
            try:
                try:
                    answer = await self._pass(request)
                except Exception as error:  # an exception becomes an error reply
                    answer = self._refuse(request, error)
                if answer.status >= 400 or self.tells_all:
                    self._tell(request, answer)
                try:
                    sending = self._send(request, answer, send)
                except Exception as error:
                    self._notify("error", "reply.failed", error=error, **_about(request))
                    raise  # the server breaks the connection, so that the client can't take a part for the whole
                if sending:
                    await sending
            finally:
                self.under_way -= 1
                self.served += 1
                request.end()

    def is_proxy(self, address: str) -> bool:
        """Whether an address is a configured proxy's, behind which are many clients."""
        return self._proxies.read(address)[1]

    def tell_refused(self, status: int, word: str, address: str) -> None:
        """Notify of a message that was refused before it became a request."""
        self._notify("info", "reply", status=status, error=word, origin=address)

    def _send(self, request: Request, answer: Reply, send: Send) -> Awaitable[None] | None:
        """Send a reply. Returns None when it is sent, else an awaitable that sends it."""
        if isinstance(answer, Handover):
            return self._hand_over(request, answer, send)
        headers = answer.headers  # never changed in place: a handler may return one reply many times
        if answer.cacheable and (request.method == "GET" or request.method == "HEAD"):
            etag = etag_of(answer.body)
            if etag_matches(request.headers.get(b"if-none-match"), etag):
                answer, headers = Reply(304, b"", []), SECURITY
            # no cache may keep a user's data; the browser may still revalidate with the tag
            headers = [*headers, (b"etag", etag), NO_STORE if request.session else REVALIDATE]
        elif answer.cacheable or answer.error:
            headers = [*headers, NO_STORE]
        if answer.status >= 400:
            headers = headers + self.table.said(request)
        if self._always:
            headers = headers + self._always
        if request.exchange and type(answer) is Reply:  # a complete reply needs no ASGI messages
            request.exchange.whole(answer.status, headers, answer.body)
            return None
        return self._send_parts(request, answer, headers, send)

    async def _send_parts(self, request: Request, answer: Reply, headers: list[Header], send: Send) -> None:
        """Send by ASGI messages, which may wait for the client."""
        try:
            sending = answer.send(send, headers, request.method == "HEAD")
            if answer.is_long:
                await become_task()
                sending = watched(request, sending)
            await sending
        except Disconnected:
            self._notify("info", "client.disconnected", **_about(request))
        except Refused as refused:
            self._notify("info", "reply.refused", error=str(refused), **_about(request))
            if not (isinstance(answer, StreamReply) and answer.may_end):
                raise  # as above
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except Exception as error:
            self._notify("error", "reply.failed", error=error, **_about(request))
            raise  # as above

    def _refuse(self, request: Request, error: Exception) -> Reply:
        match error:
            case Refused():
                return error.answer
            case Invalid():
                return reply(400, error="payload", where=error.where, why=error.why)
            case Malformed():
                return reply(400, error="json")
            case Disconnected():  # a client that only sent a malformed chunk is still there to read the reply
                self._notify("info", "client.disconnected", **_about(request))
                return reply(400, error="json", headers=UNREAD)
            case Repeated():
                return reply(400, error="header", where=str(error), why="Is given more than once.")
            case NoSuchPath():
                return reply(404, error="route")
            case TooLarge():
                return reply(413, error="size", headers=UNREAD)
            case UnknownType():
                return reply(415, error="type")
            case TooSlow():
                return reply(408, error="timeout", headers=UNREAD)
            case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self._notify("error", "disk.full", error=error, **_about(request))
                return reply(507, error="disk", headers=UNREAD)
        if answer := self._refusals.get(type(error)):
            return reply(answer[0], error=answer[1])
        if isinstance(error, self._unavailable):
            self._notify("error", "unavailable", error=error, **_about(request))
            return reply(503, error="unavailable", headers=[("retry-after", "1")])
        self._notify("error", "handler.failed", error=error, **_about(request))
        return reply(500, error="server")

    async def _pass(self, request: Request) -> Reply:
        """Take the request through gates and routes, in order, to the first reply."""
        request.join_headers()
        routes = self.table.find(request)
        if len(request.scope["query_string"]) > self._limits.query:
            return reply(414, error="query")
        method = "GET" if request.method == "HEAD" else request.method
        passed: tuple[Gate, ...] = ()
        for route in routes:
            if route.method != method and route.method != "*":
                continue
            request.route = route
            if route.stage.again:
                request.ask_for_body()
            gates = route.stage.gates
            if len(gates) > len(passed):  # a later stage has all gates of the earlier ones, and more
                verdict = route.judge(request, gates[len(passed) :])
                if verdict is not None:
                    refusal = verdict if isinstance(verdict, Reply) else await verdict
                    if refusal is not None:
                        return refusal
                passed = gates
            if route.names:
                request.parameters = read_parameters(route, request.scope["raw_path"])
            if route.mounted is not None:
                return Handover(request, route.handler, route.mounted, route.limits)
            answer = await route.run(request)
            if isinstance(answer, Reply):
                return answer
            if answer is not NEXT:
                about = {"got": type(answer).__name__, "handler": place(route.handler), **_about(request)}
                self._notify("error", "handler.noreply", **about)
                return reply(500, error="server")
        return _no_route(request, routes)

    async def _hand_over(self, request: Request, answer: Handover, send: Send) -> None:
        await become_task()
        try:
            await answer.run(send)
        except Exception as error:
            failed = self._refuse(request, error)
            self._tell(request, failed)
            if answer.began:
                raise
            await failed.send(send, failed.headers, request.method == "HEAD")

    def _tell(self, request: Request, answer: Reply) -> None:
        level: Level = "error" if answer.status >= 500 else "info"
        took = f"{(time.time() - request.started) * 1e3:.1f}ms"
        self._notify(level, "reply", status=answer.status, error=answer.error, took=took, **_about(request))

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            hooks, done = (
                (self.on_start, "lifespan.startup.complete")
                if message["type"] == "lifespan.startup"
                else (self.on_stop, "lifespan.shutdown.complete")
            )
            for hook in hooks:
                await hook()
            await send({"type": done})
            if done == "lifespan.shutdown.complete":
                return


def _no_route(request: Request, routes: list[Route]) -> Reply:
    methods = {route.method for route in routes if route.stage.rank > 0}
    if not methods:
        return reply(404, error="route")
    if "*" in methods or request.method in methods:
        return reply(404, error="route")  # every route of this method has returned NEXT
    if "GET" in methods:
        methods.add("HEAD")
    allow = [("allow", ", ".join(sorted(methods | {"OPTIONS"})))]
    if request.method == "OPTIONS":
        return Reply(204, b"", [*SECURITY, (b"allow", allow[0][1].encode())])
    return reply(405, error="method", headers=allow)


def _about(request: Request) -> dict[str, Any]:
    """The fields that notify gets about a request: never its query, headers or body."""
    about = {"method": request.method, "path": request.told_path, "origin": request.origin}
    if hasattr(request, "user"):
        about["user"] = request.user.id
    return about
