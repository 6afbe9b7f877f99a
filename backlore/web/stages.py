"""The way of a request: avant → public → auth → gatekeeper → csrf → private → admin gatekeeper → admin.

A stage is a property of a route, never a test of its path. Gates stand between the stages. A gate returns None to let
the request pass, or a reply, or an awaitable of one of these. A request meets each gate once, when it reaches the
first route behind it. The gates that depend on the session are asked again after a body that arrived late, and every
few seconds during a body or a reply.
"""

import hmac
from collections.abc import Awaitable, Callable
from functools import lru_cache

from backlore.core.crypto import Signer
from backlore.core.notify import Notify
from backlore.web.cookie import SENDERS, SignedCookie, Tampered
from backlore.web.limits import SMALL
from backlore.web.reply import Reply, reply
from backlore.web.request import Request, User
from backlore.web.routes import SAFE, Route, Stage, Verdict


class Keeper:
    """What the gates need: the cookie, the csrf signature, and a service's functions that look up a session."""

    def __init__(
        self,
        cookie: SignedCookie,
        secret: str,
        load: Callable[[str], Awaitable[User | None]],
        notify: Notify,
        remembered: Callable[[str], User | None] = lambda session: None,
    ):
        self.cookie = cookie
        # the csrf token is a signature of the session, so nothing has to be stored
        self.token_of = lru_cache(SENDERS)(Signer(secret, "csrf").sign)
        self.load = load
        self.remembered = remembered  # the user of a cached session, or None
        self.notify = notify

    def has_token(self, session: str, token: bytes) -> bool:
        """Whether this is the csrf token of the session, compared in constant time."""
        return hmac.compare_digest(self.token_of(session).encode(), token)


def same_site(request: Request, route: Route, keeper: Keeper) -> Verdict:
    """Refuse requests that another site makes a browser send: it could log a user in as somebody else (login csrf).

    Browsers say which site a request comes from (Fetch Metadata); older ones at least name the origin of a POST. A
    request that says neither comes from no browser, so it can't abuse a user's cookies.
    """
    if request.method in SAFE:
        return None
    site = request.headers.get(b"sec-fetch-site")
    if site is not None:
        return None if site in (b"same-origin", b"none") else reply(403, error="csrf")
    origin = request.headers.get(b"origin")
    if origin is None or origin.partition(b"://")[2] == request.headers.get(b"host"):
        return None
    return reply(403, error="csrf")


def gatekeeper(request: Request, route: Route, keeper: Keeper) -> Verdict:
    """Load the user of the session. A missing cookie, a forged one and an ended session get different error words."""
    session = keeper.cookie.read(request.headers.get(b"cookie"))
    if session is None:
        return reply(403, error="nocookie")
    if isinstance(session, Tampered):
        keeper.notify("warning", "session.tampered", origin=request.origin, path=request.told_path)
        return reply(403, error="tampered")
    request.session = session
    user = keeper.remembered(session)
    if user is None:
        return _load(request, keeper)
    request.user = user
    request.was_looked_at()
    return None


async def _load(request: Request, keeper: Keeper) -> Reply | None:
    user = await keeper.load(request.session)
    if user is None:
        request.session = ""
        return reply(403, error="session", headers=[keeper.cookie.take()])
    request.user = user
    request.was_looked_at()
    return None


def csrf(request: Request, route: Route, keeper: Keeper) -> Verdict:
    """Refuse a request that may change something, unless x-csrf-token or the body's `csrf` is the session's token."""
    if request.method in SAFE:
        return None
    header = request.headers.get(b"x-csrf-token")
    if header is None:
        return _csrf_in_body(request, route, keeper)
    return None if keeper.has_token(request.session, header) else reply(403, error="csrf")


async def _csrf_in_body(request: Request, route: Route, keeper: Keeper) -> Reply | None:
    token = await route.csrf_of(request)
    return None if keeper.has_token(request.session, token.encode()) else reply(403, error="csrf")


def admin_gatekeeper(request: Request, route: Route, keeper: Keeper) -> Verdict:
    """Refuse users who are not admins."""
    return None if request.user.admin else reply(403, error="admin")


avant = Stage("avant", 0)
public = Stage("public", 1)
auth = Stage("auth", 2, (same_site,), most=SMALL)
private = Stage("private", 3, (same_site, gatekeeper, csrf), again=(gatekeeper,))
admin = Stage("admin", 4, (same_site, gatekeeper, csrf, admin_gatekeeper), again=(gatekeeper, admin_gatekeeper))
