"""A user's cookies, as a browser keeps them (RFC 6265) for the one server that is tested."""

import time
from email.utils import parsedate_to_datetime
from typing import NamedTuple


class Cookie(NamedTuple):
    """A cookie that was set. `ends` is in seconds since the epoch."""

    name: str
    value: str
    path: str
    ends: float
    secure: bool


class Cookies:
    """One user's cookies. `trusted`: by HTTPS or on this machine, so that Secure ones are kept and sent."""

    def __init__(self, host: str, trusted: bool):
        self._host = host
        self._trusted = trusted
        self._kept: dict[tuple[str, str], Cookie] = {}

    def copy(self) -> "Cookies":
        """The same cookies, independent from here on."""
        made = Cookies(self._host, self._trusted)
        made._kept = dict(self._kept)
        return made

    def take(self, line: str, path: str) -> None:
        """Keep the cookie that a Set-Cookie line of a reply to `path` sets. An expired one is never sent."""
        first, _, rest = line.partition(";")
        name, equals, value = (part.strip() for part in first.partition("="))
        pairs = (each.partition("=") for each in rest.split(";"))
        said = {key.strip().lower(): text.strip() for key, _, text in pairs}
        if not equals or not name or not self._is_allowed(name, said):
            return
        place = said.get("path", "")
        place = place if place.startswith("/") else path[: path.rfind("/")] or "/"
        self._kept[name, place] = Cookie(name, value, place, end_of(said), "secure" in said)

    def _is_allowed(self, name: str, said: dict[str, str]) -> bool:
        domain = said.get("domain", "").removeprefix(".").lower()
        if domain and domain != self._host and not self._host.endswith(f".{domain}"):
            return False
        if "secure" in said and not self._trusted:
            return False
        if name.startswith("__Host-"):
            return "secure" in said and said.get("path") == "/" and "domain" not in said
        return "secure" in said or not name.startswith("__Secure-")

    def header(self, path: str) -> str:
        """The `cookie` header for a request to `path`; "" for none. Cookies with the longest path come first."""
        now = time.time()
        fit = [each for each in self._kept.values() if each.ends > now and is_under(path, each.path)]
        fit.sort(key=lambda each: -len(each.path))
        return "; ".join(f"{each.name}={each.value}" for each in fit)


def end_of(said: dict[str, str]) -> float:
    """When a cookie expires, by its attributes; Max-Age wins. A cookie without a readable one never expires."""
    age = said.get("max-age", "")
    if age.removeprefix("-").isdecimal():
        return time.time() + int(age) if int(age) > 0 else 0
    try:
        return parsedate_to_datetime(said["expires"]).timestamp()
    except (KeyError, ValueError, OverflowError):
        return float("inf")


def is_under(path: str, place: str) -> bool:
    """Whether a cookie with the path `place` is sent to `path` (RFC 6265, §5.1.4)."""
    return path == place or path.startswith(place if place.endswith("/") else f"{place}/")
