"""Values that rows keep for later ones: {note} in a path, a header or a payload stands for what was kept as `note`.

Laws: in a path or a header it may stand anywhere, and becomes text. A string in a payload, or in what is expected, is
replaced only when it is {note} and nothing else, and then the value keeps its type. {{note}} is the text {note} itself.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

PLACE = re.compile(r"\{\{(\w+)\}\}|\{([A-Za-z_]\w*)\}")
# What stays as it is in a path and query: characters with a meaning there (RFC 3986), and escapes.
PATH_SAFE = "/%:?#[]@!$&'()*+,;=~|^`\"<>\\{}"

Kept = Mapping[str, Any]


class NothingKept(LookupError):
    """Nothing was kept under this name, because the row that should have kept it failed. The text is the name."""


def names_in(values: Iterable[Any], texts: Iterable[str | None]) -> set[str]:
    """The names used: by strings anywhere in `values` that are exactly {name}, and anywhere within `texts`."""
    found = {match[2] for text in texts if isinstance(text, str) for match in PLACE.finditer(text) if match[2]}
    for value in values:
        if isinstance(value, str):
            if (match := PLACE.fullmatch(value)) and match[2]:
                found.add(match[2])
        elif isinstance(value, Mapping):
            found |= names_in(value.values(), [])
        elif isinstance(value, list | tuple):
            found |= names_in(value, [])
    return found


def fill(value: Any, kept: Kept) -> Any:
    """`value` with each {name} replaced by what was kept. Raises NothingKept."""
    if isinstance(value, str):
        match = PLACE.fullmatch(value)
        if match is None:
            return value
        return take(kept, match[2]) if match[2] else value[1:-1]
    if isinstance(value, Mapping):
        return {key: fill(each, kept) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [fill(each, kept) for each in value]
    return value


def fill_text(text: str, kept: Kept, written: Callable[[str], str] = str) -> str:
    """`text` with each {name} replaced by what was kept, in the form that `written` gives it. Raises NothingKept."""

    def put(match: re.Match[str]) -> str:
        return written(to_text(take(kept, match[2]))) if match[2] else match[0][1:-1]

    return PLACE.sub(put, text) if "{" in text else text


def fill_path(path: str, kept: Kept) -> str:
    """A path, ready to be sent. What was kept is escaped except for its slashes, unless the path begins with it."""
    first = PLACE.match(path)
    if first and first[2]:
        whole = to_text(take(kept, first[2])) + fill_text(path[first.end() :], kept, quote)
    else:
        whole = fill_text(path, kept, quote)
    return quote(whole, safe=PATH_SAFE)


def take(kept: Kept, name: str) -> Any:
    """What was kept as `name`. Raises NothingKept."""
    if name not in kept:
        raise NothingKept(name)
    return kept[name]


def to_text(value: Any) -> str:
    """A string as it is, any other value as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
