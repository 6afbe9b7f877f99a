"""Texts in a format: dates, times, durations, decimals, UUIDs, bytes. Every fault listed here is certain to be one."""

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID


@dataclass(frozen=True)
class Format:
    """`edges` fit, the first of them plain. `read` gives a text's meaning, and raises ValueError for a wrong one."""

    edges: tuple[str, ...]
    faults: tuple[str, ...]
    read: Callable[[str], Any]


def _date(text: str) -> date:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        raise ValueError(text)
    return date.fromisoformat(text)


CLOCK = r"\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?"


def _moment(text: str) -> datetime:
    if not re.fullmatch(rf"\d{{4}}-\d\d-\d\d[Tt ]{CLOCK}", text, re.ASCII):
        raise ValueError(text)
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _time(text: str) -> time:
    if not re.fullmatch(CLOCK, text, re.ASCII):
        raise ValueError(text)
    found = time.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _duration(text: str) -> str:
    if not re.fullmatch(r"-?P(?=.)(\d{1,9}D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?", text, re.ASCII):
        raise ValueError(text)
    return ""  # one duration can be written in many ways


def _decimal(text: str) -> Decimal | str:
    try:
        found = Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None
    return str(found) if found.is_nan() else found


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


FORMATS = {
    "date": Format(
        ("2026-01-31", "0001-01-01", "9999-12-31", "2024-02-29", "1969-12-31"),
        (
            "2025-02-29",
            "2026-02-30",
            "2026-13-01",
            "0000-01-01",
            "2026-1-31",
            "31.01.2026",
            "2026-01-31 ",
            "1",
            "today",
        ),
        _date,
    ),
    "date-time": Format(
        (
            "2026-01-31T12:00:00Z",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999Z",
            "2024-02-29T23:59:59+14:00",
            "1969-12-31T23:59:59.5-12:00",
        ),
        ("2026-01-31", "2026-02-30T12:00:00Z", "2026-01-31T24:00:00Z", "2026-01-31T12:60:00Z", "12:00:00Z", "now"),
        _moment,
    ),
    "time": Format(
        ("12:00:00Z", "00:00:00Z", "23:59:59.999999Z", "12:00:00+02:00"),
        ("24:00:00Z", "12:60:00Z", "12:00", "noon"),
        _time,
    ),
    "duration": Format(
        ("PT1H", "PT0S", "P1D", "-P1D", "PT0.000001S", "P999999999D"),
        ("P", "PT", "P1Y", "1 hour", "P9999999999D"),
        _duration,
    ),
    "decimal": Format(
        (
            "1.5",
            "0",
            "-0",
            "-12.50",
            "0.1000000000000000055511151231257827",
            "12345678901234567890.12",
            "1E+400",
            "NaN",
        ),
        ("1,5", "1.5.0", "0x10", "one", "1e"),
        _decimal,
    ),
    "uuid": Format(
        (
            "00000000-0000-4000-8000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "ABCDEFAB-0000-4000-8000-00000000000A",
        ),
        ("00000000-0000-4000-8000-00000000000", "00000000-0000-4000-8000-00000000000g", "{0}", "1"),
        UUID,
    ),
    "base64": Format(("YQ==", "", "AAECAwQF+/8="), ("YQ", "a", "!!!!", "\u00e9\u00e9\u00e9\u00e9"), _bytes),
}
# Without a time zone: from OpenAPI's registry of formats.
FORMATS["date-time-local"] = Format(
    ("2026-01-31T12:00:00", "0001-01-01T00:00:00", "9999-12-31T23:59:59.999999"),
    FORMATS["date-time"].faults,
    _moment,
)
FORMATS["time-local"] = Format(("12:00:00", "00:00:00", "23:59:59.999999"), FORMATS["time"].faults, _time)


def format_of(schema: dict[str, Any]) -> Format | None:
    """The format of a text's type; None if it has none, or one that is not known here."""
    return FORMATS.get(schema.get("format") or schema.get("contentEncoding") or "")


def means_the_same(schema: dict[str, Any], sent: Any, shown: Any) -> bool:
    """Whether a value that comes back is the one that was sent, though it may be written differently."""
    if sent == shown:
        return True
    if isinstance(sent, list) and isinstance(shown, list):
        items = schema.get("items")
        parts = schema.get("prefixItems") or [items if isinstance(items, dict) else {}] * len(sent)
        if schema.get("uniqueItems"):
            return sorted(map(repr, set(map(repr, sent)))) == sorted(map(repr, set(map(repr, shown))))
        return len(sent) == len(shown) and all(map(means_the_same, parts, sent, shown))
    if isinstance(sent, dict) and isinstance(shown, dict):
        parts = schema.get("properties", {})
        return sent.keys() <= shown.keys() and all(means_the_same(parts.get(k, {}), sent[k], shown[k]) for k in sent)
    known = format_of(schema)
    if known is None or isinstance(shown, bool) or not isinstance(shown, str | int | float):
        return False
    try:
        return bool(known.read(str(sent)) == known.read(str(shown)))
    except ValueError:
        return False
