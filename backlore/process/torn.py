"""Finds where the whole part of a torn append-only file ends. Plain functions over bytes.

The file is a log of commands in RESP, and of comment lines (https://valkey.io/topics/persistence/).
"""

import re
from mmap import mmap

Log = bytes | mmap
MULTI, EXEC = b"*1\r\n$5\r\nMULTI\r\n", b"*1\r\n$4\r\nEXEC\r\n"
WHOLE = {mark: re.compile(rb"[%c](\d+)\r\n" % mark) for mark in b"*$"}
TORN = {mark: re.compile(rb"([%c]\d*\r?)?" % mark) for mark in b"*$"}
PART = re.compile(rb"^file (\S+) seq \d+ type [bi]\b", re.M)  # b: base, i: incremental; historic parts are skipped


def last_part(manifest: bytes) -> str | None:
    """The name of the file that commands are appended to. Of all the parts, only this one can be torn."""
    parts = PART.findall(manifest)
    return parts[-1].decode() if parts else None


def whole(log: Log) -> int:
    """How many bytes, from the start, are whole commands and transactions. Raises ValueError if it is not a log."""
    at = good = 0
    within = False
    try:
        while at < len(log):
            begin, at = at, _after(log, at)
            if at - begin == len(MULTI) and log[begin:at].upper() == MULTI:
                within = True
            elif at - begin == len(EXEC) and log[begin:at].upper() == EXEC:
                within = False
            if not within:
                good = at
    except EOFError:
        pass
    return good


def _after(log: Log, at: int) -> int:
    """Where the command that begins at `at` ends. Raises EOFError when the log ends first."""
    if log[at] == ord("#"):
        end = log.find(b"\r\n", at)
        if end < 0:
            raise EOFError
        return end + 2
    count, at = _number(log, at, ord("*"))
    for _ in range(count):
        size, at = _number(log, at, ord("$"))
        at += size + 2
    if at > len(log):
        raise EOFError
    return at


def _number(log: Log, at: int, mark: int) -> tuple[int, int]:
    """The number in a line like `*3`, and where the line ends. Raises EOFError when the log ends first."""
    if found := WHOLE[mark].match(log, at):
        return int(found[1]), found.end()
    if TORN[mark].fullmatch(log, at):
        raise EOFError
    raise ValueError(f"no command at byte {at}")
