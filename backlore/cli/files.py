"""`backlore files …`: users' files and the file servers, for an operator on the server's machine."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from backlore.cli import options
from backlore.cli.within import of_application, reporting, within
from backlore.core.config import ConfigError, Context, Settings, enter, load
from backlore.core.notify import Notify, console
from backlore.process.master import Master
from backlore.process.program import EngineError

if TYPE_CHECKING:
    from backlore.app import Backend
    from backlore.services.files.catalog import Excerpt, File

T = TypeVar("T")

PAGE = 500


@click.group()
def files() -> None:
    """Manage users' files and file servers. Commands about users' files need the application, or its redis, running."""


@files.command()
@click.argument("env", default="dev")
@options.app
@options.host
@click.option("--port", type=int, default=8001, show_default=True, help="Port to listen on.")
@click.option("--workers", type=int, help="How many processes serve; 0: one per CPU.")
@click.option(
    "--data",
    default=".data/fileserver",
    show_default=True,
    metavar="FOLDER",
    callback=options.filled,
    help="Where the contents are stored.",
)
def serve(env: str, folder: str, **flags: str | int | None) -> None:
    """Run a file server. It stores contents for the nodes that name it in files.servers.

    It needs the application's config.py and secret.py, and no redis.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        status = Master(Context(folder=folder, env=env, flags=given, serves="files")).run()
    except (ConfigError, EngineError) as error:
        raise click.ClickException(str(error)) from None
    sys.exit(status)


@files.command()
@click.argument("env", default="dev")
@options.app
@options.data
@click.option("--from", "leaving", multiple=True, metavar="URL", help="A server to remove, not in files.servers.")
@click.option("--trim", is_flag=True, help="Delete what belongs on other servers, once they have it.")
def spread(env: str, folder: str, data: str | None, leaving: tuple[str, ...], trim: bool) -> None:
    """Copy to each server of files.servers what belongs there.

    Call it after a server was added or was away, and before one is removed.
    """
    try:
        enter(Context(folder=folder, env=env, flags={"data": data} if data else {}))
        settings = load()
        asyncio.run(_spread(settings, leaving, trim))
    except ConfigError as error:
        raise click.ClickException(str(error)) from None


async def _spread(settings: Settings, leaving: tuple[str, ...], trim: bool) -> None:
    from backlore.clients.disk import Disk  # here, because the master imports this module too and should stay small
    from backlore.clients.fileserver import FileServer, FileServerError
    from backlore.services.storage.spread import Spreader

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


def upon(context: Context, email: str, act: Callable[["Backend", str], Awaitable[None]]) -> None:
    """Run `act(app, user id)` for the user with an address. A refusal ends the command with one line."""

    async def work(app: "Backend") -> None:
        from backlore.clients.s3 import S3Error
        from backlore.services.files.catalog import Exists, NoFile, Quota
        from backlore.services.files.kinds import BadName
        from backlore.services.storage.store import Away, Lost

        account = await app.identity.users.find(email)
        if account is None:
            raise click.ClickException(f"There is no user {email}.")
        try:
            await act(app, account.id)
        except NoFile as error:
            raise click.ClickException(f"There is no file {error}.") from None
        except Exists as error:
            raise click.ClickException(f"There is a file of this name ({error}): choose another by --as.") from None
        except Quota:
            raise click.ClickException("It would go over the quota.") from None
        except BadName as error:
            raise click.ClickException(error.why) from None
        except Lost as error:
            raise click.ClickException(f"Its content ({error}) is neither on this disk nor in S3.") from None
        except (S3Error, Away, OSError) as error:
            raise click.ClickException(str(error)) from None

    within(context, work)


@files.command("list")
@click.argument("email")
@of_application
def list_files(context: Context, email: str) -> None:
    """List a user's files, the newest first."""

    async def show(app: "Backend", user: str) -> None:
        async for file in each(app.files.list, user):
            click.echo(line(file, file.changed))

    upon(context, email, show)


@files.command()
@click.argument("email")
@of_application
def trash(context: Context, email: str) -> None:
    """List what a user deleted or overwrote, the latest first."""

    async def show(app: "Backend", user: str) -> None:
        async for file, when in each(app.files.trash, user):
            click.echo(line(file, when))

    upon(context, email, show)


