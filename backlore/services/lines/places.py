"""Where the bytes of a file lie, asked for as far as they are needed: what nobody looks at stays where it is."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from backlore.services.files.catalog import File
from backlore.services.lines.windows import Piece, Stretch, Text
from backlore.web.delivery import FilePart, Part

FIRST, MOST = 1 << 20, 64 << 20  # bytes of which we ask where they lie: at first, and at most
KEPT = 8 << 20  # bytes that came as streams and are kept for a while

Spans = Callable[[str, File, int, int], Awaitable[Sequence[Part]]]  # of a user's file, from a byte on, so many


class Places:
    """Of one version of a file."""

    def __init__(self, spans: Spans, user: str, file: File):
        self._spans = spans
        self._user = user
        self._file = file
        self._ahead = FIRST
        self._pieces: list[Piece] = []  # those that were learned last come last

    def text(self, size: int) -> Text:
        """The first bytes of it, as far as we know where they are."""
        return Text(size, self._pieces)

    async def learn(self, stretch: Stretch, backwards: bool) -> None:
        """Ask for a stretch, and for some of what comes next. Raises Lost, S3Error, OSError."""
        start, end = stretch
        if backwards:
            start = max(min(start, end - self._ahead), 0)
        else:
            end = min(max(end, start + self._ahead), self._file.size)
        old = [each for each in self._pieces if each.at + each.length <= start or each.at >= end]
        new, at = [], start
        for part in await self._spans(self._user, self._file, start, end - start):
            if isinstance(part, FilePart):
                new.append(Piece(at, part.length, Path(part.path), part.start))
            else:
                new.append(Piece(at, part.length, b"".join([piece async for piece in part.pieces()])))
            at += part.length
        self._pieces = _at_hand(old) + new
        if all(isinstance(each.source, bytes) for each in new):
            return
        self._ahead = min(self._ahead * 2, MOST)


def _at_hand(pieces: list[Piece]) -> list[Piece]:
    """Without what came as streams long ago."""
    room = KEPT
    kept: list[Piece] = []
    for each in reversed(pieces):
        room -= len(each.source) if isinstance(each.source, bytes) else 0
        if room >= 0 or not isinstance(each.source, bytes):
            kept.insert(0, each)
    return kept
