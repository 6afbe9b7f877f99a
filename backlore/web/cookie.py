"""A signed cookie: `NAME=VALUE.SIGNATURE`. The signature tells an expired session from a forged one."""

from typing import Final

from backlore.core.crypto import Signer

FAR = "Tue, 01 Jan 2069 00:00:00 GMT"  # the server alone decides when what it holds ends


class Tampered:
    """The type of TAMPERED: there is a cookie of ours that we never signed."""


TAMPERED: Final = Tampered()


class SignedCookie:
    """Reads and writes one cookie, by default the session's.

    Over HTTPS (`secure`) it has the prefix `__Host-`, so that no other host sets it, or `__Secure-` when it belongs
    to one path (RFC 6265bis, §4.1.3). What is signed for one `purpose` is forged for another.
    """

    def __init__(self, name: str, secret: str, secure: bool, purpose: str = "session", path: str = "/"):
        prefix = ("__Host-" if path == "/" else "__Secure-") if secure else ""
        self.name = prefix + name
        self._marker = f"{self.name}=".encode()
        self._attributes = f"; Path={path}; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")
        self._signer = Signer(secret, purpose)

    def read(self, header: bytes | None) -> str | Tampered | None:
        """The value in a Cookie header; TAMPERED when its signature is bad, None when there is none."""
        if not header:
            return None
        marker = self._marker
        start = 0
        while (start := header.find(marker, start)) > 0 and header[start - 1] not in b" ;":
            start += 1  # the end of another cookie's longer name
        if start < 0:
            return None
        start += len(marker)
        end = header.find(b";", start)
        found = header[start:] if end < 0 else header[start:end]
        value, _, signature = found.decode("latin-1").strip().partition(".")
        return value if self._signer.verify(value, signature) else TAMPERED

    def give(self, value: str) -> tuple[str, str]:
        """The header that gives a browser the value, which has no dot, semicolon or space."""
        return "set-cookie", f"{self.name}={value}.{self._signer.sign(value)}{self._attributes}; Expires={FAR}"

    def take(self) -> tuple[str, str]:
        """The header that makes a browser delete the cookie."""
        return "set-cookie", f"{self.name}={self._attributes}; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
