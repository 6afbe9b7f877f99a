"""Texts for people, in mails and on terminals."""

import time


def now() -> str:
    """The current time for people, in UTC."""
    return time.strftime("%d %B %Y, %H:%M UTC", time.gmtime())


def printable(text: str) -> str:
    """The name that a client gives itself, safe in a mail."""
    return "".join(character for character in text[:200] if character.isprintable()) or "an unknown browser"
