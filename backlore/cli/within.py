"""What the commands share that use an application's services, in a process beside the server."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from backlore.cli import options
from backlore.core.config import ConfigError, Context, enter

if TYPE_CHECKING:
    from backlore.app import Backend

Work = Callable[["Backend"], Awaitable[None]]


def of_application(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say which application. The command gets them as `context`."""

    @click.option("--env", default="dev", help="The environment. Default: dev.")
    @options.app
    @options.data
    @wraps(command)
    def wrapped(env: str, folder: str, data: str | None, **given: Any) -> Any:
        return command(context=Context(folder=folder, env=env, flags={"data": data} if data else {}), **given)

    return wrapped


def within(context: Context, work: Work) -> None:
    """Run `work(app)` in this process. If the application can't be loaded or reached, it ends with one line."""
    from backlore.app import application  # here, because the master imports this module too and should stay small

    try:
        enter(context)
        app = application()
    except ConfigError as error:
        raise click.ClickException(str(error)) from None

    async def do() -> None:
        await reach(app)
        try:
            await work(app)
        finally:
            for hook in app.web.on_stop:
                await hook()

    asyncio.run(do())
    app.notify.flush()


async def reach(app: "Backend") -> None:
    """Ends the command with one line when redis does not answer. The sinks, which would report it too, are off."""
    from redis.exceptions import RedisError

    told = app.notify.sinks[:]
    app.notify.sinks.clear()
    try:
        await app.redis.ping()
    except RedisError as error:
        why = str(error).split(". The command did not run")[0]
        raise click.ClickException(f"{why[0].upper()}{why[1:]}: is the application running?") from None
    app.notify.sinks[:] = told


@contextmanager
def reporting(app: "Backend") -> Iterator[tuple[Callable[[str], None], Callable[[str], None]]]:
    """For long work that reports by itself: two functions that write to standard error.

    The first shows how far the work is, the second prints a line above that. Of what the application notifies
    meanwhile, only errors are shown.
    """
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    from backlore.core.notify import console

    app.notify.sinks[:] = [lambda record: console(record) if record["level"] == "error" else None]
    with Progress(TextColumn("{task.description}"), console=Console(stderr=True)) as shown:
        task = shown.add_task("")
        yield (
            lambda text: shown.update(task, description=text),
            lambda text: shown.console.print(text, markup=False, highlight=False),
        )
