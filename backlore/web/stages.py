"""One request's way: avant → public → auth → gatekeeper → csrf → private → admin gatekeeper → admin.

A stage is a property of a route, never a test of its path. Between the stages stand the gates: each lets a
request pass (None) or replies. A request meets a gate once, when it reaches the first route behind it.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from backlore.core.crypto import Signer
from backlore.core.notify import Notify
from backlore.web.cookie import SessionCookie, Tampered
from backlore.web.reply import Reply, reply
from backlore.web.request import Request, User
from backlore.web.routes import Handler, Route

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # they change nothing, so they need no csrf token

Gate = Callable[[Request, "Keeper"], Awaitable[Reply | None]]


class Keeper:
    """What the gates know: the cookie, the csrf signature, and how a session is looked up (by a service)."""

    def __init__(
        self,
        cookie: SessionCookie,
        secret: str,
        load: Callable[[str], Awaitable[User | None]],
        notify: Notify,
    ):
        self.cookie = cookie
        self.csrf = Signer(secret, "csrf")  # the token of a session is its signature: nothing to keep
        self.load = load
        self.notify = notify


async def gatekeeper(request: Request, keeper: Keeper) -> Reply | None:
    """Load the user of the session. No cookie, an ended session and a forged one are told apart."""
    session = keeper.cookie.read(request.headers.get(b"cookie"))
    if session is None:
        return reply(403, error="nocookie")
    if isinstance(session, Tampered):
        keeper.notify("warning", "session.tampered", origin=request.origin, path=request.path)
        return reply(403, error="tampered")
    user = await keeper.load(session)
    if user is None:
        return reply(403, error="session", headers=[keeper.cookie.take()])
    request.user = user
    request.session = session
    return None


async def csrf(request: Request, keeper: Keeper) -> Reply | None:
    """What could change something carries the session's token, in x-csrf-token or in the body's `csrf`."""
    if request.method in SAFE:
        return None
    header = request.headers.get(b"x-csrf-token")
    token = await request.route.csrf_of(request) if header is None else header.decode("latin-1")
    if keeper.csrf.verify(request.session, token):
        return None
    return reply(403, error="csrf")


async def admin_gatekeeper(request: Request, keeper: Keeper) -> Reply | None:
    """Only an admin reaches a route behind this gate."""
    return None if request.user.admin else reply(403, error="admin")


class Stage:
    """Makes routes that stand at this stage: `private.post("/notes", create_note)`.

    In a path `{id}` is one segment and `{path...}` all the rest; a handler takes them by name and type.
    """

    def __init__(self, name: str, rank: int, gates: tuple[Gate, ...] = ()):
        self.name = name
        self.rank = rank
        self.gates = gates

    def get(self, path: str, handler: Handler) -> Route:
        """A route that reads; it answers HEAD too."""
        return Route(self, "GET", path, handler)

    def post(self, path: str, handler: Handler) -> Route:
        """A route that changes something."""
        return Route(self, "POST", path, handler)

    def route(self, method: str, path: str, handler: Handler) -> Route:
        """A route of another method; `*` is any."""
        return Route(self, method.upper(), path, handler)

    def mount(self, path: str, application: Any) -> Route:
        """Any ASGI application below `path`, behind the gates of this stage (csrf by header only).

        It finds the user in its scope as `scope["state"]["user"]`.
        """
        return Route(self, "*", f"{path.rstrip('/')}/{{path...}}", application, mounted=path.rstrip("/"))

    def __repr__(self) -> str:
        return self.name


avant = Stage("avant", 0)
public = Stage("public", 1)
auth = Stage("auth", 2)
private = Stage("private", 3, (gatekeeper, csrf))
admin = Stage("admin", 4, (gatekeeper, csrf, admin_gatekeeper))
STAGES = (avant, public, auth, private, admin)
