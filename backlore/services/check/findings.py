"""The findings of a check, by kind."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

# In the order in which they are reported
KINDS = {
    "lost": "neither on the disk nor in S3, or damaged wherever it is",
    "absent": "not on the disk",
    "unsaved": "not in S3, where it was",
    "different": "other bytes than there should be, on the disk or in S3",
    "misplaced": "in the wrong folder of S3",
    "orphaned": "nobody's",
    "ownerless": "files of a user who is no more",
    "unknown": "a file whose content the catalog doesn't know",
    "counts": "counted wrongly: who has a content, or what a user has",
    "indexes": "listed wrongly",
    "moves": "not named for the move it needs, or named in vain",
    "unread": "this version can't read it, and leaves it to one that can",
}


FEW = 20  # orphans that may be deleted even if they are most


class Problem(NamedTuple):
    """A problem. `what` is the file or content; `user` is "" when its owner is unknown."""

    kind: str
    user: str
    what: str
    why: str
    mended: bool


class Findings:
    """The problems of a check, counted by kind; `tell` is called with each of them."""

    def __init__(self, tell: Callable[[Problem], None] | None = None):
        self.found: Counter[str] = Counter()
        self.mended: Counter[str] = Counter()
        self.notes: list[str] = []  # sentences for people
        self.busy = 0  # how many things kept changing, so that nothing can be said of them
        self._tell = tell

    def add(self, kind: str, user: str, what: str, why: str = "", mended: bool = False) -> None:
        """Count a problem. Without `why` the text of its kind is used."""
        self.found[kind] += 1
        self.mended[kind] += mended
        if self._tell:
            self._tell(Problem(kind, user, what, why or KINDS[kind], mended))

    def refuse(self, what: str, many: int, of: int) -> None:
        """Note once that `many` of `of` things were not deleted."""
        note = (
            f"The check would delete {many} of {of} {what}. Is this the right redis, and is it whole? None of them is "
            "deleted without --insist."
        )
        if note not in self.notes:
            self.notes.append(note)

    @property
    def left(self) -> int:
        """How many problems were not mended."""
        return self.found.total() - self.mended.total()


def are_most(many: int, of: int) -> bool:
    """Whether `many` of `of` are too many to be deleted without --insist."""
    return many > max(FEW, of / 2)
