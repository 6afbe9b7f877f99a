"""Conditions that lines hold: texts, patterns and fields of JSON, as Python has them."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlore.services.lines.conditions import BadCondition, Conditions, Wanted
from backlore.services.lines.windows import Piece, Stretch, Text
from tests.kit.lines import MANY, all_lines, look


def holding(wanted: Wanted, content: bytes) -> list[bytes]:
    """The lines that hold, by the scout, which must agree with who looks at each line."""
    text = Text(len(content), [Piece(0, len(content), content)])
    found = [line.data for line in look(text, wanted, False, Stretch(0, len(content)), 1000)]
    conditions = Conditions(wanted)
    assert found == [line.data for line in all_lines(content, 1 << 20) if conditions.hold(line.data)]
    return found


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    ("wanted", "right"),
    [
        (Wanted(("Error",)), [b"an Error here"]),
        (Wanted(("Error",), ignore_case=True), [b"an Error here", b"ERROR", "ERROR: ÄÖ".encode()]),
        (Wanted(("äö",), ignore_case=True), ["ERROR: ÄÖ".encode()]),
        (Wanted(("ERROR", "Ä")), ["ERROR: ÄÖ".encode()]),
        (Wanted(("a.b",)), [b"a.b"]),
        (Wanted(("\0",)), [b"nul \0 byte"]),
        (Wanted((), ("a.b",)), [b"a.b", b"axb"]),
        (Wanted((), ("^a.b$",)), [b"a.b", b"axb"]),
        (Wanted((), ("^error$",), ignore_case=True), [b"ERROR"]),
        (Wanted((), (r"\Aan",)), [b"an Error here"]),
        (Wanted((), (r"here\z",)), [b"an Error here"]),
        (Wanted((), (r"(?-m:^)an",)), [b"an Error here"]),
        (Wanted((), ("^$",)), [b""]),
        (Wanted((), ("here\\s*a",)), []),
        (Wanted((), ("b\\Ca",)), []),
        (Wanted((), ("e[^q]a",)), []),
        (Wanted((), ("^an|^ERROR$",)), [b"an Error here", b"ERROR"]),
        (Wanted((), ("byte", "nul")), [b"nul \0 byte"]),
    ],
)
def test_texts_and_patterns(wanted: Wanted, right: list[bytes], end: bytes) -> None:
    lines = [b"an Error here", b"a.b", b"axb", b"ERROR", b"", "ERROR: ÄÖ".encode(), b"nul \0 byte", b"bad \xff\xfe"]
    assert holding(wanted, end.join(lines)) == right


OBJECTS = [
    '{"level": "error", "took": 100.0, "user": {"id": "abc"}}',
    '{"level":"e\\u0072ror","took":1e2}',
    '{"\\u006cevel" : "info", "took": 1000, "user": "abc"}',
    '{"level": "error!", "took": "100", "note": null, "user": {"id": null}}',
    '{"text": "\\"level\\":\\"error\\"", "took": -5, "ok": true, "log.level": "warn"}',
    '{"level": ["error"], "took": 12.5, "time": "2026-10-03T12:00:00Z", "path": "a\\/b \\u00e4\\ud83d\\ude00"}',
    '{"time": "2025-01-01", "path": "a/b ä😀", "took": 99999999999999999999, "ok": false}',
    '{"level": "error"',
    "level=error",
    '["level", "error"]',
    "null",
    "",
]


@pytest.mark.parametrize(
    ("where", "right"),
    [
        ("level=error", [0, 1]),
        ("level==error", [0, 1]),
        ("level = error", [0, 1]),
        ('level="error"', [0, 1]),
        ("level!=error", [2, 3, 5]),
        ("took=100", [0, 1, 3]),
        ("took=1e2", [0, 1]),
        ('took="100"', [3]),
        ("took>99", [0, 1, 2, 6]),
        ("took>100", [2, 6]),
        ("took>=100", [0, 1, 2, 6]),
        ("took<0", [4]),
        ("took<=12.5", [4, 5]),
        ("took=12.5", [5]),
        ("took=99999999999999999999", [6]),
        ("took!=100", [2, 4, 5, 6]),
        ("user.id=abc", [0]),
        ("user.id exists", [0, 3]),
        ("user exists", [0, 2, 3]),
        ("user=abc", [2]),
        ("note exists", [3]),
        ("note=null", [3]),
        ("ok=true", [4]),
        ("ok!=true", [6]),
        ("ok=1", []),
        ('"log.level"=warn', [4]),
        ("time>=2026-10", [5]),
        ('time<"2026"', [6]),
        ("path=a/b ä😀", [5, 6]),
        ("level=", []),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_fields(where: str, right: list[int], end: str) -> None:
    assert holding(Wanted(where=(where,)), end.join(OBJECTS).encode()) == [OBJECTS[n].encode() for n in right]


def test_several_conditions() -> None:
    content = "\n".join(OBJECTS).encode()
    assert holding(Wanted(where=("level=error", "took>99")), content) == [OBJECTS[n].encode() for n in (0, 1)]
    wanted = Wanted(("abc",), ("took",), ("level=error", "user.id exists"))
    assert holding(wanted, content) == [OBJECTS[0].encode()]


def spell(value: object, odd: bool) -> str:
    """JSON; if `odd`, with each character of a text as an escape."""
    if not odd or not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    units = value.encode("utf-16-be").hex().upper()
    return '"' + "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)) + '"'


@MANY
@given(
    rows=st.lists(
        st.tuples(
            st.one_of(st.text(max_size=5), st.integers(-200, 2000), st.floats(-50, 5000), st.booleans(), st.none()),
            st.booleans(),
        ),
        max_size=12,
    ),
    sign=st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    value=st.one_of(st.text(max_size=5), st.integers(-200, 2000), st.floats(-50, 5000)),
)
def test_fields_as_python_has_them(rows: list[tuple[object, bool]], sign: str, value: object) -> None:
    """Quoted texts and numbers of any spelling, against json and its comparisons."""
    operators: dict[str, Callable[[object, object], bool]] = {
        "=": lambda a, b: a == b,
        "!=": lambda a, b: a != b,
        "<": lambda a, b: a < b,  # type: ignore[operator]
        "<=": lambda a, b: a <= b,  # type: ignore[operator]
        ">": lambda a, b: a > b,  # type: ignore[operator]
        ">=": lambda a, b: a >= b,  # type: ignore[operator]
    }

    def right(found: object) -> bool:
        numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (found, value))
        if numbers or (isinstance(found, str) and isinstance(value, str)):
            return operators[sign](found, value)
        same_text = sign in ("=", "!=") and isinstance(found, str) and found == json.dumps(value)
        return same_text if sign != "!=" else not same_text

    lines = [json.dumps({"n": 1})[:-1] + f', "key": {spell(each, odd)}' + "}" for each, odd in rows]
    wanted = Wanted(where=(f"key{sign}{json.dumps(value)}",))
    kept = [line.encode() for line, (each, _) in zip(lines, rows, strict=True) if right(each)]
    assert holding(wanted, "\n".join(lines).encode()) == kept


@pytest.mark.parametrize(
    ("wanted", "where", "why"),
    [
        (Wanted(("a\nb",)), "contains", "Has a line break: no line has one."),
        (Wanted(("a" * 501,)), "contains", "Should have at most 500 characters."),
        (Wanted(("\ud800",)), "contains", "Is no text in Unicode."),
        (Wanted((), ("(",)), "matches", "Is no pattern: missing ): (."),
        (Wanted((), ("(?=a)",)), "matches", "Is no pattern: invalid perl operator: (?=."),
        (Wanted((), ("\\1",)), "matches", "Is no pattern: invalid escape sequence: \\1."),
        (Wanted((), ("a)(b",)), "matches", "Is no pattern: unexpected ): a)(b."),
        (Wanted((), ("(x{1,30}){1,33}y{1,900}",)), "matches", "Is no pattern: pattern too large."),
        (Wanted((), ("\\pL{100}",)), "matches", "Is no pattern: pattern too large - compile failed."),
        (Wanted(where=("level",)), "where", "Should be a field, a sign and a value,"),
        (Wanted(where=("=5",)), "where", "Should be a field, a sign and a value,"),
        (Wanted(where=("a..b=5",)), "where", "Should be a field, a sign and a value,"),
        (Wanted(where=('a="b',)), "where", "Has a quoted value that is no string of JSON."),
        (Wanted(where=("a=1e999",)), "where", "Has a number that is out of range."),
    ],
)
def test_what_can_not_be_looked_for(wanted: Wanted, where: str, why: str) -> None:
    with pytest.raises(BadCondition) as caught:
        Conditions(wanted)
    assert caught.value.where == where and caught.value.why.startswith(why)


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+$", "(a|aa)+$", "(.*)*c", "(a?){300}a{300}b", "([a-z]*)*c", "(x+x+)+y", "[ab]*a[ab]{200}c", "(a*)*(a*)*c"],
)
def test_patterns_that_explode_elsewhere(pattern: str) -> None:
    content = b"a" * 100_000 + b"!\n" + b"ab" * 50_000 + b"\n"
    assert holding(Wanted((), (pattern,)), content) == []


def test_a_json_bomb_is_no_object() -> None:
    bombs = [b'{"level":' * 20_000, b'{"level":' + b"[" * 20_000, b'{"level":' + b"9" * 5000 + b"}", b'{"level":1e999}']
    assert holding(Wanted(where=("level exists",)), b"\n".join(bombs)) == []
