"""Backlore: the whole backend of a web application as one small Python server.

from backlore import Backend, Payload, length, private, public, reply
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The home of each public name. Names are imported on first use, so that the master, which needs few of them,
# stays small.
_HOMES = {
    "Backend": "backlore.app",
    "Payload": "backlore.core.payload",
    "Upload": "backlore.core.payload",
    "Turns": "backlore.core.turns",
    "Changed": "backlore.services.files.catalog",
    "Exists": "backlore.services.files.catalog",
    "NoFile": "backlore.services.files.catalog",
    "Gone": "backlore.services.files.catalog",
    "Quota": "backlore.services.files.catalog",
    "Wanted": "backlore.services.lines.conditions",
    "key": "backlore.core.keys:application_key",
    "between": "backlore.core.payload",
    "length": "backlore.core.payload",
    "matching": "backlore.core.payload",
    "NEXT": "backlore.web.reply",
    "Reply": "backlore.web.reply",
    "reply": "backlore.web.reply",
    "Request": "backlore.web.request",
    "User": "backlore.web.request",
    "Stream": "backlore.web.body",
    "page": "backlore.web.static",
    "static": "backlore.web.static",
    "avant": "backlore.web.stages",
    "public": "backlore.web.stages",
    "auth": "backlore.web.stages",
    "private": "backlore.web.stages",
    "admin": "backlore.web.stages",
}

if TYPE_CHECKING:
    from backlore.app import Backend
    from backlore.core.keys import application_key as key
    from backlore.core.payload import Payload, Upload, between, length, matching
    from backlore.core.turns import Turns
    from backlore.services.files.catalog import Changed, Exists, Gone, NoFile, Quota
    from backlore.services.lines.conditions import Wanted
    from backlore.web.body import Stream
    from backlore.web.reply import NEXT, Reply, reply
    from backlore.web.request import Request, User
    from backlore.web.stages import admin, auth, avant, private, public
    from backlore.web.static import page, static

    ENV: str

__all__ = [
    "ENV", "NEXT", "Backend", "Changed", "Exists", "Gone", "NoFile", "Payload", "Quota", "Reply", "Request", "Stream",
    "Turns", "Upload", "User", "Wanted", "admin", "auth", "avant", "between", "key", "length", "matching", "page",
    "private", "public", "reply", "static",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "ENV":  # not kept: it is known only after the command line has been read
        return import_module("backlore.core.config").environment()
    if name in _HOMES:
        home, _, known_as = _HOMES[name].partition(":")
        value = getattr(import_module(home), known_as or name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'backlore' has no attribute {name!r}")
