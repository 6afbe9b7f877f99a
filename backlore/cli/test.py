"""`backlore test`: sends an application's rows to a server: one that it starts, or the one at a URL."""

import contextlib
import importlib.util
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from backlore.cli import options
from backlore.core.blame import blame
from backlore.core.config import real
from backlore.tools.testing import Report, SuiteError, run
from backlore.tools.testing.plan import plan
from backlore.tools.testing.server import NoServer, OwnServer


class WrongSuite(click.ClickException):
    """The suite can't be run."""

    exit_code = 2


@click.command()
@click.argument("url", default="")
@options.app
@click.option("--all", "all_", is_flag=True, help="Go on after a failure.")
@click.option("--only", default="", metavar="TEXT", help="Only rows whose path contains TEXT, and those they need.")
def test(url: str, folder: str, all_: bool, only: str) -> None:
    """Send the rows of FOLDER/test.py to a server.

    Without a URL, the command starts a server of its own. Exit status 1 when a row fails, 2 when the suite is wrong.
    """
    try:
        suite = load(Path(folder))
        plan(suite, only)  # a wrong suite starts no server
        with serving(url, folder) as server:
            report = run(suite, server, all=all_, only=only, on_row=progress())
    except SuiteError as error:
        raise WrongSuite(str(error)) from None
    except NoServer as error:
        raise click.ClickException(f"The application does not start: {error}") from None
    tell(report)
    sys.exit(0 if report.ok else 1)


def load(folder: Path) -> Any:
    """ROWS of the test.py in `folder`; it may import modules beside it. Raises SuiteError."""
    file = real(folder) / "test.py"
    if not file.is_file():
        raise SuiteError(f"{file} is missing: its ROWS are the suite.")
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location("rows_of_the_application", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SuiteError:
        raise
    except Exception as error:
        raise SuiteError(blame(error, file.parent) or f"{file}: {type(error).__name__}: {error}") from None
    if not hasattr(module, "ROWS"):
        raise SuiteError(f"{file} has no ROWS.")
    return module.ROWS


@contextlib.contextmanager
def serving(url: str, folder: str) -> Iterator[str]:
    """The URL to test: the given one, or that of a server started for the test, which leaves nothing behind.

    SIGTERM too ends that server.
    """
    if url:
        yield url
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with OwnServer(folder) as server:
            yield server.entrance
    finally:
        signal.signal(signal.SIGTERM, before)


def progress() -> Callable[[str], None]:
    """A function that shows on a terminal which row is sent."""
    if not sys.stdout.isatty():
        return lambda path: None
    return lambda path: click.echo(f"\r\x1b[K{path[:100]}", nl=False)


def tell(report: Report) -> None:
    """Print the report, on a terminal over the line of `progress`."""
    click.echo(f"{chr(13)}\x1b[K{report}" if sys.stdout.isatty() else str(report))
