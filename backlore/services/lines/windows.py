"""Whole lines of a text that lies in several places, block by block, from its end or from its beginning.

Laws: a line belongs to the stretch in which it begins, so that adjacent stretches have each line once, wherever they
meet. No more than one block is read at once. A line longer than LONGEST is never gathered: its beginning stands for it.
These functions wait for the disk: they are for threads.
"""

import os
from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

BLOCK = 128 << 10  # bytes read and searched at once
LONGEST = 256 << 10  # bytes of a line; a longer one is cut


class Stretch(NamedTuple):
    """The bytes from `after` until `before`, exclusive."""

    after: int
    before: int


class Unknown(Exception):
    """It is not known yet where the bytes of a stretch lie."""

    def __init__(self, stretch: Stretch):
        super().__init__(stretch)
        self.stretch = stretch


class Piece(NamedTuple):
    """Some bytes of a text: in a file, or in memory."""

    at: int  # in the text
    length: int
    source: Path | bytes
    start: int = 0  # in the source


class Window(NamedTuple):
    """Whole lines, or one that is cut; they begin at `at`. The stretch that is left begins or ends at `left`."""

    at: int
    block: bytes
    left: int


class Text:
    """The first `size` bytes of a text, made of the pieces known so far. A context manager: it closes its file."""

    def __init__(self, size: int, pieces: Sequence[Piece] = (), block: int = BLOCK, longest: int = LONGEST):
        self.size = size
        self.block = block
        self.longest = longest
        self._pieces = sorted(pieces)
        self._starts = [piece.at for piece in self._pieces]
        self._open: tuple[Path, int] | None = None

    def __enter__(self) -> "Text":
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            os.close(self._open[1])
        self._open = None

    def read(self, start: int, end: int) -> bytes:
        """The bytes from `start` until `end`. Raises Unknown; OSError when a file is shorter than it should be."""
        found = []
        at = start
        while at < end:
            place = bisect_right(self._starts, at) - 1
            piece = self._pieces[place] if place >= 0 else None
            if piece is None or at >= piece.at + piece.length:
                raise Unknown(Stretch(start, end))
            skip = at - piece.at
            length = min(end, piece.at + piece.length) - at
            try:
                found.append(self._take(piece, skip, length))
            except FileNotFoundError:  # moved or deleted since we learned of it
                del self._pieces[place], self._starts[place]
                raise Unknown(Stretch(start, end)) from None
            at += length
        return found[0] if len(found) == 1 else b"".join(found)

    def _take(self, piece: Piece, skip: int, length: int) -> bytes:
        start = piece.start + skip
        if isinstance(piece.source, bytes):
            return piece.source[start : start + length]
        if self._open is None or self._open[0] != piece.source:
            self.__exit__()
            self._open = piece.source, os.open(piece.source, os.O_RDONLY)
        data = os.pread(self._open[1], length, start)
        if len(data) < length:
            raise OSError(f"{piece.source} has become shorter while it was read")
        return data


def newest(text: Text, stretch: Stretch) -> Iterator[Window]:
    """The lines of a stretch, in windows from its end backwards. Raises as Text.read."""
    low = stretch.after - 1  # the first line begins behind a line break, or at 0
    end = _end_of_line(text, stretch.before)
    size = text.block
    while end > stretch.after:
        start = max(low, end - size, 0)
        block = text.read(start, end)
        first = 0 if start == 0 > low else block.find(b"\n", 0, len(block) - 1) + 1
        if first or start == 0 > low:
            yield Window(start + first, block[first:], start + first)
            end, size = start + first, text.block
        elif start == low:
            return  # the line begins before the stretch
        elif size < text.longest + 3:
            size = min(size * 2, text.longest + 3)
        else:
            for window in _long_line(text, low, start):
                yield window
                end = window.left
            if not window.block:
                return


def _long_line(text: Text, low: int, end: int) -> Iterator[Window]:
    """Go back to the beginning of a line that continues at `end`: windows without lines, and then one with the line's
    first bytes, if it begins behind `low`."""
    while True:
        start = max(low, end - text.block, 0)
        found = text.read(start, end).rfind(b"\n")
        if found >= 0 or start == 0 > low:
            at = start + found + 1
            yield Window(at, text.read(at, at + text.longest + 2), at)
            return
        yield Window(start, b"", start + 1)  # the line may begin right there
        if start == low:
            return
        end = start


def oldest(text: Text, stretch: Stretch) -> Iterator[Window]:
    """The lines of a stretch, in windows from its beginning. Raises as Text.read."""
    at = yield from _to_line(text, stretch.after)
    size = text.block
    while at < min(stretch.before, text.size):
        end = min(at + size, text.size)
        block = text.read(at, end)
        last = len(block) if end == text.size else block.rfind(b"\n") + 1
        if last:
            if at + last > stretch.before:  # only lines that begin before it
                last = block.find(b"\n", stretch.before - 1 - at, last) + 1 or last
            yield Window(at, block[:last], at + last)
            at, size = at + last, text.block
        elif size < text.longest + 3:
            size = min(size * 2, text.longest + 3)
        else:
            yield Window(at, block[: text.longest + 2], at + 1)
            at = yield from _to_line(text, end)


def _to_line(text: Text, at: int) -> Generator[Window, None, int]:
    """Go forward to where a line begins, and return that place: windows without lines."""
    while 0 < at < text.size:
        end = min(at - 1 + text.block, text.size)
        found = text.read(at - 1, end).find(b"\n")
        if found >= 0:
            return at + found
        at = end + 1 if end < text.size else end
        yield Window(at, b"", at)
    return at


def _end_of_line(text: Text, at: int) -> int:
    """Where the line that has the byte before `at` ends, or a place where it is longer than a line may be."""
    if not 0 < at < text.size:
        return min(at, text.size)
    end = at
    while end <= at + text.longest + 1:
        far = min(end + text.block, text.size)
        found = text.read(end - 1, far).find(b"\n")
        if found >= 0:
            return end + found
        if far == text.size:
            return far
        end = far
    return end


def end_of_lines(text: Text, low: int) -> int:
    """Where the last line ends that has a line break behind `low`; `low` if there is none."""
    end = text.size
    while end > low:
        start = max(low, end - text.block)
        found = text.read(start, end).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return low
