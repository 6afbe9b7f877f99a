"""The command `backlore VERB`."""

import click

from backlore.cli.new import new
from backlore.cli.routes import routes
from backlore.cli.run import run
from backlore.cli.shell import completion, shell
from backlore.cli.user import user


@click.group()
@click.version_option(package_name="backlore")
def main() -> None:
    """The whole backend of a web application."""


main.add_command(completion)
main.add_command(new)
main.add_command(routes)
main.add_command(run)
main.add_command(shell)
main.add_command(user)
