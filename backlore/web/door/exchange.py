"""One request and its reply, as the application sees them: ASGI 3.0.

The scope holds two extras. One is the standard ASGI extension `http.response.zerocopysend`: the kernel sends a part
of an open file. The other is the exchange itself: through it a body that has arrived is taken, and a whole reply is
sent, by plain calls.

Laws:

- The length in a reply's head is kept, or the connection breaks, so that the client can't take a part for the whole.
- When a client goes away, only calls that wait for it end.
- A request that waits for nothing costs no task.
"""

import asyncio
from collections.abc import Coroutine, Generator, Iterable
from types import coroutine
from typing import TYPE_CHECKING, Any

from backlore.web.door.files import send_file, stretch_of
from backlore.web.door.reading import Head
from backlore.web.door.writing import (
    BODILESS,
    CHUNKED,
    CLOSE,
    CONTINUE,
    FRAMING,
    KEEP_ALIVE,
    LAST_CHUNK,
    Header,
    begin,
    chunk,
    length_line,
)
from backlore.web.request import Disconnected

if TYPE_CHECKING:
    from backlore.web.door.connection import Connection

ASGI = {"version": "3.0", "spec_version": "2.4"}
EXTENSIONS: dict[str, dict[str, Any]] = {"http.response.zerocopysend": {}}
UNKNOWN = -1  # as a length
CLOSES = b"\n" + CLOSE  # as a line within a head


