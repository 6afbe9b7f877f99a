"""Whether a worker still answers from a session that it remembers after the session's end, or a change of its user, was
acknowledged.

`python bench/stale.py [--count N] [--http N] [--seconds S] [--kills N] [--commands N] [--lanes N] [--only …]`

Laws: right before the act, both workers have answered by the session, or they are just asking redis for it while the
act is done. After the act both are asked at once, on open connections. A third process, or a route, does the act. An
act that changes nothing that a client could see is made visible: right before it, another address is written into redis
by hand, and a worker that asks again shows it. A writer that is killed has acknowledged what it has printed.
"""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table
from stale_acts import BY_ROUTES, BY_SERVICES, Act, Person, Reply, Right, World

from backlore.app import application
from backlore.core.config import Context, enter
from backlore.services.identity.sessions import session_key
from backlore.services.identity.users import user_key
from backlore.tools.testing.server import OwnServer, descendants

MEMORY = 5.0  # seconds for which a worker may remember
LATE = 1.0  # seconds more, for a machine that is late
CONFIG = (
    'CONFIG = {"name": "stale", "workers": 2, "redis_timeout": 20, "rates": dict.fromkeys(%r.split(), (10**6, 60))}\n'
)
KINDS = (
    "knock signup login login-account password login-device code code-device passkey openid recover recover-account "
    "verify verify-account mail"
)
SERVER = """
import os
from argon2 import PasswordHasher
from config import CONFIG
from backlore import Backend, public, reply

app = Backend(CONFIG)
app.identity.login._passwords._hasher = PasswordHasher(1, 8, 1)  # what a hash costs is not what is measured

async def process(request):
    return reply(200, {"process": os.getpid()})

app.routes(public.get("/process", process))
"""
WRITER = """
import asyncio, sys
from backlore.core.config import Context, enter
enter(Context(folder=sys.argv[1], flags={"data": sys.argv[2]}))
from backlore.app import application

async def write():
    end = application().identity.sessions.end
    print("ready", flush=True)
    lines = [line.split() for line in sys.stdin]

    async def one(lane):
        for user, session in lines[lane::8]:
            await end(user, session)
            print(session, flush=True)

    await asyncio.gather(*map(one, range(8)))

asyncio.run(write())
"""


def is_right(reply: Reply, seen: tuple[str, bool] | None) -> bool:
    status, answer = reply
    if seen is None:
        return status == 403 and answer["error"] == "session"
    return status == 200 and (answer["user"]["email"], answer["user"]["admin"]) == seen


async def prepare(world: World, person: Person) -> None:
    """Give the person two sessions that both workers remember. A disabled user is enabled again."""
    await world.app.redis.hdel(user_key(person.id), "state")
    new = [name for name in ("mine", "other") if not getattr(person, name)]
    for name in new:
        setattr(person, name, await world.begin(person))
    sessions = [getattr(person, name) for name in new]
    got = await asyncio.gather(*(world.probe(s, wires[0]) for s in sessions for wires in world.wires.values()))
    assert all(is_right(each, (person.email, person.flag)) for each in got), got


async def try_once(world: World, person: Person, act: Act, races: bool, counted: Counter[str]) -> None:
    """Do one act, and count what both workers answer after it."""
    sessions, early = (person.mine, person.other), list[asyncio.Future[Reply]]()
    old = (person.email, person.flag)
    if races:  # no worker remembers; all ask at this moment
        world.users.stamps.renew(person.id)
        doing = asyncio.ensure_future(act(world, person))
        for _ in range(random.randrange(6)):
            await asyncio.sleep(0)
        early = [world.probe(each, wires[1]) for each in sessions for wires in world.wires.values()]
        right = await doing
    else:
        right = await act(world, person)
    asked = [(seen, world.probe(each, wires[0])) for each, seen in right.items() for wires in world.wires.values()]
    later = [(seen, await reply) for seen, reply in asked]
    before = [await reply for reply in early]
    person.mine, person.other = ("" if right.get(each, "") is None else each for each in sessions)
    # only now: an await between reading a count and writing it would lose the counts of other lanes
    counted["asked"] += len(later)
    counted["stale"] += sum(not is_right(reply, seen) for seen, reply in later)
    counted["before"] += sum(is_right(reply, old) for reply in before)
    counted["acts"] += 1
    counted["raced"] += races


