"""Where the bytes of a file lie. Only the stretches that are read are asked for: the rest is not fetched from S3."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from backlore.services.files.catalog import File
from backlore.services.lines.windows import Piece, Stretch, Text
from backlore.web.delivery import FilePart, Part

FIRST, MOST = 1 << 20, 64 << 20  # bytes to ask for at once: at first, and at most
KEPT = 8 << 20  # bytes of streams that are kept in memory

Spans = Callable[[str, File, int, int], Awaitable[Sequence[Part]]]  # given a user, a file, a first byte and a length


class Places:
    """Where the bytes of one version of a file lie, as far as known."""

    def __init__(self, spans: Spans, user: str, file: File):
        self._spans = spans
        self._user = user
        self._file = file
        self._ahead = FIRST
        self._pieces: list[Piece] = []  # in the order in which they were learned

    def text(self, size: int) -> Text:
        """The first `size` bytes of the file; reading bytes of unknown place raises Unknown."""
        return Text(size, self._pieces)

    async def learn(self, stretch: Stretch, backwards: bool) -> None:
        """Ask for a stretch and for some bytes that will be read next. Raises Lost, S3Error, OSError."""
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
    """The pieces without the oldest ones that came as streams, so that KEPT bytes remain."""
    room = KEPT
    kept: list[Piece] = []
    for each in reversed(pieces):
        room -= len(each.source) if isinstance(each.source, bytes) else 0
        if room >= 0 or not isinstance(each.source, bytes):
            kept.insert(0, each)
    return kept
