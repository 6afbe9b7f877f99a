"""Lines of a content, said simply: what all the looks must find."""

import threading

from hypothesis import HealthCheck, settings

from backlore.services.lines.conditions import Conditions, Wanted
from backlore.services.lines.lines import Found, Line, Look
from backlore.services.lines.windows import Stretch, Text

MANY = settings(derandomize=True, deadline=None, max_examples=1000, suppress_health_check=list(HealthCheck))
NEVER, AT_ONCE = threading.Event(), threading.Event()
AT_ONCE.set()  # a look covers one window


def all_lines(content: bytes, longest: int) -> list[Line]:
    found, at = [], 0
    for each in content.split(b"\n"):
        data = each.removesuffix(b"\r")
        found.append(Line(at, data[:longest], len(data) > longest))
        at += len(each) + 1
    return found[:-1] if content.endswith(b"\n") or not content else found


def look(
    text: Text, wanted: Wanted, newest: bool, stretch: Stretch, limit: int, stopped: threading.Event = NEVER
) -> list[Line]:
    """All lines of a stretch, by looks that end at the limit or anywhere, each going on where the last one ended."""
    found, conditions = Found([], stretch), Conditions(wanted)
    lines: list[Line] = []
    for _ in range(10_000):
        if found.is_all:
            return lines
        found, unknown = Look(conditions, newest, limit).at(text, found.left, stopped)
        assert unknown is None and len(found.lines) <= limit
        lines += found.lines
    raise AssertionError("it never ends")
