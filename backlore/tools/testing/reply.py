"""The reply to a row's request."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec


@dataclass(frozen=True)
class RowReply:
    """A reply. Header names are in lower case; a header that came twice is joined by commas."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @cached_property
    def body(self) -> Any:
        """The body: a value for JSON, a str for text, bytes for anything else; "" when there is none.

        JSON that can't be read is given as text.
        """
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not self.raw:
            return ""
        if kind == "application/json" or kind.endswith("+json"):
            try:
                return msgspec.json.decode(self.raw)
            except (msgspec.DecodeError, ValueError):
                return self.raw.decode("utf-8", "replace")
        return self.raw.decode("utf-8", "replace") if kind.startswith("text/") else self.raw
