"""What commands have in common that do something with an application's services, in a process of their own."""

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
    """The options that say which application; the command gets them as its `context`."""

    @click.option("--env", default="dev", help="The environment. Default: dev.")
    @options.app
    @options.data
    @wraps(command)
    def wrapped(env: str, folder: str, data: str | None, **given: Any) -> Any:
        return command(context=Context(folder=folder, env=env, flags={"data": data} if data else {}), **given)

    return wrapped


def within(context: Context, work: Work) -> None:
    """Do something with the application's services, in this process. What can't be done ends with one line."""
    from backlore.app import application  # here, for the master imports this module too and stays small

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
    """Ends the command with one line when redis does not answer, instead of what would be told of it as well."""
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
    """For a long work with a report of its own: two functions, for how far it is and for what shall stand above that,
    both on standard error. What the application tells meanwhile is left away, but for errors."""
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
