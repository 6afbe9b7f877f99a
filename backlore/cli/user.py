"""`backlore user …`: what an admin can do, for an operator on the server's machine, without a browser."""

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from backlore.cli.within import of_application, within
from backlore.core.config import Context

if TYPE_CHECKING:
    from backlore.app import Backend
    from backlore.services.identity.users import Account

PAGE = 100


@click.group()
@of_application
@click.pass_context
def user(click_context: click.Context, context: Context) -> None:
    """See and manage users. The application, or its redis, must be running."""
    click_context.obj = context


def upon(context: Context, email: str, act: Callable[[Any, "Account"], Awaitable[None]], done: str) -> None:
    """Run `act(admins, account)` on the user with an address, then print `done`."""

    async def work(app: "Backend") -> None:
        account = await app.identity.users.find(email)
        if account is None:
            raise click.ClickException(f"There is no user {email}.")
        await act(app.identity.admins, account)
        click.echo(f"{account.email}: {done}")

    within(context, work)


@user.command("list")
@click.argument("search", default="")
@click.option("--sort", type=click.Choice(["created", "email"]), default="created", help="Default: newest first.")
@click.pass_obj
def list_users(context: Context, search: str, sort: str) -> None:
    """List all users, or those with SEARCH in their address."""

    async def work(app: "Backend") -> None:
        after, more = "", True
        while more:
            page = await app.identity.users.list(sort, search.lower(), after, PAGE)
            for account in page.users:
                shown = await app.identity.admins.show(account)
                words = [shown.state, "admin" if shown.admin else "", "" if shown.verified else "unverified"]
                marks = " ".join(word for word in (*words, *shown.factors) if word)
                click.echo(f"{shown.email:<40} {day(shown.created)}  {marks}")
            after = page.after
            more = bool(after)

    within(context, work)


@user.command()
@click.argument("email")
@click.pass_obj
def show(context: Context, email: str) -> None:
    """Show one user and the user's sessions."""

    async def work(app: "Backend") -> None:
        account = await app.identity.users.find(email)
        if account is None:
            raise click.ClickException(f"There is no user {email}.")
        shown = await app.identity.admins.show(account)
        click.echo(f"{shown.email}  (id {shown.id})")
        click.echo(f"{shown.state}, since {day(shown.created)}, {'' if shown.verified else 'not '}verified")
        click.echo(f"admin: {'yes' if shown.admin else 'no'}; second factors: {', '.join(shown.factors) or 'none'}")
        for _, session in await app.identity.sessions.of(account.id):
            click.echo(
                f"session since {day(session.created)}, used {day(session.used)}: {session.origin} {session.browser}"
            )

    within(context, work)


@user.command()
@click.argument("email")
@click.option("--off", is_flag=True, help="Make the user no admin again.")
@click.pass_obj
def admin(context: Context, email: str, off: bool) -> None:
    """Make a user an admin."""
    upon(context, email, lambda admins, account: admins.set_admin(account, not off), "no admin" if off else "admin")


@user.command()
@click.argument("email")
@click.pass_obj
def disable(context: Context, email: str) -> None:
    """Refuse a user's logins, and end the user's sessions."""
    upon(context, email, lambda admins, account: admins.disable(account), "disabled, sessions ended")


@user.command()
@click.argument("email")
@click.pass_obj
def enable(context: Context, email: str) -> None:
    """Let a disabled user log in again."""
    upon(context, email, lambda admins, account: admins.enable(account), "enabled")


@user.command("end-sessions")
@click.argument("email")
@click.pass_obj
def end_sessions(context: Context, email: str) -> None:
    """Log a user out everywhere."""
    upon(context, email, lambda admins, account: admins.end_sessions(account), "sessions ended")


@user.command("remove-factors")
@click.argument("email")
@click.pass_obj
def remove_factors(context: Context, email: str) -> None:
    """Remove the second factors and passkeys of a user who has lost them."""
    upon(context, email, lambda admins, account: admins.remove_factors(account), "logs in by password alone")


@user.command()
@click.argument("email")
@click.confirmation_option(prompt="This erases the user and all its data. Sure?")
@click.pass_obj
def destroy(context: Context, email: str) -> None:
    """Erase a user and all the user's data."""
    upon(context, email, lambda admins, account: admins.destroy(account), "erased")


def day(seconds: int) -> str:
    """A time in seconds since the epoch, as local date and minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
