"""`backlore routes`: the route table in words, for people, for the README and for programs.

It is read from the application itself, so it is never out of date. Redis needn't run.
"""

import difflib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from backlore.app import Backend, application
from backlore.cli import options
from backlore.core.config import ConfigError, Context, enter
from backlore.core.words import amount, describe
from backlore.web.body import Body
from backlore.web.openapi import describe_types
from backlore.web.routes import Route
from backlore.web.static import StaticFiles

BEGIN, END = "<!-- routes -->", "<!-- /routes -->"


class GivenField(NamedTuple):
    """A value that a client sends: `place` is `path`, `query` or `body`."""

    place: str
    name: str
    what: str  # in words


class RouteRow(NamedTuple):
    """A route, in the words in which it is shown."""

    stage: str
    method: str
    path: str
    payload: list[GivenField]
    reply: str  # the handler's docstring


@click.command()
@click.argument("env", default="dev")
@options.app
@click.option("--all", "everything", is_flag=True, help="Backlore's own routes too, after the application's.")
@click.option("--ours", "only_ours", is_flag=True, help="Backlore's own routes alone.")
@click.option(
    "--format", "form", type=click.Choice(["terminal", "markdown", "json"]), default="terminal", help="Of the table."
)
@click.option("--check", type=click.Path(dir_okay=False, path_type=Path), help="Fail if this file's table is outdated.")
@click.option("--write", type=click.Path(dir_okay=False, path_type=Path), help="Update this file's table.")
def routes(
    env: str, folder: str, everything: bool, only_ours: bool, form: str, check: Path | None, write: Path | None
) -> None:
    """Show the route table.

    For --check and --write the table is in a Markdown file, between the lines `<!-- routes -->` and
    `<!-- /routes -->`.
    """
    if everything and only_ours:
        raise click.ClickException("--all shows Backlore's own routes too, --ours shows them alone: give one of them.")
    app = load(Context(folder=folder, env=env))
    rows = list(read_rows(app, theirs=not only_ours, ours=everything or only_ours))
    for file in (check, write):
        if file is not None and (error := replace(file, to_markdown(rows), write=file is write)):
            raise click.ClickException(error)
    if check is None and write is None:
        click.echo({"terminal": to_terminal, "markdown": to_markdown, "json": to_json}[form](rows))


def load(context: Context) -> Backend:
    """The application that `server.py` makes. If it can't be loaded, the command ends with one line."""
    try:
        enter(context)
        return application()
    except ConfigError as error:
        raise click.ClickException(str(error)) from None


def read_rows(app: Backend, *, theirs: bool, ours: bool) -> Iterator[RouteRow]:
    """The application's routes if `theirs`, then Backlore's if `ours`; each in the order of their stages."""
    table = app.web.table.routes
    for route in [r for r in table if theirs and not is_ours(r)] + [r for r in table if ours and is_ours(r)]:
        yield RouteRow(route.stage.name, route.method, route.path, list(read_fields(route)), read_reply(route))


def is_ours(route: Route) -> bool:
    """Whether the route is Backlore's own. Static files count as the application's."""
    function = route.handler if inspect.isroutine(route.handler) else type(route.handler)
    known = str(getattr(function, "__module__", "")).startswith("backlore.")
    return known and route.mounted is None and not isinstance(route.handler, StaticFiles)


def read_fields(route: Route) -> Iterator[GivenField]:
    """The values that a client sends, in the order of a request: path, query, body."""
    for name in route.names:
        if name in route.parameters:
            (schema,), types = describe_types([route.parameters[name].type])
            yield GivenField("path", name, describe(schema, types))
    if route.query:
        yield from read_struct("query", route.query.type)
    # a handler that takes no body has an empty payload
    if isinstance(route.body, Body):
        yield from read_struct("body", route.body.payload)


def read_struct(place: str, kind: Any) -> Iterator[GivenField]:
    """The fields of a payload type, each with its type in words."""
    (schema,), types = describe_types([kind])
    shape = types[schema["$ref"].rpartition("/")[2]]
    for name, each in shape["properties"].items():
        what, default = describe(each, types), each.get("default")
        if default is None:
            what = what.removesuffix(" or null")  # leaving the field out means the same
        if name not in shape["required"]:
            what += ", optional" if default in (None, "", [], {}) else f", by default {amount(default)}"
        yield GivenField(place, name, what)


def read_reply(route: Route) -> str:
    """The handler's docstring, as one line."""
    if route.mounted is not None:
        return "Another application answers."
    if isinstance(route.handler, StaticFiles):
        return "Files." if route.names else "A file."
    return " ".join((inspect.getdoc(route.handler) or "").split())


def to_terminal(rows: list[RouteRow]) -> str:
    """The rows as text, a block of lines for each route."""
    width = max((len(row.stage) for row in rows), default=0)
    blocks = []
    for row in rows:
        lines = [f"{row.stage:<{width}}  {row.method} {row.path}"]
        lines += [f"{'':<{width}}    {prefix(field)}{field.name}: {field.what}" for field in row.payload]
        lines += [f"{'':<{width}}    → {row.reply}"] if row.reply else []
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def to_markdown(rows: list[RouteRow]) -> str:
    """The rows as a Markdown table."""
    lines = ["| stage | route | payload | reply |", "| --- | --- | --- | --- |"]
    for row in rows:
        payload = "; ".join(f"`{prefix(field)}{field.name}`: {field.what}" for field in row.payload)
        cells = (row.stage, f"{row.method} {row.path}", payload, row.reply)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def to_json(rows: list[RouteRow]) -> str:
    """The rows as a JSON list of objects."""
    found = [row._asdict() | {"payload": [field._asdict() for field in row.payload]} for row in rows]
    return json.dumps(found, indent=2, ensure_ascii=False)


def prefix(field: GivenField) -> str:
    """`?` before a field of the query; nothing before others."""
    return "?" if field.place == "query" else ""


def replace(file: Path, table: str, write: bool) -> str:
    """Write the table into the file, or only compare. Returns what is wrong, or ""."""
    try:
        text = file.read_text("utf-8")
        before, begin, rest = text.partition(f"{BEGIN}\n")
        old, end, after = rest.partition(END)
        if not (begin and end):
            return f"{file} has no lines {BEGIN} and {END} for the table to stand between."
        if write:
            file.write_text(f"{before}{begin}{table}\n{end}{after}", "utf-8")
            return ""
    except (OSError, UnicodeDecodeError) as error:
        return f"{file} can't be used: {error}"
    changes = difflib.unified_diff(old.splitlines(), table.splitlines(), str(file), "the route table", lineterm="", n=0)
    difference = "\n".join(changes)
    if not difference:
        return ""
    return f"{file} doesn't say what the routes are; --write instead of --check mends it.\n{difference}"
