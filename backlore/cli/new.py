"""`backlore new`: makes an application to start from, complete and tested.

Laws: nothing that exists is overwritten; the folder appears whole or not at all.
"""

import os
import tempfile
from pathlib import Path

import click

from backlore.core.config import ConfigError, make_secret
from backlore.core.payload import Codec, Invalid
from backlore.core.schema import Name

# What is copied: an application called myapp. The ending .in keeps tools from taking the templates for our own code;
# the copies don't have it.
SKELETON = Path(__file__).parent / "skeleton"


@click.command()
@click.argument("name")
def new(name: str) -> None:
    """Make an application called NAME, in a new folder of that name."""
    try:
        Codec(Name).from_object(name)
    except Invalid:
        raise click.ClickException(
            f"{name!r} can't be the name: use lower-case letters, digits, - and _, 31 at most, a letter first."
        ) from None
    folder = Path(name)
    try:
        make(name, folder)
    except FileExistsError:
        raise click.ClickException(f"{folder} is there already: nothing was changed.") from None
    except (ConfigError, OSError) as error:
        raise click.ClickException(f"{folder} could not be made: {error}") from None
    click.echo(f"{name} is made. Next:\n")
    click.echo(f"  cd {name}\n  backlore run      serves it on http://127.0.0.1:8000")
    click.echo("  backlore test     tests it")


def make(name: str, folder: Path) -> None:
    """Make the application's folder. Raises FileExistsError; OSError or ConfigError when it can't be made."""
    if os.path.lexists(folder):
        raise FileExistsError(folder)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder.parent) as made:
        draft = Path(made) / name
        copy(SKELETON, draft, name)
        make_secret(draft / "secret.py")
        folder.mkdir()  # refuses a folder made meanwhile, which a rename would replace if it is empty
        draft.rename(folder)


def copy(source: Path, target: Path, name: str) -> None:
    """Copy a folder of templates, and put the application's name where `myapp` stands."""
    target.mkdir()
    for entry in sorted(source.iterdir()):
        copied = target / entry.name.removesuffix(".in")
        if entry.is_dir():
            copy(entry, copied, name)
        else:
            text = entry.read_text("utf-8").replace("myapp", name).replace("Myapp", name.capitalize())
            copied.write_text(text, "utf-8")
