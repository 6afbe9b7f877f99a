"""The command `backlore VERB`."""

import click

from backlore.cli.run import run
from backlore.cli.user import user


@click.group()
@click.version_option(package_name="backlore")
def main() -> None:
    """The whole backend of a web application."""


main.add_command(run)
main.add_command(user)