async def count_acts(
    world: World, act: Act, number: int, seconds: float, lanes: int, tell: Callable[[int], None]
) -> Counter[str]:
    """Repeat an act until the workers were asked `number` times, or for `seconds`."""
    counted, until = Counter[str](), time.monotonic() + seconds

    async def lane() -> None:
        person = await world.person()
        while counted["asked"] < number and time.monotonic() < until:
            if not await world.app.redis.hexists(user_key(person.id), "email"):
                person = await world.person()
            await prepare(world, person)
            await try_once(world, person, act, random.random() < 0.5, counted)
            tell(counted["asked"])

    await asyncio.gather(*(lane() for _ in range(lanes)))
    return counted


# Kills


async def look_after_kill(world: World, acknowledged: set[str], others: set[str], killed: float) -> Counter[str]:
    """What workers answer for sessions whose end was acknowledged, and for those that ended without acknowledgement."""
    counted: Counter[str] = Counter(kills=1, acknowledged=len(acknowledged))
    wires = [each[0] for each in world.wires.values()]
    gone = {each for each in others if not await world.app.redis.exists(session_key(each))}
    counted["done, not acknowledged"] = len(gone)
    for reply in [world.probe(each, wire) for each in acknowledged for wire in wires]:
        counted["asked"] += 1
        counted["stale"] += not is_right(await reply, None)
    remembered = [
        (each, wire)
        for each, wire, reply in [(each, wire, world.probe(each, wire)) for each in gone for wire in wires]
        if not is_right(await reply, None)
    ]
    counted["remembered"] = len(remembered)
    if remembered:
        await asyncio.sleep(max(0, killed + MEMORY + LATE - time.monotonic()))
        for reply in [world.probe(each, wire) for each, wire in remembered]:
            counted["too long"] += not is_right(await reply, None)
    return counted


async def kill_writer(world: World, words: list[str], sessions: int) -> Counter[str]:
    """A process that ends sessions is killed at some moment; both workers remember the sessions."""
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdin and writer.stdout and await writer.stdout.readline()
    people = [await world.person() for _ in range(sessions)]
    begun = {await world.begin(each): each.id for each in people}
    await asyncio.gather(*(world.probe(s, wires[0]) for s in begun for wires in world.wires.values()))
    writer.stdin.write("".join(f"{user} {session}\n" for session, user in begun.items()).encode())
    writer.stdin.close()
    told = [await writer.stdout.readline()]  # the writer is at work
    await asyncio.sleep(random.random() * sessions / 4000)
    with contextlib.suppress(ProcessLookupError):
        writer.kill()
    killed = time.monotonic()
    told += (await writer.stdout.read()).splitlines(keepends=True)
    await writer.wait()
    acknowledged = {line.decode().strip() for line in told if line.endswith(b"\n")}
    return await look_after_kill(world, acknowledged, set(begun) - acknowledged, killed)


async def kill_worker(world: World, sessions: int) -> Counter[str]:
    """All users log out at one worker, which is killed at some moment. The other one and its successor are asked."""
    people = [await world.person() for _ in range(sessions)]
    begun = {await world.begin(each): each.id for each in people}
    await asyncio.gather(*(world.probe(s, wires[0]) for s in begun for wires in world.wires.values()))
    process = random.choice(list(world.wires))
    wire, sign = world.wires[process][0], world.sessions.keeper.token_of
    replies = {each: wire.ask("/auth/logout", world.cookie(each), {}, sign(each)) for each in begun}
    await asyncio.sleep(random.random() * sessions / 2000)
    os.kill(process, signal.SIGKILL)
    killed = time.monotonic()
    await asyncio.gather(*replies.values(), return_exceptions=True)
    acknowledged = {each for each, reply in replies.items() if reply.exception() is None and reply.result()[0] == 200}
    other = next(wires for each, wires in world.wires.items() if each != process)[0]
    early = [world.probe(each, other) for each in acknowledged]
    stale = sum([not is_right(await reply, None) for reply in early])
    await world.connect()
    counted = await look_after_kill(world, acknowledged, set(begun) - acknowledged, killed)
    return counted + Counter(stale=stale, asked=len(early))


