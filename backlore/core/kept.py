"""Reads values that redis keeps as the JSON of a type. An older or a newer version may have written them.

Law: a value that this version can't read counts as missing. It grants nothing, and breaks no list.
"""

import contextlib
from collections.abc import Mapping
from typing import TypeVar

import msgspec

T = TypeVar("T")


def read(raw: str | None, kind: type[T]) -> T | None:
    """The value that was kept; None when there is none or it can't be read."""
    with contextlib.suppress(ValueError):
        return None if raw is None else msgspec.json.decode(raw, type=kind)
    return None


def read_all(kept: Mapping[str, str], kind: type[T]) -> dict[str, T]:
    """The readable values of a redis hash, by field."""
    found = {field: read(raw, kind) for field, raw in kept.items()}
    return {field: each for field, each in found.items() if each is not None}
