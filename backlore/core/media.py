"""Media types by names."""

import mimetypes
from pathlib import PurePosixPath

PLAIN = "application/octet-stream"
PACKED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}


def guess_kind(name: str) -> str:
    """The media type by the end of a name, "" for none: what is compressed is that, and not what is in it."""
    # of the whole name, a URL like data:text/html,x would name its own
    kind, packing = mimetypes.guess_type("x" + PurePosixPath(name).suffix)
    return PACKED.get(packing, PLAIN) if packing else kind or ""
