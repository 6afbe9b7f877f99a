"""What a handler's own code tells of it."""

import contextlib
import inspect
from collections.abc import Iterator
from types import CodeType
from typing import Any

from backlore.web.reply import NEXT


def place(handler: Any) -> str:
    """Where it stands: `create_note, /srv/shoebox/server.py:12`."""
    function = _function(handler)
    code = function.__code__
    return f"{function.__qualname__}, {code.co_filename}:{code.co_firstlineno}"


def may_pass(handler: Any) -> bool:
    """Whether it may return NEXT: it names it, or a function that it calls by name or wraps does."""
    seen: set[Any] = set()
    functions = [_function(handler)]
    while functions:
        function = functions.pop()
        if function in seen:
            continue
        seen.add(function)
        names = set(_names(function.__code__))
        used = [function.__globals__.get(name) for name in names]
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):  # it is filled later
                used.append(cell.cell_contents)
        if "NEXT" in names or any(each is NEXT for each in used):
            return True
        functions += [_function(each) for each in used if inspect.isroutine(each) and hasattr(each, "__code__")]
    return False


def _function(handler: Any) -> Any:
    """The function behind decorators, of a method or of a callable object."""
    return inspect.unwrap(
        getattr(handler, "__func__", handler) if inspect.isroutine(handler) else type(handler).__call__
    )


def _names(code: CodeType) -> Iterator[str]:
    """All names of globals and attributes, also within functions inside it."""
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _names(each)
