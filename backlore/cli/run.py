"""`backlore run`."""

import sys

import click

from backlore.core.config import ConfigError, Context
from backlore.process.engine import EngineError
from backlore.process.master import Master


@click.command()
@click.argument("env", default="dev")
@click.option("--app", "folder", default=".", metavar="FOLDER", help="The application. Default: this folder.")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on.")
@click.option("--workers", type=int, help="How many processes serve; 0: one per CPU.")
@click.option("--data", metavar="FOLDER", help="Folder of all state on this machine.")
def run(env: str, folder: str, **flags: str | int | None) -> None:
    """Serve an application in the environment ENV, by default dev."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        status = Master(Context(folder=folder, env=env, flags=given)).run()
    except (ConfigError, EngineError) as error:
        raise click.ClickException(str(error)) from None
    sys.exit(status)
