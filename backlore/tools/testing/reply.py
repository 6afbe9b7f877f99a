"""What came back."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec


@dataclass(frozen=True)
class RowReply:
    """What came back. Names of headers are in lower case; a header that came twice is joined by commas."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @cached_property
    def body(self) -> Any:
        """The body: of JSON its value, of text a str, else bytes; "" when there is none.

        JSON that can't be read is the text it is.
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
