"""Limits signups to a list of addresses and domains."""

from backlore.core.addresses import normalize


class Whitelist:
    """Addresses that may sign up, and domains all of whose addresses may; None admits every address."""

    def __init__(self, entries: list[str] | None):
        self._entries = None if entries is None else {normalize(entry).removeprefix("@") for entry in entries}

    def admits(self, email: str) -> bool:
        """Whether a normalized address is listed, or in one of the domains (sub-domains don't count)."""
        return self._entries is None or email in self._entries or email.rpartition("@")[2] in self._entries
