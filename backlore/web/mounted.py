"""Runs a mounted ASGI application: within our limits, and for as long as the session holds."""

import asyncio
from typing import Any

from backlore.web.delivery import held
from backlore.web.incoming import Incoming
from backlore.web.limits import Limits
from backlore.web.reply import Reply, Send
from backlore.web.request import Disconnected, Request, Scope


class Handover(Reply):
    """The reply of a mounted application, which sends it itself. `began`: a part of it has been sent."""

    __slots__ = ("_application", "_body", "_end", "_limits", "_request", "_scope", "_send", "began")

    def __init__(self, request: Request, application: Any, prefix: str, limits: Limits):
        super().__init__(200, b"", [])
        self.began = False
        self._request = request
        self._application = application
        self._limits = limits
        self._scope = _scope_below(request, prefix)
        self._body: Incoming | None
        self._end: asyncio.Future[Exception]
        self._send: Send

    async def run(self, send: Send) -> None:
        """Let the application answer. Raises what it raises, what `Incoming` raises for its body, and Refused."""
        self._send = send
        self._body = Incoming(self._request, self._limits, self._limits.upload)
        self._end = asyncio.get_running_loop().create_future()
        await held(self._request, self._application(self._scope, self._receive_part, self._send_part), self._end)

    async def _receive_part(self) -> dict[str, Any]:
        if self._body is None:
            return await self._request.message()  # it comes when the client has gone
        try:
            chunk = await self._body.chunk()
        except Disconnected:
            return {"type": "http.disconnect"}
        except Exception as error:
            if not self._end.done():
                self._end.set_result(error)
            await asyncio.Event().wait()  # for ever: the application is cancelled, and we answer
        if not chunk:
            self._body = None
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    async def _send_part(self, message: dict[str, Any]) -> None:
        self.began = True
        await self._send(message)


def _scope_below(request: Request, prefix: str) -> Scope:
    """The scope for an application mounted at `prefix` (ASGI: root_path), with the user of the session."""
    state = dict(request.scope.get("state") or {})
    if hasattr(request, "user"):
        state["user"] = request.user
    scope = {**request.scope, "root_path": request.scope.get("root_path", "") + prefix, "state": state}
    scope.pop("exchange", None)  # with it a mounted Backlore application would bypass the checks of the session
    return scope
