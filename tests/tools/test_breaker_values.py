"""Values of types: what is said to fit, our own decoder takes, and what is said not to fit, it refuses."""

import datetime
import decimal
import enum
import json
import re
import uuid
from random import Random
from typing import Annotated, Any, Literal

import msgspec
import pytest

from backlore import Payload, between, length, matching
from backlore.core.payload import Codec
from backlore.tools.breaker.document import flaw, settle
from backlore.tools.breaker.faults import faults
from backlore.tools.breaker.formats import FORMATS, means_the_same
from backlore.tools.breaker.patterns import match_of
from backlore.tools.breaker.values import NoValue, edges, sample
from backlore.web.openapi import describe_types


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Circle(Payload, tag="circle"):
    radius: Annotated[float, msgspec.Meta(gt=0, lt=1)]


class Box(Payload, tag="box"):
    side: Annotated[int, between(1, 9)]
    name: Annotated[str, length(1, 3)] = "a"


class Tree(Payload):
    left: "Tree | None" = None
    more: Annotated[list["Tree"], length(0, 3)] = []


def text(pattern: str) -> Any:
    return Annotated[str, length(1, 60), matching(pattern, "such a text")]


KINDS = [
    datetime.date, datetime.datetime, Annotated[datetime.datetime, msgspec.Meta(tz=True)],
    Annotated[datetime.datetime, msgspec.Meta(tz=False)], datetime.time, datetime.date | None, datetime.timedelta,
    uuid.UUID, decimal.Decimal, decimal.Decimal | None, bytes, Annotated[bytes, msgspec.Meta(max_length=4)],
    Color, Level, Color | None, Literal["a", 1, None], bool | None, Circle | Box, Circle | Box | None, Tree,
    Annotated[set[str], length(0, 5)], tuple[int, Annotated[str, length(1, 9)]], tuple[int, ...],
    list[datetime.date], dict[str, int], dict[int, decimal.Decimal], Annotated[dict[str, int], length(0, 3)],
    int | Annotated[str, length(1, 3)] | None, Annotated[int, msgspec.Meta(multiple_of=5)], Any,
]  # fmt: skip
PATTERNS = [
    "[a-z0-9]{16}", "(cat|dog|[0-9]{3}-[A-Z]{2})", r"[a-z]+(-[a-z]+)*@(x|y)\.org", r"(?=.*\d)[a-z\d]{8,}", r"[^\W\d_]+",
    r"\S+ \S+", r"([a-z])\1\1", "#[0-9a-fA-F]{6}", r"https?://\S+", r"\+\d{1,3} \d{4,12}", "(?i:abc)x?",
    r"[\u4e00-\u9fff]{2}", "(a|b){20,30}", r"v\d+\.\d+\.\d+(-(alpha|beta)\.\d+)?", r"[A-Z]{2}\d{2}( ?\d{4}){4}",
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", "(?!-)[a-z-]{3,9}(?<!-)", r"(?:[01]\d|2[0-3]):[0-5]\d", "[^a-z]{3}",
    "(?P<a>x)(?P=a)", "a{2}?b+?", "((a|b)*c){2}",
]  # fmt: skip


@pytest.mark.parametrize("kind", [*KINDS, *map(text, PATTERNS)], ids=str)
def test_what_is_said_to_fit_fits_and_what_is_not_does_not(kind: Any) -> None:
    class Whole(Payload):
        value: kind  # type: ignore[valid-type]

    codec = Codec(Whole)
    (shape,), parts = describe_types([Whole])
    schema = settle(shape, parts)
    good = [("a plain one", sample(schema, Random(1), "annmk1")), *edges(schema, Random(1))]
    bad = list(faults(schema, Random(1)))
    assert len(good) >= 3 and len(bad) >= 10
    for name, value in good:
        assert not flaw(schema, value), name
        codec.from_json(json.dumps(value).encode())
    for name, value in bad:
        with pytest.raises(ValueError):
            codec.from_json(json.dumps(value).encode())
            pytest.fail(f"{name}: {value!r} is taken")


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name: str) -> None:
    known = FORMATS[name]
    for text in known.edges:
        known.read(text)
    assert known.faults
    for text in known.faults:
        with pytest.raises(ValueError):
            known.read(text)


@pytest.mark.parametrize("pattern", ["(a*)*b", r"([^,]+(\.[^,]+)*)*", "((x{0,1000}){0,1000}){0,1000}"])
def test_nested_repetitions_end(pattern: str) -> None:
    for more in (0, 24, 5000):
        assert len(match_of(pattern, Random(1), more)) < 100_000


def test_a_pattern_for_which_nothing_is_found_is_told() -> None:
    with pytest.raises(NoValue, match=re.escape("(?=b)a")):
        sample({"type": "string", "pattern": "^(?=b)a$"}, Random(1))


def test_what_comes_back_may_be_written_in_another_way() -> None:
    def same(kind: str, sent: Any, shown: Any) -> bool:
        return means_the_same({"type": "string", "format": kind}, sent, shown)

    assert same("date-time", "2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00")
    assert same("decimal", "1.50", 1.5) and same("uuid", "A" * 32, "a" * 32)
    assert not same("decimal", "0.1000000000000000055511151231257827", 0.1)
    assert not same("date-time", "2026-01-31T12:00:00+14:00", "2026-01-31T12:00:00")
    assert not same("date", "2026-01-31", "2026-01-30") and not same("date", "2026-01-31", None)
    assert means_the_same({"type": "array", "uniqueItems": True}, ["a", "b"], ["b", "a"])
    assert not means_the_same({"type": "array"}, ["a", "b"], ["b", "a"])
