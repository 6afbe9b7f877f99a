"""What a redis server refuses, as exceptions: redis-py's, and one more."""

import re

from redis._parsers import _AsyncHiredisParser
from redis._parsers.base import BaseParser
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    ExecAbortError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)


class Unready(ResponseError):
    """The server can't take the command now: its disk is full, too few replicas follow, a script runs too long."""


UNREADY = re.compile("(NOREPLICAS|BUSY|MISCONF|UNBLOCKED|DENIED) ")
# Until 7.0 an error within a script came with the server's own words before it.
IN_SCRIPT = re.compile(r"ERR Error (?:running|compiling) script .*?: -(?=[A-Z]+ )", re.S)

# The command did not run, since the server can't take it now.
NOT_TAKEN = (Unready, BusyLoadingError, ReadOnlyError, OutOfMemoryError, ClusterDownError, TryAgainError, AskError)
# All that means "not now". A transaction that is aborted though none of its commands was refused is among it: the
# server itself changed while it was collected.
NOT_NOW = (ConnectionError, TimeoutError, ExecAbortError, *NOT_TAKEN)


def parse_error(text: str) -> Exception:
    """The server's error, without the minus before it."""
    if found := IN_SCRIPT.match(text):
        text = text[found.end() :]
    if UNREADY.match(text):
        return Unready(text)
    known: Exception = BaseParser.parse_error(text)  # type: ignore[no-untyped-call]
    return known


class Parser(_AsyncHiredisParser):
    """redis-py's, for its own connections, with our exceptions."""

    parse_error = staticmethod(parse_error)
