"""A signed cookie: `NAME=VALUE.SIGNATURE`. The signature tells an expired session from a forged one."""

from functools import lru_cache
from typing import Final

from backlore.core.crypto import Signer

FAR = "Tue, 01 Jan 2069 00:00:00 GMT"  # the cookie outlasts its content: the server alone decides when that expires
SENDERS = 2_000  # senders whose cookies a worker caches
USUAL = 1_000  # bytes: longer Cookie headers are not cached


class Tampered:
    """The type of TAMPERED: there is a cookie of this name, but we never signed its value."""


TAMPERED: Final = Tampered()


def values_of(name: str, header: bytes) -> list[bytes]:
    """The values of the cookies of this name in a Cookie header (RFC 6265, §4.2.1), in their order."""
    marker = f"{name}=".encode()
    pairs = [pair.strip(b" \t") for pair in header.split(b";")]
    return [pair[len(marker) :] for pair in pairs if pair.startswith(marker)]


class SignedCookie:
    """Reads and writes one signed cookie, by default the session's.

    Over HTTPS (`secure`) its name has the prefix `__Host-`, so that no other host can set it (RFC 6265bis, §4.1.3.2).
    A value signed for one `purpose` counts as forged for another.
    """

    def __init__(self, name: str, secret: str, secure: bool, purpose: str = "session"):
        self.name = f"__Host-{name}" if secure else name
        self._attributes = "; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")
        self._signer = Signer(secret, purpose)
        # a browser sends the same header each time, and the result depends on nothing else
        self._known = lru_cache(SENDERS)(self._read)

    def read(self, header: bytes | None) -> str | Tampered | None:
        """The cookie's value in a Cookie header: the first one that we signed, if there are several.

        TAMPERED when the cookie is there but none of its values is signed by us; None when it isn't there.
        """
        if header is None:
            return None
        return self._known(header) if len(header) <= USUAL else self._read(header)

    def _read(self, header: bytes) -> str | Tampered | None:
        found = None
        for each in values_of(self.name, header):
            value, _, signature = each.decode("latin-1").partition(".")
            if self._signer.verify(value, signature):
                return value
            found = TAMPERED
        return found

    def give(self, value: str) -> tuple[str, str]:
        """The header that sets the cookie. `value` must contain no dot, semicolon or space."""
        return "set-cookie", f"{self.name}={value}.{self._signer.sign(value)}{self._attributes}; Expires={FAR}"

    def take(self) -> tuple[str, str]:
        """The header that makes a browser delete the cookie."""
        return "set-cookie", f"{self.name}={self._attributes}; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
