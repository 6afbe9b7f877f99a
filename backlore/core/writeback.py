"""Tells the kernel to begin writing a file's bytes to the disk, so that the fsync at the end finds little to do.

Law: this is a hint: only fsync makes anything durable. On systems other than Linux it does nothing.
"""

import ctypes
import sys
from typing import Any

WRITE = 2  # SYNC_FILE_RANGE_WRITE: begin, and don't wait


def _find() -> Any:
    function = getattr(ctypes.CDLL(None), "sync_file_range", None) if sys.platform == "linux" else None
    if function:
        function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return function


_sync_file_range = _find()


def begin_writeback(handle: int, start: int, length: int) -> None:
    """Begin writing these bytes of a file. Call it from a thread: it blocks while the disk's queue is full."""
    if _sync_file_range:
        _sync_file_range(handle, start, length, WRITE)
