"""Who may sign up."""

from backlore.core.addresses import normalize


class Whitelist:
    """Who may sign up: addresses, and domains whose every address may; None: everybody."""

    def __init__(self, entries: list[str] | None):
        self._entries = None if entries is None else {normalize(entry).removeprefix("@") for entry in entries}

    def admits(self, email: str) -> bool:
        """Whether a normalized address is one of them, or of one of the domains (not of a sub-domain)."""
        return self._entries is None or email in self._entries or email.rpartition("@")[2] in self._entries
