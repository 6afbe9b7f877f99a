"""The standard streams: all three are open, and losing one ends nothing."""

import atexit
import contextlib
import os
import sys


def hold() -> None:
    """Open the null device in place of each closed stream; else a file of ours would get its number, and our output.

    Call it at the start of a process, before anything is opened.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
            os.set_inheritable(number, True)
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115  it lives as long as the process
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115
    atexit.register(_let_go)


def say(text: str) -> None:
    """Print a line; if standard output is gone, do nothing."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def _let_go() -> None:
    """Drop output that can't be written: if Python's own flush at exit failed, it would change the exit status."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
