"""The developer: who may see the pages that are there in dev, since mails carry tokens and what is tried happens.

Laws: whoever has the key, from the URL that the terminal printed, gets it as a cookie, and a URL without it; only a
browser on this very machine is asked for it, all others see no such page. The key is in no log of ours.
"""

import hmac
import re
from ipaddress import IPv6Address, ip_address
from urllib.parse import parse_qs

from backlore.web.reply import Reply, reply
from backlore.web.request import Request


class Developer:
    """Known by a cookie. `refuse` stands before each page of theirs."""

    def __init__(self, name: str, key: str):
        self._cookie = f"{name}-dev={key}"
        self._key = key

    def refuse(self, request: Request) -> Reply | None:
        """None for who may see the page. 404 `route`; 403 `key`; 303 with the cookie, for the key in the query."""
        if not is_local(request):
            return reply(404, error="route")
        given = parse_qs(request.query_string.decode("latin-1")).get("key", [""])[0]
        if hmac.compare_digest(given.encode(), self._key.encode()):
            cookie = f"{self._cookie}; Path=/; HttpOnly; SameSite=Strict"
            here = request.scope["raw_path"].decode("latin-1")
            return reply(303, headers=[("location", here), ("set-cookie", cookie), ("cache-control", "no-store")])
        cookies = request.headers.get(b"cookie", b"").split(b";")
        if any(hmac.compare_digest(each.strip(b" \t"), self._cookie.encode()) for each in cookies):
            return None
        return reply(403, error="key")


def is_local(request: Request) -> bool:
    """Whether the request comes from this machine, and only from it.

    A tunnel or a proxy that nobody configured comes from loopback as well, but tells for whom; a foreign page whose
    name was turned to loopback (DNS rebinding) is told by the host it asks for.
    """
    if request.headers.get(b"forwarded") is not None:
        return False
    hops = (request.header("x-forwarded-for") or request.origin).split(",")
    host = re.sub(r":\d*$", "", request.header("host") or "").strip("[]").lower()
    named = host == "localhost" or host.endswith(".localhost") or is_loopback(host)
    return named and is_loopback(request.origin) and all(is_loopback(hop.strip()) for hop in hops)


def is_loopback(address: str) -> bool:
    """Whether it is an address of a machine's own (127.0.0.0/8, ::1), also when IPv6 carries an IPv4 one."""
    try:
        known = ip_address(address)
    except ValueError:
        return False
    if isinstance(known, IPv6Address) and known.ipv4_mapped:
        known = known.ipv4_mapped
    return known.is_loopback
