"""`backlore client`: a typed client of the application's routes, as one file without dependencies."""

from pathlib import Path

import click

from backlore import __version__
from backlore.cli import options
from backlore.cli.routes import is_ours, load
from backlore.core.config import Context
from backlore.tools.typed import python, typescript
from backlore.tools.typed.document import snake
from backlore.web.openapi import describe
from backlore.web.routes import Route
from backlore.web.static import StaticFiles

LANGUAGES = {"ts": typescript.write, "py": python.write}


@click.command()
@click.argument("language", type=click.Choice(list(LANGUAGES)))
@options.app
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="The file. Default: standard output.")
def client(language: str, folder: str, output: Path | None) -> None:
    """Write a client in TypeScript (ts) or Python (py)."""
    app = load(Context(folder=folder, env="dev"))
    routes = [route for route in app.web.table.routes if not isinstance(route.handler, StaticFiles)]
    document = describe(app.settings.config.name, __version__, routes, "")
    names = {(route.method, route.path.replace("...}", "}")): name(route) for route in reversed(routes)}
    text = LANGUAGES[language](document, f"backlore client {language}", names)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise click.ClickException(f"{output} could not be written: {error.strerror}") from None


def name(route: Route) -> str:
    """The name of a route's method: the handler's for a route of the application, made of the path for one of ours."""
    if not is_ours(route):
        return getattr(route.handler, "__name__", "")
    words = [word for word in route.path.removeprefix("/auth").split("/") if not word.startswith("{")]
    return snake(f"{'' if route.method == 'POST' else route.method} {' '.join(words)}")