class Exchange:
    """Runs the application for one request. `keep`: the connection stays open after it. `over`: it is answered."""

    __slots__ = (
        "_began", "_bodiless", "_chunked", "_connection", "_expects", "_head", "_left", "_start", "_taken", "_waiter",
        "keep", "over",
    )  # fmt: skip

    def __init__(self, connection: "Connection", head: Head):
        self._connection = connection
        self._head = head
        self._expects = head.said.expects  # the client waits for "100 Continue" before it sends the body
        self._start: dict[str, Any] | None = None  # the message that starts the reply, until its head is sent
        self._began = False  # the head of the reply is sent
        self._bodiless = False
        self._chunked = False
        self._left = 0  # bytes that the reply's head declares and that have not been sent yet
        self._taken = False  # the whole body has been taken
        self._waiter: asyncio.Future[None] | None = None  # done when more of the body is here, or the client has gone
        self.keep = head.said.keep_alive
        self.over = False

    def run(self) -> None:
        """Run the application. If it waits for nothing, the request is answered when this returns."""
        connection, line = self._connection, self._head.line
        scope = {
            "type": "http", "asgi": ASGI, "http_version": line.version, "method": line.method, "scheme": "http",
            "path": line.path, "raw_path": line.raw_path, "query_string": line.query, "root_path": "",
            "headers": self._head.said.fields, "client": connection.client, "server": connection.door.address,
            "extensions": EXTENSIONS, "exchange": self,
        }  # fmt: skip
        work = connection.door.application(scope, self.receive, self.send)
        context = connection.door.context.copy()  # one request's context variables must not leak into another
        try:
            awaited = context.run(work.send, None)
        except (Exception, asyncio.CancelledError):  # StopIteration, or an error that the application has reported
            self._break()
        else:
            task = connection.door.spawn(work if awaited is None else _go_on(work, awaited), context)
            task.add_done_callback(self._stop)

    def _stop(self, task: asyncio.Task[None]) -> None:
        self._connection.door.forget(task)
        if not task.cancelled():
            task.exception()  # as above
        self._break()

    def _break(self) -> None:
        """The application has ended: if the reply is incomplete, let the client see that."""
        if not self.over:
            self.over = True
            self._connection.fail(self._began, self._head.line.method == "HEAD")

    def wake(self) -> None:
        """Wake `receive`: more of the body is here, or the client has gone."""
        waiter, self._waiter = self._waiter, None
        if waiter and not waiter.done():
            waiter.set_result(None)

    def has_arrived(self) -> bool:
        """Whether the whole body is here."""
        return not self.over and self._connection.reader.complete

    def take_all(self) -> bytes:
        """Take the body that has arrived; call it once."""
        self._taken = True
        body = self._connection.reader.take()
        self._connection.read_on()
        return body

    async def receive(self) -> dict[str, Any]:
        """The next part of the body; `http.disconnect` when the client has gone or the reply is sent."""
        connection = self._connection
        reader = connection.reader
        while not self.over:
            if reader.size or (reader.complete and not self._taken):
                self._taken = reader.complete
                body = reader.take()
                connection.read_on()
                return {"type": "http.request", "body": body, "more_body": not self._taken}
            if connection.ended:
                break
            if self._expects:
                self._expects = False
                connection.write(CONTINUE)
            if self._waiter is None or self._waiter.done():
                self._waiter = connection.door.loop.create_future()
            await asyncio.shield(self._waiter)  # other calls may wait too when this one is cancelled
        return {"type": "http.disconnect"}

    def whole(self, status: int, headers: Iterable[Header], body: bytes) -> None:
        """Send a whole reply; `headers` must not frame the body. If the client has gone, nothing happens."""
        head = self._make_head(status, headers, len(body))
        self._connection.write(head + body if self._left else head)
        self._end()

    async def send(self, message: dict[str, Any]) -> None:
        """Take the head of the reply, or a part of its body.

        Raises Disconnected; OSError for a file that has become shorter; RuntimeError, ValueError for a wrong message.
        """
        kind, connection = message["type"], self._connection
        if kind == "http.response.start":
            if self._start or self._began:
                raise RuntimeError("a second head")
            self._start = message
            self._expects = False  # a "100 Continue" from now on would stand in the middle of the reply
            return
        if self.over:
            raise RuntimeError("the reply is complete already")
        if connection.gone:
            raise Disconnected
        more = message.get("more_body", False)
        if kind == "http.response.body":
            body = message.get("body", b"")
            # an empty body to HEAD says nothing about the length of GET's
            self._begin(UNKNOWN if more or (not body and self._head.line.method == "HEAD") else len(body))
            self._write(body)
        elif kind == "http.response.zerocopysend":
            offset, count = stretch_of(message)
            self._begin(UNKNOWN if more else count)
            if self._chunked:
                raise RuntimeError("a file in a reply of unknown length")
            if not self._bodiless:
                self._spend(count)
                await send_file(connection, message["file"], offset, count)
        else:
            raise RuntimeError(f"not a message of a reply: {kind}")
        if not more:
            self._finish()
        elif connection.full:
            await connection.drain()

    def _begin(self, length: int) -> None:
        """Send the head, unless it has been sent. A content-length in its headers wins over `length`."""
        start, self._start = self._start, None
        if start is None:
            if not self._began:
                raise RuntimeError("a body without a head")
            return
        headers = [(name.lower(), value) for name, value in start.get("headers", ())]
        for name, value in headers:
            if name == b"content-length":
                if not value.isdigit():
                    raise ValueError(f"no length: {value!r}")
                length = int(value)
        rest = [each for each in headers if each[0] not in FRAMING]
        self._connection.write(self._make_head(start["status"], rest, length))

    def _make_head(self, status: int, headers: Iterable[Header], length: int) -> bytes:
        """The head of a reply whose body has `length` bytes, or UNKNOWN (RFC 9112, §6). Decides on `keep` too.

        Raises ValueError for an informational status or a bad header.
        """
        connection, line = self._connection, self._head.line
        if status < 200:
            raise ValueError(f"the status {status} is informational: it ends no request")
        begun = begin(status, headers)
        # the connection closes when the door is shut, when the application says so, and when a body is still coming
        # that nobody waits for
        closes = connection.door.is_shut or begun.find(CLOSES) >= 0
        keep = self.keep = self.keep and connection.reader.complete and not closes
        framing = b""
        self._bodiless = status in BODILESS or line.method == "HEAD"
        self._left = 0 if self._bodiless else length
        if status in BODILESS:
            pass
        elif length >= 0:
            framing = length_line(length)
        elif line.version == "1.1":
            self._chunked = not self._bodiless
            framing = CHUNKED
        else:
            keep = self.keep = False
        if not keep and begun.find(CLOSES) < 0:
            framing += CLOSE
        elif line.version == "1.0":
            framing += KEEP_ALIVE
        self._began = True
        return b"".join((begun, framing, connection.door.date))

    def _write(self, body: bytes) -> None:
        if not body or self._bodiless:
            return
        if self._chunked:
            body = chunk(body)
        else:
            self._spend(len(body))
        self._connection.write(body)

    def _spend(self, count: int) -> None:
        """Count bytes of the body that are sent next. Raises RuntimeError if the head declares fewer."""
        if self._left != UNKNOWN:
            if count > self._left:
                raise RuntimeError("more than the reply's content-length")
            self._left -= count

    def _finish(self) -> None:
        if self._chunked:
            self._connection.write(LAST_CHUNK)
        elif self._left > 0:
            raise RuntimeError(f"{self._left} bytes less than the reply's content-length")
        self._end()

    def _end(self) -> None:
        self.over = True
        if self._waiter:
            self.wake()
        self._connection.finished(self)


async def _go_on(work: Coroutine[Any, Any, None], awaited: Any) -> None:
    """The rest of a coroutine that was started by hand and waits for `awaited`; a task runs this."""
    await _pass_on(work, awaited)


@coroutine
def _pass_on(work: Coroutine[Any, Any, None], awaited: Any) -> Generator[Any, Any, None]:
    try:
        while True:
            try:
                answer = yield awaited
            except BaseException as error:
                awaited = work.throw(error)
            else:
                awaited = work.send(answer)
    except StopIteration:
        return
