"""The session's cookie: `NAME=SESSION.SIGNATURE`. The signature tells an expired session from a forged one."""

from typing import Final

from backlore.core.crypto import Signer

FAR = "Tue, 01 Jan 2069 00:00:00 GMT"  # the server alone decides when a session ends


class Tampered:
    """The type of TAMPERED: there is a cookie of ours that we never signed."""


TAMPERED: Final = Tampered()


class SessionCookie:
    """Reads and writes the cookie `name`; over HTTPS (`secure`) with the `__Host-` prefix (RFC 6265bis, §4.1.3)."""

    def __init__(self, name: str, secret: str, secure: bool):
        self.name = f"__Host-{name}" if secure else name
        self._marker = f"{self.name}=".encode()
        self._attributes = "; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")
        self._signer = Signer(secret, "session")

    def read(self, header: bytes | None) -> str | Tampered | None:
        """The session in a Cookie header; TAMPERED when its signature is bad, None when there is none."""
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
        value = header[start:] if end < 0 else header[start:end]
        session, _, signature = value.decode("latin-1").strip().partition(".")
        return session if self._signer.verify(session, signature) else TAMPERED

    def give(self, session: str) -> tuple[str, str]:
        """The header that gives a browser the session."""
        return "set-cookie", f"{self.name}={session}.{self._signer.sign(session)}{self._attributes}; Expires={FAR}"

    def take(self) -> tuple[str, str]:
        """The header that makes a browser delete the cookie."""
        return "set-cookie", f"{self.name}={self._attributes}; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
