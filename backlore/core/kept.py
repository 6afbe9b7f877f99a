"""What redis keeps as JSON of a type: an older or a newer version may have written it.

Law: what this version can't read is for it as if it were not there: it opens nothing, and takes down no list.
"""

import contextlib
from collections.abc import Mapping
from typing import TypeVar

import msgspec

T = TypeVar("T")


def read(raw: str | None, kind: type[T]) -> T | None:
    """What was kept; None for nothing, and for what can't be read."""
    with contextlib.suppress(ValueError):
        return None if raw is None else msgspec.json.decode(raw, type=kind)
    return None


def read_all(kept: Mapping[str, str], kind: type[T]) -> dict[str, T]:
    """What can be read of a hash, by its fields."""
    found = {field: read(raw, kind) for field, raw in kept.items()}
    return {field: each for field, each in found.items() if each is not None}
