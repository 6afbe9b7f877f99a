"""The media type of a file, and which names are valid.

Laws: a client's word is never taken for what a browser would run or draw. A page shows only the types below, which are
known by their first bytes, and plain text; everything else is a download. A name is a key and never a path on our disk.
Yet it becomes a path on a reader's disk: it can't climb to a parent folder, and can't pass for another name.
"""

import re
import unicodedata
from collections.abc import Sequence
from itertools import accumulate, count
from pathlib import PurePosixPath

from backlore.core.media import PLAIN, guess_kind
from backlore.core.payload import Invalid

HEAD = 4096  # bytes at the beginning that are looked at
MOST = 255  # characters of a name

# Types that a browser may show, each with a pattern of the bytes that such a file begins with. `.` is any byte.
SHOWN: dict[str, bytes] = {
    "image/png": rb"\x89PNG\r\n\x1a\n",
    "image/jpeg": rb"\xff\xd8\xff",
    "image/gif": rb"GIF8[79]a",
    "image/webp": rb"RIFF.{4}WEBP",
    "image/avif": rb".{4}ftypavi[fs]",
    "image/bmp": rb"BM.{4}\0{4}",
    "audio/mpeg": rb"ID3|\xff[\xfb\xf3\xf2]",
    "audio/ogg": rb"OggS\0\x02",
    "audio/wav": rb"RIFF.{4}WAVE",
    "audio/flac": rb"fLaC",
    "video/mp4": rb".{4}ftyp(isom|mp4[12]|avc1|iso[2-6]|M4V )",
    "video/webm": rb"\x1aE\xdf\xa3.{0,60}webm",
}
_patterns = {kind: re.compile(pattern, re.DOTALL) for kind, pattern in SHOWN.items()}
# names that are valid as they are; `clean` would find the same with more work
_PLAIN_NAME = re.compile("(?!.{256})[A-Za-z0-9_-][A-Za-z0-9_. -]*(/[A-Za-z0-9_-][A-Za-z0-9_. -]*)*")
# invisible characters that change the direction of writing: a name with them reads like another
_TURNS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def sniff(head: bytes, name: str) -> str:
    """The media type: by the first bytes for types that may be shown, by the name for any other."""
    for kind, pattern in _patterns.items():
        if pattern.match(head):
            return kind
    guess = guess_kind(name)
    if guess in ("", "text/plain") and is_text(head):
        return "text/plain"
    return PLAIN if guess in SHOWN else guess or PLAIN


def is_shown(kind: str) -> bool:
    """Whether a browser may show this type within a page: it runs nothing."""
    return kind in SHOWN or kind == "text/plain"


def is_text(head: bytes) -> bool:
    """Whether a file begins as text in UTF-8."""
    try:
        text = head.decode("utf-8") if len(head) < HEAD else head[: HEAD - 4].decode("utf-8", "ignore")
    except UnicodeDecodeError:
        return False
    return bool(head) and not any(ord(each) < 32 and each not in "\t\n\r\f\x1b" for each in text)


class BadName(Invalid):
    """A file can't have this name; `why` is a sentence."""

    def __init__(self, why: str):
        super().__init__("name", why)


def clean(name: str) -> str:
    """The name as it is kept: in Unicode's NFC, of parts between slashes. Raises BadName."""
    if _PLAIN_NAME.fullmatch(name):
        return name
    name = unicodedata.normalize("NFC", name)
    if not 1 <= len(name) <= MOST:
        raise BadName(f"A name has 1 to {MOST} characters.")
    if any(unicodedata.category(each) in ("Cc", "Cs") for each in name):
        raise BadName("A name has no control characters.")
    if _TURNS.search(name):
        raise BadName("A name has no characters that change the direction of writing.")
    if "\\" in name:
        raise BadName("A name has no backslash; its parts stand between slashes.")
    for part in name.split("/"):
        if not part.strip(". \u00a0"):
            raise BadName("Each part of a name has something that is no dot and no space.")
        if len(part.encode()) > MOST:
            raise BadName(f"Each part of a name has at most {MOST} bytes in UTF-8.")
    return name


def unpackable(names: Sequence[str]) -> list[str]:
    """These names, with a number added where a disk can't have them side by side.

    That is a name that is also a folder of another one, and names that are equal where capitals, and dots and spaces
    at the end of a part, don't count.
    """
    left = set(map(_plain, names)) - {folder for name in names for folder in _folders(_plain(name))}
    taken = {place for name in names for place in (_plain(name), *_folders(_plain(name)))}
    found = []
    for name in names:
        plain, path, numbers = _plain(name), PurePosixPath(name), count(2)
        if plain in left:  # the first of this name
            left.remove(plain)
        else:
            while (plain := _plain(name)) in taken:
                name = str(path.with_name(f"{path.stem} ({next(numbers)}){path.suffix}"))
            taken.add(plain)
        found.append(name)
    return found


def _plain(name: str) -> str:
    """A form that is equal for names that some disk takes for the same."""
    parts = unicodedata.normalize("NFC", name).casefold().split("/")
    return "/".join(part.rstrip(". ") for part in parts)


def _folders(name: str) -> list[str]:
    """All folders that a name lies in."""
    return list(accumulate(name.split("/")[:-1], "{}/{}".format))
