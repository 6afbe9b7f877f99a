"""`backlore run`: serves an application, under a master process."""

import sys

import click

from backlore.cli import options
from backlore.core.config import ConfigError, Context
from backlore.process.master import Master
from backlore.process.program import EngineError


@click.command()
@click.argument("env", default="dev")
@options.app
@options.host
@click.option("--port", type=int, help="Port to listen on.")
@click.option("--workers", type=int, help="How many processes serve; 0: one per CPU.")
@options.data
def run(env: str, folder: str, **flags: str | int | None) -> None:
    """Serve the application in the environment ENV. Default: dev."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        status = Master(Context(folder=folder, env=env, flags=given)).run()
    except (ConfigError, EngineError) as error:
        raise click.ClickException(str(error)) from None
    sys.exit(status)
