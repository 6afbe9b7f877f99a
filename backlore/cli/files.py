"""`backlore files …`: what users keep, for who sits at the server."""

import asyncio
import sys

import click

from backlore.core.config import ConfigError, Context, Settings, enter, load
from backlore.core.notify import Notify, console
from backlore.process.engine import EngineError
from backlore.process.master import Master


@click.group()
def files() -> None:
    """Users' files, and their file server."""


@files.command()
@click.argument("env", default="dev")
@click.option("--app", "folder", default=".", metavar="FOLDER", help="The application. Default: this folder.")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, default=8001, show_default=True, help="Port to listen on.")
@click.option("--workers", type=int, help="How many processes serve; 0: one per CPU.")
@click.option("--data", default=".data/fileserver", show_default=True, metavar="FOLDER", help="Where the contents are.")
def serve(env: str, folder: str, **flags: str | int | None) -> None:
    """Keep contents for the nodes of an application that name this server in files.servers.

    It needs config.py and secret.py of the application, and no redis.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        status = Master(Context(folder=folder, env=env, flags=given, serves="files")).run()
    except (ConfigError, EngineError) as error:
        raise click.ClickException(str(error)) from None
    sys.exit(status)


@files.command()
@click.argument("env", default="dev")
@click.option("--app", "folder", default=".", metavar="FOLDER", help="The application. Default: this folder.")
@click.option("--data", metavar="FOLDER", help="Folder of all state on this machine; of drafts, while it lasts.")
@click.option("--from", "leaving", multiple=True, metavar="URL", help="A server that shall go, and is in no list more.")
@click.option("--trim", is_flag=True, help="Take away what belongs to other servers, once they have it.")
def spread(env: str, folder: str, data: str | None, leaving: tuple[str, ...], trim: bool) -> None:
    """Bring to each server of files.servers its copies: after one came or was away, or before one goes."""
    try:
        enter(Context(folder=folder, env=env, flags={"data": data} if data else {}))
        settings = load()
        asyncio.run(_spread(settings, leaving, trim))
    except ConfigError as error:
        raise click.ClickException(str(error)) from None


async def _spread(settings: Settings, leaving: tuple[str, ...], trim: bool) -> None:
    from backlore.clients.disk import Disk  # here, for the master imports this module too and stays small
    from backlore.clients.fileserver import FileServer, FileServerError
    from backlore.files.spread import Spreader

    known, token, notify = settings.config.files, settings.secret.files_token, Notify(console)
    if not known.servers or not token:
        raise click.ClickException("files.servers names none: there is nothing to spread.")
    disk = Disk(settings.data / "files")
    disk.prepare()
    servers = [FileServer(url, token, notify) for url in known.servers]
    going = [FileServer(url.rstrip("/"), token, notify) for url in leaving]
    try:
        done = await Spreader(servers, going, min(known.copies, len(servers)), disk).run(trim)
    except FileServerError as error:
        raise click.ClickException(f"{error}: all of them must be reached. Call it again, it goes on.") from None
    finally:
        for server in (*servers, *going):
            await server.close()
        disk.close()
    left = f"; {done.young} changed just now, call it again in ten minutes" if done.young else ""
    click.echo(f"{done.contents} contents: {done.made} copies made, {done.removed} taken away{left}")
