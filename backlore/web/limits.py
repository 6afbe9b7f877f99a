"""How much a client may send, and how long it may take."""

from pathlib import Path

import msgspec


class TooLarge(Exception):
    """The body is over its limit: 413."""


class TooSlow(Exception):
    """The body does not come in time: 408."""


class Limits(msgspec.Struct, frozen=True):
    """Sizes in bytes, times in seconds."""

    folder: Path  # where uploads are while their request lasts
    body: int = 1 << 20  # JSON, urlencoded, and all text fields of a form together
    upload: int = 100 << 20  # a multipart body, all parts together
    parts: int = 100
    query: int = 2048  # characters
    receive: float = 30.0  # for a whole JSON or urlencoded body; between two chunks of an upload