async def run_commands(world: World, words: list[str], number: int) -> Counter[str]:
    """`backlore user …`, as an operator types it."""

    def by_command(*command: str, flag: bool = False, ends: bool = False) -> Act:
        async def act(world: World, person: Person) -> Right:
            place = ["--app", words[0], "--data", words[1]]
            typed = [sys.executable, "-m", "backlore.cli", "user", *place, command[0], person.email, *command[1:]]
            process = await asyncio.create_subprocess_exec(*typed, stdout=subprocess.DEVNULL)
            assert await process.wait() == 0
            person.flag = flag
            return person.both(None if ends else (person.email, flag))

        return act

    acts = [
        by_command("admin", flag=True),
        by_command("admin", "--off"),
        by_command("remove-factors"),
        by_command("end-sessions", ends=True),
        by_command("disable", ends=True),
        by_command("destroy", "--yes", ends=True),
    ]
    counted: Counter[str] = Counter()
    for _ in range(number):
        person = await world.person()
        for act in acts:
            await prepare(world, person)
            await try_once(world, person, act, False, counted)
    return counted


# All of it


async def measure(
    folder: Path, server: OwnServer, given: dict[str, Any], progress: Progress
) -> tuple[list[tuple[str, Counter[str]]], list[tuple[str, Counter[str]]]]:
    data = str(server._folder / "data")
    enter(Context(folder=str(folder), flags={"data": data}))
    world = World(application(), server._port)
    await world.connect()
    boss = await world.person()
    await world.identity.admins.set_admin(await world.account(boss), True)
    world.boss = await world.begin(boss)
    acts, kills = list[tuple[str, Counter[str]]](), list[tuple[str, Counter[str]]]()
    for way, table, number in (("services", BY_SERVICES, given["number"]), ("route", BY_ROUTES, given["http"])):
        for name, act in table.items():
            if given["only"] and not any(each in name for each in given["only"].split(",")):
                continue
            total = number // 4 if name == "erasure" else number
            shown = progress.add_task(f"{name} ({way})", total=total)

            def tell(done: int, shown: Any = shown) -> None:
                progress.update(shown, completed=done)

            acts.append(
                (f"{name} ({way})", await count_acts(world, act, total, given["seconds"], given["lanes"], tell))
            )
            progress.console.print(acts[-1][0], dict(acts[-1][1]))
    acts.append(("backlore user …", await run_commands(world, [str(folder), data], given["commands"])))
    for name in ("a writer killed", "a worker killed"):
        counted: Counter[str] = Counter()
        later = list[asyncio.Task[Counter[str]]]()
        for _ in progress.track(range(given["kills"]), description=name):
            if name == "a writer killed":
                later.append(asyncio.ensure_future(kill_writer(world, [str(folder), data], 200)))
                if len(later) % 4 == 0:
                    await asyncio.wait(later)
            else:
                counted += await kill_worker(world, 200)
        for each in later:
            counted += await each
        kills.append((name, counted))
        progress.console.print(name, dict(counted))
    await world.app.redis.aclose()
    return acts, kills


def show(title: str, rows: list[tuple[str, Counter[str]]], columns: list[str]) -> None:
    table = Table("", *columns, title=title)
    for name, counted in rows:
        table.add_row(name, *(f"{counted[column]:,}" for column in columns))
    Console(width=120).print(table)


@click.command()
@click.option("--count", "number", default=100_000, help="Requests after each act that services do.")
@click.option("--http", default=2_000, help="Requests after each act that a route does.")
@click.option("--seconds", default=3600.0, help="For an act at most.")
@click.option("--kills", default=100)
@click.option("--commands", default=5)
@click.option("--lanes", default=24, help="Users at once.")
@click.option("--busy", default=0, help="Processes that take all the CPU they get.")
@click.option("--only", default="", help="Acts, by parts of their names.")
def main(busy: int, **given: Any) -> None:
    """Count stale answers."""
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    with tempfile.TemporaryDirectory(prefix="stale-") as made:
        folder = Path(made)
        (folder / "config.py").write_text(CONFIG % KINDS)
        (folder / "server.py").write_text(SERVER)
        try:
            with (
                OwnServer(str(folder)) as server,
                Progress(
                    *Progress.get_default_columns(),
                    MofNCompleteColumn(),
                    TimeElapsedColumn(),
                    console=Console(stderr=True),
                ) as progress,
            ):
                acts, kills = uvloop.run(measure(folder, server, given, progress))
                assert server.process.poll() is None and descendants(server.process.pid)
        finally:
            for each in load:
                each.kill()
    show("after an act", acts, ["acts", "raced", "before", "asked", "stale"])
    columns = ["kills", "acknowledged", "asked", "stale", "done, not acknowledged", "remembered", "too long"]
    show("after a kill", kills, columns)
    sys.exit(any(counted["stale"] or counted["too long"] for _, counted in acts + kills))


if __name__ == "__main__":
    main()
