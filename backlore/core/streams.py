"""The standard streams: each is there, and the loss of one ends nothing."""

import atexit
import contextlib
import os
import sys


def hold() -> None:
    """Put the null device where a stream was closed; else a file of ours gets its number, and what we say goes there.

    For the start of a process, before it opens anything.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
            os.set_inheritable(number, True)
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115  it lives as long as we do
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115
    atexit.register(_let_go)


def say(text: str) -> None:
    """Print a line, where somebody reads it."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def _let_go() -> None:
    """Drop what can't be written: Python's own last try would make an exit status of its failure."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
