"""Makes a payload smaller as long as it still shows the same flaw."""

from collections.abc import Callable, Iterator
from typing import Any


def shrink(value: Any, shows: Callable[[Any], bool], tries: int) -> Any:
    """The smallest value found for which `shows` holds, with at most `tries` calls of it."""
    left = tries
    while True:
        for smaller in smaller_than(value):
            if left == 0:
                return value
            left -= 1
            if shows(smaller):
                value = smaller
                break
        else:
            return value


def smaller_than(value: Any) -> Iterator[Any]:
    """Values a step smaller, the smallest first."""
    if isinstance(value, dict):
        for key in value:
            yield {name: each for name, each in value.items() if name != key}
        for key, each in value.items():
            for smaller in smaller_than(each):
                yield {**value, key: smaller}
    elif isinstance(value, list):
        if len(value) > 2:
            yield value[: len(value) // 2]
            yield value[len(value) // 2 :]
        for number, each in enumerate(value):
            yield value[:number] + value[number + 1 :]
            for smaller in smaller_than(each):
                yield [*value[:number], smaller, *value[number + 1 :]]
    elif isinstance(value, str) and len(value) > 1:
        half = len(value) // 2
        yield from (value[:half], value[half:])
        if len(value) <= 20:
            yield from (value[1:], value[:-1])
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) > 1:
        yield from (0, 1, value // 2)
