"""Turns a suite into a plan: every row with its path and its user. A wrong row is refused before anything is sent."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from backlore.tools.testing.rows import Chapter, Default, ExpectedMail, Parallel, Row, SuiteError, Visitor


@dataclass(frozen=True)
class Step:
    """A row, its path in the suite, and the user that sends it."""

    path: str
    item: Row | ExpectedMail
    user: str | None


@dataclass(frozen=True)
class Part:
    """A chapter."""

    items: Sequence["Step | Visitor | Part | Fork"]
    always: bool = False
    made: str = ""  # the user that a `sign_up` or `destroy` chapter is for


@dataclass(frozen=True)
class Fork:
    """Chapters that run at the same time."""

    parts: Sequence[Part]


@dataclass
class Scope:
    """What is known at a point in the suite."""

    names: set[str] = field(default_factory=set)  # kept by earlier rows
    users: set[str] = field(default_factory=set)
    user: str | None = None  # the sender of rows that name none

    def copy(self) -> "Scope":
        return Scope(set(self.names), set(self.users), self.user)


def plan(suite: Any, only: str = "") -> Part:
    """What is run: the whole suite, or with `only` the rows whose path contains it and those they need.

    Raises SuiteError.
    """
    whole = to_part(suite, "", Scope())
    if not any(True for _ in steps_of(whole)):
        raise SuiteError("the suite has no rows")
    return select(whole, only) if only else whole


def to_part(given: Any, path: str, scope: Scope) -> Part:
    """A chapter, from a list or a Chapter. What it keeps is known after it; its user is not."""
    chapter = given if isinstance(given, Chapter) else None
    if chapter is None and not isinstance(given, list | tuple):
        raise SuiteError(f"{path or 'the suite'} should be a list of rows, not {given!r}")
    items = list(chapter.items if chapter else given)
    name = chapter.name if chapter else items.pop(0) if items and isinstance(items[0], str) else ""
    place = join(path, name)
    user = scope.user
    made = tuple(to_item(each, place, scope) for each in items)
    whom = ""
    if chapter and chapter.made:
        whom = next(each.request.user for each in chapter.items if isinstance(each, Row))  # type: ignore[assignment]
    if not (chapter and chapter.made):
        scope.user = user
    return Part(made, bool(chapter and chapter.always), whom)


def to_item(given: Any, path: str, scope: Scope) -> Step | Visitor | Part | Fork:
    """One item of a chapter."""
    if isinstance(given, Visitor):
        scope.users.add(given.user)
        scope.user = given.user
        return given
    if isinstance(given, Parallel):
        return Fork(tuple(to_part(each, path, scope.copy()) for each in given.chapters))
    if isinstance(given, Row | ExpectedMail):
        return to_step(given, join(path, given.name), scope)
    if isinstance(given, Chapter | list | tuple):
        return to_part(given, path, scope)
    raise SuiteError(f"{path or 'the suite'}: {given!r} is no row")


def to_step(item: Row | ExpectedMail, path: str, scope: Scope) -> Step:
    """A row with its path and user. Raises SuiteError when the user or a kept name is unknown at this point."""
    user = item.request.user if isinstance(item, Row) else None
    user = scope.user if user is Default.USER else user
    if user is not None and user not in scope.users:
        raise SuiteError(f"the row {path!r}: nobody called {user!r} signed up before it")
    if unknown := item.names() - scope.names:
        raise SuiteError(f"the row {path!r}: no row before it keeps {', '.join(sorted(unknown))}")
    scope.names |= set(item.keep)
    return Step(path, item, user)


def join(path: str, name: str) -> str:
    """The path of something called `name` below `path`."""
    return f"{path} / {name}" if path and name else path or name


def steps_of(item: Step | Visitor | Part | Fork) -> Iterator[Step]:
    """All rows, in their order."""
    if isinstance(item, Step):
        yield item
    for each in item.items if isinstance(item, Part) else item.parts if isinstance(item, Fork) else ():
        yield from steps_of(each)


def select(whole: Part, text: str) -> Part:
    """The rows whose path contains `text`, the rows that keep what these use, and their users' chapters."""
    chosen: set[int] = set()
    needed: set[str] = set()
    for step in reversed(list(steps_of(whole))):
        if text in step.path or needed & set(step.item.keep):
            chosen.add(id(step))
            needed = (needed - set(step.item.keep)) | step.item.names()
    if not chosen:
        raise SuiteError(f"no row's path contains {text!r}")
    return prune(whole, chosen)


def prune(part: Part, chosen: set[int]) -> Part:
    """The chapter without rows that were not chosen; `made` chapters stay."""
    items: list[Step | Visitor | Part | Fork] = []
    for item in part.items:
        if isinstance(item, Fork):
            item = Fork([prune(each, chosen) for each in item.parts if has(each, chosen)])
        elif isinstance(item, Part) and not item.made:
            item = prune(item, chosen)
        if isinstance(item, Visitor) or (isinstance(item, Part) and item.made) or has(item, chosen):
            items.append(item)
    return replace(part, items=items)


def has(item: Step | Visitor | Part | Fork, chosen: set[int]) -> bool:
    """Whether any of its rows was chosen."""
    return any(id(step) in chosen for step in steps_of(item))
