"""Inspects the code of handlers: where it stands, and whether it may return NEXT."""

import contextlib
import inspect
from collections.abc import Iterator
from types import CodeType
from typing import Any

from backlore.web.reply import NEXT


def place(handler: Any) -> str:
    """Where the handler is defined: `create_note, /srv/shoebox/server.py:12`."""
    function = _function(handler)
    code = function.__code__
    return f"{function.__qualname__}, {code.co_filename}:{code.co_firstlineno}"


def may_pass(handler: Any) -> bool:
    """Whether the handler may return NEXT: its code, or a function that it calls by name or wraps, names NEXT."""
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
            with contextlib.suppress(ValueError):  # the cell is filled later
                used.append(cell.cell_contents)
        if "NEXT" in names or any(each is NEXT for each in used):
            return True
        functions += [_function(each) for each in used if inspect.isroutine(each) and hasattr(each, "__code__")]
    return False


def _function(handler: Any) -> Any:
    """The function behind decorators, a method or a callable object."""
    return inspect.unwrap(
        getattr(handler, "__func__", handler) if inspect.isroutine(handler) else type(handler).__call__
    )


def _names(code: CodeType) -> Iterator[str]:
    """The names of all globals and attributes that the code uses, including those in nested functions."""
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _names(each)