@files.command()
@click.argument("email")
@click.argument("what", metavar="ID|NAME")
@click.option("--as", "name", default="", metavar="NAME", help="Restore it under another name.")
@of_application
def undelete(context: Context, email: str, what: str, name: str) -> None:
    """Restore a file from a user's trash.

    By its id, or by its name: then the latest of that name.
    """

    async def act(app: "Backend", user: str) -> None:
        from backlore.services.files.catalog import NoFile

        try:
            back = await app.files.undelete(user, what, name)
        except NoFile:
            back = await app.files.undelete(user, await last_of(app, user, what), name)
        click.echo(f"{back.name}: is back")

    upon(context, email, act)


@files.command()
@click.argument("email")
@click.argument("name")
@click.option("-o", "target", default="-", metavar="FILE", help="Where to write it. Default: standard output.")
@of_application
def get(context: Context, email: str, name: str, target: str) -> None:
    """Write out a file of a user."""

    async def act(app: "Backend", user: str) -> None:
        file = await app.files.find(user, name)
        with click.open_file(target, "wb") as out:
            async for piece in app.files.read(user, file):
                out.write(piece)

    upon(context, email, act)


@files.command()
@click.argument("email")
@click.argument("source", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--as", "name", default="", metavar="NAME", help="Store it under another name than FILE's.")
@of_application
def put(context: Context, email: str, source: Path, name: str) -> None:
    """Store FILE for a user. A file that has the name already goes to the trash."""

    async def act(app: "Backend", user: str) -> None:
        await app.files.start()
        kept = await app.files.put(user, name or source.name, source)
        click.echo(f"{kept.name}: {kept.size} bytes kept")

    upon(context, email, act)


@files.command()
@click.option("--at-once", type=click.IntRange(1, 256), default=16, show_default=True, help="Files fetched at once.")
@of_application
def restore(context: Context, at_once: int) -> None:
    """Restore from S3 what is missing on this disk. After an interruption, call it again: it goes on.

    Exit status 1 when something could not be restored.
    """
    failed = 0

    async def work(app: "Backend") -> None:
        nonlocal failed
        from backlore.services.check.restore import Restore
        from backlore.services.storage.store import Away

        await app.files.start()
        with reporting(app) as (say_how_far, _):

            def progress(seen: int, brought: int, size: int) -> None:
                say_how_far(f"{seen:,} looked at, {brought:,} brought back, {size:,} bytes")

            restoration = Restore(app.redis, app.files, at_once, progress)
            try:
                await restoration.run()
            except (Away, OSError) as error:
                raise click.ClickException(f"{error}. Call it again, it goes on.") from None
        async for user, name, why in restoration.lost():
            failed += 1
            click.echo(f"{await address(app, user)}  {name}: {why}")
        size = f"{restoration.bytes:,} bytes"
        click.echo(f"{restoration.brought} of {restoration.seen} contents brought back, {size}; {failed} files failed")

    within(context, work)
    sys.exit(1 if failed else 0)


async def last_of(app: "Backend", user: str, name: str) -> str:
    """The id of the file with this name that was deleted last. Raises NoFile."""
    from backlore.services.files.catalog import NoFile

    async for file, _ in each(app.files.trash, user):
        if file.name == name:
            return file.id
    raise NoFile(name)


async def each(pages: Callable[[str, int, int], Awaitable["Excerpt[T]"]], user: str) -> AsyncIterator[T]:
    """Every item of a list of a user's, fetched page by page."""
    before = -1
    while before:
        page = await pages(user, max(before, 0), PAGE)
        for found in page:
            yield found
        before = page.before


async def address(app: "Backend", user: str) -> str:
    """The address of the user with an id; the id itself if there is no such user."""
    account = await app.identity.users.read(user)
    return account.email if account else user


def line(file: "File", when: int) -> str:
    """A file as one line for the terminal. `when` is in µs since the epoch."""
    from backlore.cli.user import day

    return f"{day(when // 1_000_000)}  {file.size:>14,}  {file.id}  {file.name}"
