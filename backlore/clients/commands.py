"""What commands of redis do to a connection that many tasks share. Plain functions over tables."""

from collections.abc import Mapping
from typing import Any

from redis.client import EMPTY_RESPONSE

from backlore.clients.link import Arguments

# Where the limit of a blocking command stands among its arguments, and its unit in seconds.
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
# Block only if asked to; redis-py wants a coroutine from these two.
STREAMS = frozenset({"XREAD", "XREADGROUP"})
# Their second word decides.
FAMILIES = frozenset({"CLIENT", "SCRIPT", "HIMPORT"})
# They change the connection they come through, or end it, or turn it into a stream. On a connection that all
# tasks share that would hit the others; on a random one of the pool, whoever takes it next.
REFUSED = frozenset(
    {"SELECT", "AUTH", "HELLO", "RESET", "QUIT", "MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH", "MONITOR"}
    | {"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE", "SYNC"}
    | {"PSYNC", "READONLY", "READWRITE", "ASKING", "SCRIPT DEBUG", "CLIENT REPLY", "CLIENT TRACKING"}
    | {"CLIENT CACHING"}
    | {"CLIENT SETNAME", "CLIENT SETINFO", "CLIENT NO-EVICT", "CLIENT NO-TOUCH"}
)
FOREVER = 1e8  # seconds


def full_name(args: Arguments) -> str:
    """The command's name in capitals, with the second word if it needs one: `CLIENT REPLY`."""
    words = args[0].decode() if isinstance(args[0], bytes) else str(args[0])
    name = " ".join(words.upper().split())
    if name in FAMILIES and len(args) > 1:
        second = args[1].decode() if isinstance(args[1], bytes) else str(args[1])
        return f"{name} {second.upper()}"
    return name


def split(args: Arguments) -> Arguments:
    """redis-py writes `CONFIG GET` as one argument; the server wants two."""
    first = args[0].split() if isinstance(args[0], str | bytes) else [args[0]]
    return (*first, *args[1:])


def patience(name: str, args: Arguments) -> float | None:
    """How many seconds the command may block; None if it doesn't."""
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
    """May this command of a pipeline go over the shared connection? Within MULTI nothing blocks."""
    name = full_name(args)
    if name in REFUSED or name.startswith("HIMPORT") or EMPTY_RESPONSE in options:
        return False
    return transaction or patience(name, args) is None
