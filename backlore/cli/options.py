"""Options that several verbs share. None may be empty: an empty one is usually a shell variable that was never set."""

import click


def filled(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """Returns the option's text; refuses one that is given but empty."""
    if text is not None and not text.strip():
        raise click.BadParameter("It is empty.")
    return text


app = click.option(
    "--app", "folder", default=".", metavar="FOLDER", callback=filled, help="The application. Default: this folder."
)
data = click.option("--data", metavar="FOLDER", callback=filled, help="Folder for all state on this machine.")
host = click.option("--host", callback=filled, help="Address to listen on.")
