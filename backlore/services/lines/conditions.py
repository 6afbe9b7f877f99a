r"""Conditions on lines: a text that a line contains, a pattern that it matches, fields of JSON. All must hold.

    contains   a text
    matches    a pattern in RE2's syntax (https://github.com/google/re2/wiki/Syntax); ^ and $ are the line's ends
    where      fields of a line that is a JSON object, see `fields`

Laws: no pattern takes more than linear time, and none is so large that it takes many seconds on one block of lines.
Lines are not examined one by one: one of the conditions is the scout, an expression that runs over whole blocks without
the interpreter's lock. All conditions can hold only for lines that the scout finds.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import re2

from backlore.core.payload import Invalid
from backlore.services.lines.fields import Field, Fields

LONGEST_TEXT = 500  # characters of one condition
LONGEST_PATTERN = 300  # characters of a pattern: the work to refuse one grows with its length
LARGEST = 1500  # instructions of a pattern's program: in the worst case each runs for each byte
MEMORY = 8 << 20  # bytes that a program may take with its tables
PROBE = 100 << 10  # the same for the check whether a pattern is too large, which is quick then
LINES = "(?m)"  # ^ and $ are the ends of lines
# Syntax that means something else in a block of many lines than in a single line: \A, \z, \C, (?-m)
OF_ONE_LINE = re.compile(r"\\[AzC]|\(\?\w*-\w*m")


class BadCondition(Invalid):
    """A condition is invalid: `where` is its kind, `why` a sentence."""


class Wanted(NamedTuple):
    """The conditions on wanted lines. `ignore_case` applies to texts and patterns."""

    contains: tuple[str, ...] = ()
    matches: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    ignore_case: bool = False


class Condition(NamedTuple):
    """One condition, compiled."""

    holds: Callable[[bytes], object]  # for a line without its end; true or false
    rank: int  # of the scout: the fewer lines it will probably find, the lower. The lowest becomes the scout
    scout: Any = None  # an expression found in every line that fits, if there is a good one
    proves: bool = False  # whether the condition holds for every line that the scout finds
    by_end: bool = False  # whether the scout must know where a line ends


class Conditions:
    """All conditions on a line, compiled. Raises BadCondition; may take a tenth of a second."""

    def __init__(self, wanted: Wanted):
        found = [_contains(text, wanted.ignore_case) for text in wanted.contains]
        found += [_matches(pattern, wanted.ignore_case) for pattern in wanted.matches]
        if wanted.where:
            found.append(_where(wanted.where))
        found.sort(key=lambda condition: condition.rank)
        first = found[0] if found else None
        self.scout = first.scout if first else None
        self.by_end = first is not None and first.by_end
        self._all = [condition.holds for condition in found]
        self._others = self._all[1:] if first and first.proves else self._all

    def hold(self, line: bytes, found: bool = False) -> bool:
        """Whether all hold for a line, given without its end. `found`: whether the scout has found this very line."""
        return all(holds(line) for holds in (self._others if found else self._all))


def _contains(text: str, ignore_case: bool) -> Condition:
    raw = _encode("contains", text, LONGEST_TEXT)
    if "\n" in text:
        raise BadCondition("contains", "Has a line break: no line has one.")
    scout = compile_program(re2.escape(text), ignore_case)
    return Condition(scout.search if ignore_case else lambda line: raw in line, 1, scout, proves=True)


def _matches(pattern: str, ignore_case: bool) -> Condition:
    _encode("matches", pattern, LONGEST_PATTERN)
    try:
        small = compile_program(pattern, ignore_case, PROBE)
        if max(small.programsize, small.reverseprogramsize) > LARGEST:
            raise re2.error(b"pattern too large")
        program = compile_program(pattern, ignore_case)
    except re2.error as error:
        said = error.args[0].decode("utf-8", "replace").replace(LINES, "")
        raise BadCondition("matches", f"Is no pattern: {said}.") from None
    if OF_ONE_LINE.search(pattern):
        return Condition(program.search, 9)
    return Condition(program.search, 3, program, proves=True, by_end=True)


def _where(texts: tuple[str, ...]) -> Condition:
    fields = []
    for text in texts:
        _encode("where", text, LONGEST_TEXT)
        try:
            fields.append(Field(text))
        except ValueError as error:
            raise BadCondition("where", str(error)) from None
    best = min(fields, key=lambda field: field.rank)
    scout = compile_program(best.scout) if best.scout else None
    return Condition(Fields(fields).hold, best.rank, scout)


def _encode(kind: str, text: str, most: int) -> bytes:
    if len(text) > most:
        raise BadCondition(kind, f"Should have at most {most} characters.")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadCondition(kind, "Is no text in Unicode.") from None


def compile_program(pattern: str, ignore_case: bool = False, memory: int = MEMORY) -> Any:
    """A program of RE2 for bytes, in which a line break can only be the end of a line. Raises re2.error."""
    options = re2.Options()
    options.max_mem = memory
    options.log_errors = False
    options.never_nl = True
    options.never_capture = True
    options.case_sensitive = not ignore_case
    try:
        return re2.compile(LINES + pattern, options)
    finally:
        re2.purge()  # its cache would keep the patterns of strangers
