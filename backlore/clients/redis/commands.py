"""What redis commands do to a connection that many tasks share. Plain functions over tables."""

from collections.abc import Mapping
from typing import Any

from redis.client import EMPTY_RESPONSE
from redis.exceptions import DataError

from backlore.clients.redis.link import Arguments

# The position of a blocking command's timeout among its arguments, and its unit in seconds.
BLOCKING: Mapping[str, tuple[int, float]] = {
    "BLPOP": (-1, 1),
    "BRPOP": (-1, 1),
    "BLMOVE": (-1, 1),
    "BRPOPLPUSH": (-1, 1),
    "BZPOPMIN": (-1, 1),
    "BZPOPMAX": (-1, 1),
    "BLMPOP": (1, 1),
    "BZMPOP": (1, 1),
    "WAIT": (-1, 0.001),
    "WAITAOF": (-1, 0.001),
}
# Commands that block only if asked to. redis-py expects a coroutine from these two.
STREAMS = frozenset({"XREAD", "XREADGROUP"})
# Commands that wait for writes made through their own connection: on the shared one they would block other tasks, on
# one of the pool they would wait for nothing.
WAITS = frozenset({"WAIT", "WAITAOF"})
# Commands whose second word decides.
FAMILIES = frozenset({"CLIENT", "SCRIPT", "HIMPORT"})
# Commands that change or end their connection, turn it into a stream, or have no reply. On the shared connection that
# would affect other tasks; on one of the pool, the task that takes it next.
REFUSED = frozenset(
    {"SELECT", "AUTH", "HELLO", "RESET", "QUIT", "MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH", "MONITOR"}
    | {"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE", "SYNC"}
    | {"PSYNC", "REPLCONF", "READONLY", "READWRITE", "ASKING", "SCRIPT DEBUG"}
)
# The CLIENT commands that don't. All others are refused, because those of future servers may.
HARMLESS = frozenset(
    {"ID", "INFO", "LIST", "KILL", "GETNAME", "GETREDIR", "TRACKINGINFO", "PAUSE", "UNPAUSE", "UNBLOCK", "HELP"}
)
FOREVER = 1e8  # seconds


def full_name(args: Arguments) -> str:
    """The command's name in capitals, with the second word if it needs one: `CLIENT REPLY`."""
    first, *rest = split(args)
    name = _text(first)
    return f"{name} {_text(rest[0])}" if name in FAMILIES and rest else name


def _text(word: Any) -> str:
    text = bytes(word).decode("latin-1") if isinstance(word, bytes | bytearray | memoryview) else str(word)
    return text.upper()


def why_refused(args: Arguments) -> str:
    """Why this command can't be sent over a connection that others use too; "" if it can."""
    name = full_name(args)
    family, _, second = name.partition(" ")
    if name in REFUSED or (family == "CLIENT" and second and second not in HARMLESS):
        return (
            f"{name} changes the connection, which others use too: use pipeline(), pubsub(), monitor() or the "
            "client's options; client() gives a connection of your own"
        )
    return ""


def split(args: Arguments) -> Arguments:
    """Split a name like `CONFIG GET`: one argument in redis-py, two for the server. Raises DataError without a name."""
    first = args[0].split() if isinstance(args[0], str | bytes) else [args[0]]
    if not first:
        raise DataError("A command needs a name")  # it would get no reply, and take the next command's for its own
    return (*first, *args[1:])


def patience(name: str, args: Arguments) -> float | None:
    """How many seconds the command may block; None if it doesn't."""
    args = split(args)
    if name in BLOCKING:
        place, unit = BLOCKING[name]
        return float(args[place]) * unit or FOREVER
    if name in STREAMS:
        words = [a.upper() if isinstance(a, bytes) else str(a).upper().encode() for a in args]
        before = words[: words.index(b"STREAMS")] if b"STREAMS" in words else words
        if b"BLOCK" in before[:-1]:
            return float(args[before.index(b"BLOCK") + 1]) / 1000 or FOREVER
    return None


def shares(args: Arguments, options: Mapping[str, Any], transaction: bool) -> bool:
    """Whether this command of a pipeline may go over the shared connection. Within MULTI nothing blocks."""
    name = full_name(args)
    if name.startswith("HIMPORT") or EMPTY_RESPONSE in options:
        return False
    return transaction or patience(name, args) is None
