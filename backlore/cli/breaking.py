"""`backlore break`: sends every route what it should refuse and what it should accept, as each kind of visitor."""

import json
import os
import secrets
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from backlore.cli import options
from backlore.tools.breaker.breaker import Breaker
from backlore.tools.breaker.plan import plan
from backlore.tools.breaker.report import to_rows, to_table, to_text
from backlore.tools.breaker.wire import Wire
from backlore.tools.testing.server import NoServer, OwnServer


@click.command("break")
@click.argument("url", default="")
@options.app
@click.option("--seed", default=1, help="Decides every choice: the same seed makes the same run. Default: 1.")
@click.option("--seconds", default=180.0, help="Stop after so many seconds, done or not. Default: 180.")
@click.option("--admin", metavar="EMAIL", help="An admin of the server at URL; BACKLORE_PASSWORD has the password.")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Write the findings as rows of a suite.")
def breaking(url: str, folder: str, seed: int, seconds: float, admin: str | None, save: Path | None) -> None:
    """Attack every route of a server.

    Without a URL, the command starts a server of its own. It leaves users and data behind on a server at a URL: never
    attack one in production. Exit status 1 when it finds something.
    """
    if url:
        breaker = attack(url, None, seed=seed, seconds=seconds, admin=admin)
    else:
        try:
            with OwnServer(folder) as server:
                breaker = attack(server.entrance, server, seed=seed, seconds=seconds)
        except NoServer as error:
            raise click.ClickException(f"The application does not start: {error}") from None
    if save:
        save.write_text(to_rows(list(breaker.findings.values())))
    sys.exit(1 if breaker.findings else 0)


def attack(url: str, server: OwnServer | None, *, seed: int, seconds: float, admin: str | None = None) -> Breaker:
    """Run the breaker once, and report on standard output. `server` is None for a server that we did not start."""
    wire = Wire(url)
    document = fetch(wire.url)
    breaker = Breaker(
        wire,
        document,
        seed=seed,
        seconds=seconds,
        make_admin=server.make_admin if server else None,
        heal=server.heal if server else None,
        domain="break.example.com" if server else f"{secrets.token_hex(4)}.example.com",
    )
    if admin:
        breaker.cast.lend_admin(admin, os.environ.get("BACKLORE_PASSWORD", ""))
    breaker.on_progress = progress(breaker) if sys.stdout.isatty() else breaker.on_progress
    since = time.monotonic()
    breaker.run(plan(server.process.pid if server else None))
    if sys.stdout.isatty():
        click.echo("\r\x1b[K", nl=False)
    tell(breaker, time.monotonic() - since)
    return breaker


def fetch(url: str) -> dict[str, Any]:
    """The OpenAPI document of a server. Raises ClickException."""
    try:
        with urllib.request.urlopen(f"{url}/openapi.json", timeout=10) as reply:
            document: dict[str, Any] = json.load(reply)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"No openapi.json at {url}: {error}") from None
    return document


def progress(breaker: Breaker) -> Callable[[str], None]:
    """A function that shows on one line how far the breaker is, at most ten times a second."""
    last = 0.0

    def show(route: str) -> None:
        nonlocal last
        if time.monotonic() - last > 0.1:
            last = time.monotonic()
            count = len(breaker.findings)
            found = f"{count} finding{'' if count == 1 else 's'}"
            click.echo(f"\r\x1b[K{breaker.wire.count:,} requests, {found}: {breaker.phase}: {route}"[:120], nl=False)

    return show


def tell(breaker: Breaker, seconds: float) -> None:
    """Print the findings, the table of routes, and what was not tried."""
    for finding in breaker.findings.values():
        click.echo(f"{to_text(breaker.wire.url, finding)}\n")
    table = to_table(breaker)
    width = max(len(name) for name, _, _ in table)
    for name, count, kinds in table:
        click.echo(f"{name:<{width}} {count:>7,}  {kinds}".rstrip())
    count = len(breaker.findings)
    click.echo(f"\n{breaker.wire.count:,} requests in {seconds:.1f} s, {count} finding{'' if count == 1 else 's'}.")
    for line in breaker.untried():
        click.echo(f"Not tried: {line}")
