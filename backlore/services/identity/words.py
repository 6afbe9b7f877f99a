"""What people read of us in mails and on terminals."""

import time


def now() -> str:
    """For people, in universal time."""
    return time.strftime("%d %B %Y, %H:%M UTC", time.gmtime())


def printable(text: str) -> str:
    """What a client says of itself, safe in a mail."""
    return "".join(character for character in text[:200] if character.isprintable()) or "an unknown browser"
