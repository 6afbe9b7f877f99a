"""A signed cookie: `NAME=VALUE.SIGNATURE`. The signature tells an expired session from a forged one."""

from functools import lru_cache
from typing import Final

from backlore.core.crypto import Signer

FAR = "Tue, 01 Jan 2069 00:00:00 GMT"  # the server alone decides when what it holds ends
SENDERS = 2_000  # whose cookies a worker remembers, if the header has no more than
USUAL = 1_000  # bytes


class Tampered:
    """The type of TAMPERED: there is a cookie of ours that we never signed."""


TAMPERED: Final = Tampered()


def values_of(name: str, header: bytes) -> list[bytes]:
    """The values of the cookies of this name in a Cookie header (RFC 6265, §4.2.1), in their order."""
    marker = f"{name}=".encode()
    pairs = [pair.strip(b" \t") for pair in header.split(b";")]
    return [pair[len(marker) :] for pair in pairs if pair.startswith(marker)]


class SignedCookie:
    """Reads and writes one cookie, by default the session's.

    Over HTTPS (`secure`) it has the prefix `__Host-`, so that no other host sets it (RFC 6265bis, §4.1.3.2). What is
    signed for one `purpose` is forged for another.
    """

    def __init__(self, name: str, secret: str, secure: bool, purpose: str = "session"):
        self.name = f"__Host-{name}" if secure else name
        self._attributes = "; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")
        self._signer = Signer(secret, purpose)
        # a browser sends the same each time, and what is read is in it alone
        self._known = lru_cache(SENDERS)(self._read)

    def read(self, header: bytes | None) -> str | Tampered | None:
        """The value in a Cookie header: of several the first that we signed.

        TAMPERED when there are some, and we signed none; None when there is none.
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
        """The header that gives a browser the value, which has no dot, semicolon or space."""
        return "set-cookie", f"{self.name}={value}.{self._signer.sign(value)}{self._attributes}; Expires={FAR}"

    def take(self) -> tuple[str, str]:
        """The header that makes a browser delete the cookie."""
        return "set-cookie", f"{self.name}={self._attributes}; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
