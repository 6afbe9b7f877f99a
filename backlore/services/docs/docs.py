"""All routes as a page, in dev: to read, and to try out with one's own session. Its script makes it from /openapi.json.

Laws: requests that are tried out take effect, so only the developer's browser gets the page. It loads nothing from
other sites. The texts and replies of an application are shown as text, never as markup.
"""

from collections.abc import Callable
from pathlib import Path

from backlore.web.reply import NO_STORE, SECURITY, Header, Reply
from backlore.web.request import Request
from backlore.web.routes import Route
from backlore.web.stages import public
from backlore.web.static import POLICY

FILES = Path(__file__).parent
KINDS = {"html": b"text/html", "css": b"text/css", "js": b"text/javascript"}


class DocsPage:
    """Serves the page to requests for which `refuse` returns None."""

    def __init__(self, refuse: Callable[[Request], Reply | None]):
        self._refuse = refuse
        self._files = {end: (FILES / f"docs.{end}").read_bytes() for end in KINDS}

    def routes(self) -> list[Route]:
        """For the route table."""
        return [
            public.get("/docs", self._page),
            public.get("/docs/style.css", self._style),
            public.get("/docs/script.js", self._script),
        ]

    async def _page(self, request: Request) -> Reply:
        """All routes, to read and to try out. 200 text/html; 303 with a key; 403 `key`; 404 `route` from elsewhere."""
        return self._answer(request, "html", POLICY)

    async def _style(self, request: Request) -> Reply:
        """The stylesheet of the page. 200 text/css; 303; 403 `key`; 404 `route`."""
        return self._answer(request, "css")

    async def _script(self, request: Request) -> Reply:
        """The script of the page. 200 text/javascript; 303; 403 `key`; 404 `route`."""
        return self._answer(request, "js")

    def _answer(self, request: Request, end: str, *more: Header) -> Reply:
        if refusal := self._refuse(request):
            return refusal
        kind = (b"content-type", KINDS[end] + b"; charset=utf-8")
        return Reply(200, self._files[end], [kind, *SECURITY, NO_STORE, *more])
