"""Judges a content by its record and the copies that exist. No I/O."""

from collections.abc import Mapping
from typing import NamedTuple

from backlore.services.files.catalog import Blob


class Copy(NamedTuple):
    """A copy of a content: its size in bytes; `sound` unless it is known to be damaged."""

    size: int
    sound: bool = True


class Verdict(NamedTuple):
    """A problem and its remedy: "fetch" the content from S3, or "place" it there anew; "" if there is none.

    With "place", `where` and `pushed` record what S3 has now.
    """

    kind: str
    why: str = ""
    remedy: str = ""
    where: str = ""
    pushed: int = 0


def judge(blob: Blob, here: Copy | None, there: Mapping[str, Copy], due: bool, has_bucket: bool) -> list[Verdict]:
    """The problems of a content that a file refers to. `here` is the copy on the disk, `there` those in S3's folders.

    While a move is `due`, the copies in S3 are not judged: they are the courier's.
    """
    sound = [folder for folder, copy in there.items() if _is_whole_in_s3(blob, copy)]
    here_is_whole = here is not None and _is_whole_here(blob, here)
    if not here_is_whole and not sound:
        return [Verdict("lost", _why_lost(here, there))]
    verdicts = []
    if here is None:
        verdicts.append(Verdict("absent", remedy="fetch"))
    elif not here_is_whole:
        verdicts.append(Verdict("different", f"on the disk: {_how(blob, here)}", "fetch"))
    if has_bucket and not due and (blob.where, blob.pushed) == (blob.belongs, blob.size):
        verdicts += _judge_s3(blob, there, sound)
    return verdicts


def _judge_s3(blob: Blob, there: Mapping[str, Copy], sound: list[str]) -> list[Verdict]:
    wrong = [folder for folder in there if folder != blob.belongs]
    verdicts = []
    if wrong:
        # copied within S3 if that copy is sound, else pushed from here; the misplaced one is deleted in any case
        pushed = blob.size if sound == wrong and blob.belongs not in there else 0
        why = f"in {wrong[0]}, and belongs in {blob.belongs}"
        verdicts.append(Verdict("misplaced", why, "place", wrong[0], pushed))
    if blob.belongs not in there and not wrong:
        verdicts.append(Verdict("unsaved", remedy="place"))
    if blob.belongs in there and blob.belongs not in sound:
        why = f"in S3: {_how(blob, there[blob.belongs])}"
        verdicts.append(Verdict("different", why, "place", wrong[0] if wrong else ""))
    return verdicts


def _is_whole_here(blob: Blob, copy: Copy) -> bool:
    # a content that grows may have more bytes than were acknowledged
    return copy.sound and (copy.size == blob.size if blob.hash else copy.size >= blob.size)


def _is_whole_in_s3(blob: Blob, copy: Copy) -> bool:
    return copy.sound and copy.size == blob.size


def _how(blob: Blob, copy: Copy) -> str:
    return f"{copy.size} bytes instead of {blob.size}" if copy.size != blob.size else "other bytes"


def _why_lost(here: Copy | None, there: Mapping[str, Copy]) -> str:
    damaged = [place for place, copy in (("the disk", here), *there.items()) if copy]
    return f"damaged in {' and '.join(damaged)}" if damaged else "nowhere"
