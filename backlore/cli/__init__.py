"""The command `backlore VERB`."""

import click

from backlore.cli.breaking import breaking
from backlore.cli.check import check
from backlore.cli.client import client
from backlore.cli.files import files
from backlore.cli.new import new
from backlore.cli.routes import routes
from backlore.cli.run import run
from backlore.cli.shell import completion, shell
from backlore.cli.test import test
from backlore.cli.user import user


@click.group()
@click.version_option(package_name="backlore")
def main() -> None:
    """The whole backend of a web application."""


for verb in (breaking, check, client, completion, files, new, routes, run, shell, test, user):
    main.add_command(verb)
