"""Access to the pages for the developer, in dev: mails contain tokens, and requests that are tried out take effect.

Laws: the key is in the URL that the terminal printed. A browser that sends it gets it as a cookie, and is redirected to
a URL without it. Only a browser on this machine is asked for the key; for all others the page doesn't exist. The key
appears in no log of ours.
"""

import hmac
from urllib.parse import parse_qs

from backlore.core.origins import read_address
from backlore.web.cookie import values_of
from backlore.web.reply import Reply, reply
from backlore.web.request import Request


class Developer:
    """Knows the developer by a cookie. Each page for the developer calls `refuse` first."""

    def __init__(self, name: str, key: str):
        self._cookie = f"{name}-dev"
        self._key = key

    def refuse(self, request: Request) -> Reply | None:
        """None if the client may see the page. 404 `route`; 403 `key`; 303 with the cookie if the query has the key."""
        if not is_local(request):
            return reply(404, error="route")
        given = parse_qs(request.query_string.decode("latin-1")).get("key", [""])[0]
        if self._opens(given.encode()):
            cookie = f"{self._cookie}={self._key}; Path=/; HttpOnly; SameSite=Strict"
            here = request.scope["raw_path"].decode("latin-1")
            return reply(303, headers=[("location", here), ("set-cookie", cookie), ("cache-control", "no-store")])
        if any(map(self._opens, values_of(self._cookie, request.headers.get(b"cookie", b"")))):
            return None
        return reply(403, error="key")

    def _opens(self, given: bytes) -> bool:
        return hmac.compare_digest(given, self._key.encode())


def is_local(request: Request) -> bool:
    """Whether the request comes from this machine, and only from it.

    Requests through a tunnel or an unconfigured proxy come from loopback, too, but name their client. A foreign page
    whose name was pointed to loopback (DNS rebinding) is recognized by the host that it asks for.
    """
    if request.headers.get(b"forwarded") is not None:
        return False
    hops = (request.header("x-forwarded-for") or request.origin).split(",")
    host = (request.header("host") or "").lower()
    name = host.partition(":")[0]
    named = name == "localhost" or name.endswith(".localhost") or is_loopback(host)
    return named and is_loopback(request.origin) and all(map(is_loopback, hops))


def is_loopback(address: str) -> bool:
    """Whether it is a loopback address (127.0.0.0/8, ::1), with or without a port."""
    known = read_address(address)
    return known is not None and known.is_loopback
