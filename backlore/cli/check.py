"""`backlore check`: whether the catalog, the disk and S3 agree about users' files."""

import sys
from typing import TYPE_CHECKING

import click

from backlore.cli.within import of_application, reporting, within
from backlore.core.config import Context

if TYPE_CHECKING:
    from backlore.app import Backend
    from backlore.services.check.findings import Findings, Problem


@click.command()
@click.option("--mend", is_flag=True, help="Repair what can be repaired.")
@click.option("--deep", is_flag=True, help="Read all bytes, on the disk and in S3, and compare their SHA-256.")
@click.option(
    "--age",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Age at which orphans are reported, and deleted. Default: an hour, and a day.",
)
@click.option("--insist", is_flag=True, help="Delete orphans even if they are most of what there is.")
@of_application
def check(context: Context, mend: bool, deep: bool, age: float | None, insist: bool) -> None:
    """Check that catalog, disk and S3 agree about users' files.

    The catalog is in redis. The application must be running. Exit status 0 when all is well or repaired, 1 when
    problems are left.
    """
    found: Findings | None = None

    async def work(app: "Backend") -> None:
        nonlocal found
        from backlore.clients.s3 import S3Error
        from backlore.services.check.check import Check
        from backlore.services.storage.store import Away

        await app.files.start()
        with reporting(app) as (say_how_far, say):
            checking = Check(
                app.redis,
                app.files,
                app.uploads,
                app.bucket,
                app.identity.users.is_gone,
                mend=mend,
                deep=deep,
                age=age,
                insists=insist,
                tell=lambda problem: say(one_line(problem)),
                progress=lambda what, done, of: say_how_far(f"{what}: {done:,}" + (f" of {of:,}" if of else "")),
            )
            try:
                found = await checking.run()
            except (S3Error, Away) as error:
                raise click.ClickException(f"The storage of the files does not answer: {error}") from None

    within(context, work)
    assert found is not None
    summarize(found)
    sys.exit(1 if found.left else 0)


def one_line(problem: "Problem") -> str:
    """A problem as one line for the terminal."""
    end = " (mended)" if problem.mended else ""
    return f"{problem.kind:<10} {problem.user:<16} {problem.what}: {problem.why}{end}"


def summarize(findings: "Findings") -> None:
    """Print the table of findings, the notes, and how many problems are left."""
    from rich.console import Console
    from rich.table import Table

    from backlore.services.check.findings import KINDS

    console = Console(highlight=False)
    table = Table("kind", "what it means", "found", "mended", "left", box=None)
    for kind, meaning in KINDS.items():
        if count := findings.found[kind]:
            mended = findings.mended[kind]
            table.add_row(kind, meaning, str(count), str(mended), str(count - mended))
    if table.rows:
        console.print(table)
    for note in findings.notes:
        console.print(note, markup=False)
    if findings.busy:
        console.print(f"{findings.busy} changed all the while and could not be judged: check again.")
    if findings.left:
        console.print("1 problem is left." if findings.left == 1 else f"{findings.left} problems are left.")
    else:
        console.print("All is mended." if findings.found.total() else "All is well.")
