"""The command `backlore VERB`."""

from importlib import import_module

import click

from backlore.core.streams import hold

# verb -> the module in backlore.cli, and the name of the command there
VERBS = {
    "break": ("breaking", "breaking"),
    "check": ("check", "check"),
    "client": ("client", "client"),
    "completion": ("shell", "completion"),
    "files": ("files", "files"),
    "new": ("new", "new"),
    "routes": ("routes", "routes"),
    "run": ("run", "run"),
    "shell": ("shell", "shell"),
    "test": ("test", "test"),
    "user": ("user", "user"),
}


class Verbs(click.Group):
    """Each verb is imported only when it is called, so a server does not carry the others in memory."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all verbs, without importing them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of a verb; None if there is no such verb."""
        if cmd_name not in VERBS:
            return None
        module, name = VERBS[cmd_name]
        command: click.Command = getattr(import_module(f"backlore.cli.{module}"), name)
        return command


@click.command(cls=Verbs)
@click.version_option(package_name="backlore")
def main() -> None:
    """The whole backend of a web application."""
    hold()
