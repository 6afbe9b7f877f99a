"""The errors of a redis server as exceptions: redis-py's, and one more."""

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
# Servers before 7.0 put words of their own before an error from within a script.
IN_SCRIPT = re.compile(r"ERR Error (?:running|compiling) script .*?: -(?=[A-Z]+ )", re.S)

# The command did not run, because the server can't take it now.
NOT_TAKEN = (Unready, BusyLoadingError, ReadOnlyError, OutOfMemoryError, ClusterDownError, TryAgainError, AskError)
# All errors that mean "not now". They include a transaction that is aborted although none of its commands was refused:
# the server's state changed while the commands were queued.
NOT_NOW = (ConnectionError, TimeoutError, ExecAbortError, *NOT_TAKEN)


def parse_error(text: str) -> Exception:
    """The exception for a server's error; `text` is that error without the leading minus."""
    if found := IN_SCRIPT.match(text):
        text = text[found.end() :]
    if UNREADY.match(text):
        return Unready(text)
    known: Exception = BaseParser.parse_error(text)  # type: ignore[no-untyped-call]
    return known


class Parser(_AsyncHiredisParser):
    """redis-py's parser for its own connections, with our exceptions."""

    parse_error = staticmethod(parse_error)
