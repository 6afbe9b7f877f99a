"""Windows over texts in pieces have each line once, wherever a look ends."""

import itertools
import re
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backlore.services.lines.conditions import Conditions, Wanted
from backlore.services.lines.lines import Found, Look
from backlore.services.lines.windows import Piece, Stretch, Text
from tests.kit.lines import AT_ONCE, MANY, NEVER, all_lines, look

SOME = [b"a", b"b", b"ab", b"\n", b"\n", b"\r\n", b"\r", b"\0", b"\xff", "ä".encode(), b"aaaaaaaaaaaa"]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pieces")


def in_pieces(content: bytes, cuts: Sequence[int], folder: Path, block: int, longest: int) -> Text:
    """The content in pieces, every other one in a file behind something else."""
    edges = [0, *sorted({cut % (len(content) + 1) for cut in cuts}), len(content)]
    pieces = []
    for number, (start, end) in enumerate(itertools.pairwise(edges)):
        if number % 2:
            pieces.append(Piece(start, end - start, content[start:end]))
        else:
            path = folder / str(number)
            path.write_bytes(b"\nx\n" + content[start:end] + b"\nbehind")
            pieces.append(Piece(start, end - start, path, 3))
    return Text(len(content), [piece for piece in pieces if piece.length], block, longest)


@MANY
@given(
    content=st.lists(st.sampled_from(SOME), max_size=40).map(b"".join),
    cuts=st.lists(st.integers(0, 100), max_size=3),
    block=st.sampled_from([2, 3, 4, 5, 8, 40]),
    longest=st.integers(1, 9),
    limit=st.sampled_from([1, 2, 5, 100]),
    edges=st.one_of(st.just((0, -1)), st.tuples(st.integers(0, 90), st.integers(0, 90))),
    stopped=st.sampled_from([NEVER, AT_ONCE]),
    wanted=st.sampled_from(
        [Wanted(), Wanted(("ab",)), Wanted(("ab",), ("^a",)), Wanted((), ("b$",)), Wanted((), ("^$",)), Wanted(("\r",))]
    ),
)
@example(b"\n", [], 2, 1, 1, (0, 1), NEVER, Wanted())
@example(b"aa\r\n" * 5, [], 2, 2, 1, (1, 19), AT_ONCE, Wanted((), ("a$",)))
@example(b"ba", [], 2, 1, 1, (0, -1), NEVER, Wanted((), ("b$",)))
def test_windows_have_each_line_once(
    scratch: Path,
    content: bytes,
    cuts: list[int],
    block: int,
    longest: int,
    limit: int,
    edges: tuple[int, int],
    stopped: threading.Event,
    wanted: Wanted,
) -> None:
    text = in_pieces(content, cuts, scratch, block, longest)
    stretch = Stretch(*sorted(edge % (len(content) + 1) for edge in edges))
    right = [line for line in all_lines(content, longest) if stretch.after <= line.at < stretch.before]
    right = [line for line in right if all(each.encode() in line.data for each in wanted.contains)]
    right = [line for line in right if all(re.search(each.encode(), line.data) for each in wanted.matches)]
    assert look(text, wanted, False, stretch, limit, stopped) == right
    assert look(text, wanted, True, stretch, limit, stopped) == right[::-1]


def test_a_look_that_is_stopped_goes_on_anywhere(scratch: Path) -> None:
    """Also in the middle of a line that is longer than what one look covers."""
    content = b"first\n" + b"x" * 1000 + b"\nsecond\n" + b"y" * 500
    for newest in (True, False):
        text = in_pieces(content, [300, 700], scratch, 64, 100)
        found, lines, looks = Found([], Stretch(0, len(content))), [], 0
        while not found.is_all:
            found, _ = Look(Conditions(Wanted()), newest, 100).at(text, found.left, AT_ONCE)
            lines += found.lines
            looks += 1
        assert looks > 15 and lines == all_lines(content, 100)[:: -1 if newest else 1]
