"""The lines of text files: the last ones, those that match conditions, and new ones as they come.

Laws: a client that disconnects ends its search. A stream of new lines repeats no line and omits none, however often it
is cut: the `Last-Event-ID` that a browser sends when it reconnects names the version of the file and the line. A stream
ends with the session, when the worker drains, and after some minutes.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Annotated, Any, Literal

import msgspec

from backlore.core.payload import Payload, between, length
from backlore.services.files.catalog import Changed, NoFile
from backlore.services.lines.conditions import LONGEST_PATTERN, LONGEST_TEXT, Wanted
from backlore.services.lines.lines import Found, Line, Lines
from backlore.services.lines.windows import Stretch
from backlore.web.delivery import StreamReply, watched
from backlore.web.reply import NO_STORE, SECURITY, Header, Reply, quality_of, reply
from backlore.web.request import Request
from backlore.web.routes import Route
from backlore.web.stages import private

STREAM = b"application/x-ndjson"
MOST = 10_000  # lines in one answer
END = 2**53  # beyond every file
QUIET = 15.0  # seconds after which a stream without new lines sends a sign of life
LASTS = 600.0  # seconds that a stream of new lines lasts; then the client reconnects
UNBUFFERED: Header = (b"x-accel-buffering", b"no")  # for nginx

Byte = Annotated[int, between(0, END)]
Text = Annotated[str, length(1, LONGEST_TEXT)]
Pattern = Annotated[str, length(1, LONGEST_PATTERN)]
encode = msgspec.json.Encoder().encode


class LastLines(Payload):
    lines: Annotated[int, between(1, MOST)] = 10


class Asked(Payload):
    """Conditions on lines, see `lines.conditions`. All must hold, and each may be given several times."""

    contains: Annotated[list[Text], length(0, 10)] = []
    matches: Annotated[list[Pattern], length(0, 10)] = []
    where: Annotated[list[Text], length(0, 10)] = []
    ignore_case: bool = False

    @property
    def wanted(self) -> Wanted:
        """The conditions as the service takes them."""
        return Wanted(tuple(self.contains), tuple(self.matches), tuple(self.where), self.ignore_case)


class LinesAsked(Asked):
    """The search covers the lines that begin at the byte `after` or later, and before the byte `before`."""

    order: Literal["newest", "oldest"] = "newest"
    limit: Annotated[int, between(1, MOST)] = 100
    after: Byte = 0
    before: Byte = END
    seconds: Annotated[float, between(0, 60)] = 10


class LinesToCome(Asked):
    """`lines`: how many of the lines that are there already come first."""

    lines: Annotated[int, between(0, MOST)] = 10


class LineRoutes:
    """The routes. `is_draining` says whether this worker is shutting down."""

    def __init__(self, lines: Lines, is_draining: Callable[[], bool]):
        self._lines = lines
        self._is_draining = is_draining

    def routes(self, prefix: str) -> list[Route]:
        """For the route table."""
        return [
            private.get(f"{prefix}/tail/{{name...}}", self._tail),
            private.get(f"{prefix}/filter/{{name...}}", self._filter),
            private.get(f"{prefix}/follow/{{name...}}", self._follow),
        ]

    async def _tail(self, request: Request, name: str, query: LastLines) -> Reply:
        """The last lines of a file, in its order; `before` is for the filter, which gives the lines before them.

        `cut`: a line is longer than its text here. 200 {"lines": [str], "before": int, "cut": bool}; 400; 404 `file`.
        """
        found = await watched(request, self._lines.tail(request.user.id, name, query.lines))
        lines = [line.text for line in found.lines]
        return reply(200, {"lines": lines, "before": found.left.before, "cut": any(line.cut for line in found.lines)})

    async def _filter(self, request: Request, name: str, query: LinesAsked) -> Reply:
        """The lines of a file that match, each with the byte where it begins. `after` and `before` are the stretch that
        is left to be searched when there were more than `limit`, or it took too long: send them to continue.

        200 {"lines": [{"at": int, "text": str, "cut": bool}], "after": int, "before": int}; 400; 404 `file`.
        A client that accepts application/x-ndjson gets each line as it is found, as JSON; last `{"after", "before"}`.
        """
        stretch, user = Stretch(query.after, query.before), request.user.id
        how: dict[str, Any] = {
            "newest": query.order == "newest",
            "limit": query.limit,
            "stretch": stretch,
            "seconds": query.seconds,
        }
        accept = request.headers.get(b"accept", b"")
        wanted = quality_of(accept, STREAM)
        if wanted and wanted >= quality_of(accept, b"application/json"):
            scan = await self._lines.scan(user, name, query.wanted, **how)
            return StreamReply(200, [(b"content-type", STREAM), *SECURITY, NO_STORE], _ndjson(scan))
        found = await watched(request, self._lines.filter(user, name, query.wanted, **how))
        return reply(200, {"lines": [show(line) for line in found.lines], **found.left._asdict()})

    async def _follow(self, request: Request, name: str, query: LinesToCome) -> Reply:
        """The last lines of a file that match, and each new one as soon as it ends, as server-sent events: `data` is
        {"at", "text", "cut"} as JSON. The event `end` says `deleted` or `replaced`: nothing more will come.

        200 text/event-stream; 400; 404 `file`.
        """
        version, _, at = (request.header("last-event-id") or "").rpartition(":")
        place = int(at) if at.isascii() and at.isdigit() and len(at) < 17 else -1
        user = request.user.id
        version, lines = await self._lines.follow(
            user, name, query.wanted, count=query.lines, version=version, at=place
        )
        headers = [(b"content-type", b"text/event-stream"), *SECURITY, NO_STORE, UNBUFFERED]
        return StreamReply(200, headers, self._events(version, lines), may_end=True)

    async def _events(self, version: str, stream: AsyncGenerator[list[Line], None]) -> AsyncIterator[bytes]:
        until, said = time.monotonic() + LASTS, time.monotonic()
        yield b"retry: 1000\n\n"
        try:
            async with aclosing(stream):
                async for lines in stream:
                    now = time.monotonic()
                    if lines:
                        yield b"".join(_event(version, line) for line in lines)
                        said = now
                    elif now > said + QUIET:
                        yield b":\n\n"
                        said = now
                    if now > until or self._is_draining():
                        return
        except (NoFile, Changed) as error:
            yield b"event: end\ndata: %s\n\n" % (b"deleted" if isinstance(error, NoFile) else b"replaced")


def _event(version: str, line: Line) -> bytes:
    return b"id: %s:%d\ndata: %s\n\n" % (version.encode(), line.at, encode(show(line)))


async def _ndjson(scan: AsyncGenerator[Found, None]) -> AsyncIterator[bytes]:
    async with aclosing(scan):
        async for found in scan:
            if found.lines:
                yield b"".join(encode(show(line)) + b"\n" for line in found.lines)
    yield encode(found.left._asdict()) + b"\n"


def show(line: Line) -> dict[str, Any]:
    """A line as clients see it."""
    return {"at": line.at, "text": line.text, "cut": line.cut}
