"""Guesses media types from file names."""

import mimetypes
from pathlib import PurePosixPath

PLAIN = "application/octet-stream"
PACKED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}


def guess_kind(name: str) -> str:
    """The media type by a name's suffix, "" if unknown. For a compressed file it is the type of the compression."""
    # only the suffix is looked up: as a whole, a name like data:text/html,x is a URL that names its own type
    kind, packing = mimetypes.guess_type("x" + PurePosixPath(name).suffix)
    return PACKED.get(packing, PLAIN) if packing else kind or ""
