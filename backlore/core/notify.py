"""notify: the one funnel for every event that may concern the operator.

Laws:

- It never raises and never blocks its caller: a thread of its own feeds the sinks, and survives the failure of each.
- A field whose name looks like a secret's is redacted, at any depth, before the record is kept.
- Records that were dropped because the queue was full are counted, and the next record tells their number.
"""

import contextlib
import json
import queue
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Literal

Level = Literal["info", "warning", "error"]
Record = dict[str, Any]  # time (seconds), level, event, and the fields of the event
Sink = Callable[[Record], None]

SECRET_NAMES = re.compile(r"passw|secret|token|csrf|cookie|session|signature|authorization|api_?key|private_?key", re.I)
MOST_WAITING = 10_000
LONGEST_TEXT = 8_000  # characters of one field


class Notify:
    """`notify("error", "worker.died", pid=12)`: a level, an event, and fields about it.

    An exception as a field is kept with its traceback. One thread calls the `sinks` with each record, one after the
    other; a sink that fails is reported on standard error, and the others still get the record.
    """

    def __init__(self, *sinks: Sink):
        self.sinks: list[Sink] = list(sinks)
        self._queue: queue.Queue[Record | threading.Event] = queue.Queue(MOST_WAITING)
        self._dropped = 0
        self._thread: threading.Thread | None = None

    def __call__(self, level: Level, event: str, **fields: Any) -> None:
        """Pass an event on. Returns at once, whatever the sinks do."""
        record: Record = {"time": time.time(), "level": level, "event": event}
        try:
            record |= _redact(fields, 0)
        except Exception as error:  # a key that can't be made text, a dict that changes meanwhile
            record["unreadable"] = type(error).__name__
        try:
            if self._dropped:
                lost, self._dropped = self._dropped, 0
                record["dropped_before"] = lost
            self._queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1 + record.get("dropped_before", 0)
            return
        if self._thread is None or not self._thread.is_alive():  # a forked process doesn't have the thread
            thread = threading.Thread(target=self._feed, name="notify", daemon=True)
            with contextlib.suppress(RuntimeError):  # no thread can be started now: the next event tries again
                thread.start()
                self._thread = thread

    def flush(self, seconds: float = 2.0) -> None:
        """Wait until the sinks have got all records so far, at most `seconds`, or twice that when the queue is full."""
        if self._thread is None:
            return
        reached = threading.Event()
        try:
            self._queue.put(reached, timeout=seconds)
        except queue.Full:
            return
        reached.wait(seconds)

    def _feed(self) -> None:
        while True:
            record = self._queue.get()
            if isinstance(record, threading.Event):
                record.set()
                continue
            for sink in list(self.sinks):
                try:
                    sink(record)
                except BaseException:
                    with contextlib.suppress(Exception):  # standard error may be what has failed
                        traceback.print_exc(file=sys.stderr)


def console(record: Record) -> None:
    """The sink for a terminal: one line per event on standard error, and the traceback below it."""
    fields = dict(record)
    clock = time.strftime("%H:%M:%S", time.localtime(fields.pop("time")))
    head = f"{clock} {fields.pop('level'):<7} {fields.pop('event')}"
    trace = fields.pop("trace", None)
    rest = " ".join(f"{name}={_compact(value)}" for name, value in fields.items())
    print(f"{head} {rest}".rstrip() + (f"\n{trace.rstrip()}" if trace else ""), file=sys.stderr, flush=True)


def _compact(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    # one line per event: text that a client sent must not forge another line or a colour
    return json.dumps(text) if not text.isprintable() or " " in text else text


def _redact(value: Any, depth: int) -> Any:
    """A copy of `value` in plain types, without secrets and cut to size."""
    if isinstance(value, bool | int | float | None):
        return value
    if depth > 8:
        return "…"
    if isinstance(value, dict):
        plain: dict[str, Any] = {}
        for key, each in value.items():
            name = str(key)
            if isinstance(each, BaseException):
                plain["trace"] = "".join(traceback.format_exception(each))[-LONGEST_TEXT:]
            plain[name] = "[redacted]" if SECRET_NAMES.search(name) else _redact(each, depth + 1)
        return plain
    if isinstance(value, list | tuple | set | frozenset):
        return [_redact(each, depth + 1) for each in list(value)[:100]]
    try:
        return str(value)[:LONGEST_TEXT]
    except Exception as error:
        return f"[no text: {type(error).__name__}]"
