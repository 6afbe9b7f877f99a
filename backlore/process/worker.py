"""A child process of the master: `serve` answers requests through the door, `tasks` runs the periodic tasks.

It is forked by the zygote, which has imported this module, or executed where there is no zygote. Its line is a socket
to the master. On it the worker says `ready`, or what is wrong with the application. When the line closes, the master is
dead, and the worker ends.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec
import uvloop

from backlore.core.blame import blame
from backlore.core.config import ConfigError, Context, enter
from backlore.core.notify import Notify, console
from backlore.web.door.door import Bounds, Door

if TYPE_CHECKING:
    from backlore.alone import Alone
    from backlore.app import Backend

Served: TypeAlias = "Backend | Alone"

# A draining worker polls whether requests still come. The limits below count polls, not seconds: on a machine so busy
# that we are late, clients are late too.
LOOK = 0.02  # seconds between two polls


class Pace(NamedTuple):
    """For how many polls a draining worker tells its clients to connect anew."""

    quiet: int  # until no request has come for so many
    most: int  # in any case


STOP = Pace(15, 50)  # the whole server ends, so clients can't connect anew
RELOAD = Pace(100, 150)  # another worker has taken its place, and nothing waits for this one to end
HURRY = Pace(3, 50)  # the same, but a developer who has just saved new code waits for it
# What goes wrong in one of these ends with it: the loop, and all else in it, goes on.
CONTAINED = frozenset({"future", "task", "asyncgen", "transport"})


class Worker:
    """The life of one process: start, run, end. What went wrong is reported before it ends."""

    def __init__(self, app: Served, line: socket.socket, listener: socket.socket):
        self.app = app
        self.line = line
        self.listener = listener
        self.stop = asyncio.Event()
        self.pace = STOP
        self.status = 0

    async def live(self, work: Callable[["Worker"], Awaitable[None]]) -> int:
        """Work until told to stop. Returns the exit status. Raises ConfigError when the application can't start."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop, STOP)
        loop.add_signal_handler(signal.SIGUSR1, self._stop, HURRY)
        loop.add_signal_handler(signal.SIGUSR2, self._stop, RELOAD)
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        loop.set_exception_handler(self._uncaught)
        try:
            for hook in self.app.web.on_start:
                await hook()
        except Exception as error:
            if why := blame(error, self.app.settings.folder):
                raise ConfigError(why) from None
            raise
        gc.collect()
        gc.freeze()  # what exists now stays: the collector need not look at it again
        gc.set_threshold(20_000, 50, 100)  # a request leaves almost no cycles: looking less often gains about 2 %
        await work(self)
        for hook in self.app.web.on_stop:
            await hook()
        return self.status

    def ready(self) -> None:
        """Tell the master that this process does its work."""
        self.line.sendall(b"ready\n")

    def _stop(self, pace: Pace) -> None:
        self.pace = pace
        self.stop.set()

    def _uncaught(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        contained = not CONTAINED.isdisjoint(context)
        event = "background.failed" if contained else "worker.uncaught"
        error = context.get("exception")
        self.app.notify("error", event, message=context.get("message"), error=error, pid=os.getpid())
        if contained:
            return
        self.status = 1  # our state is unknown: end, and be replaced
        self.stop.set()


async def serve(worker: Worker) -> None:
    """Serve until told to stop, then drain."""
    app = worker.app
    known = app.settings.config
    web = app.web
    door = Door(web, Bounds(head=known.header_timeout), web.is_proxy, web.tell_refused)
    await door.open(worker.listener)
    worker.ready()
    await worker.stop.wait()
    await drain(app, door, worker.pace)


async def drain(app: Served, door: Door, pace: Pace) -> None:
    """Tell clients to connect anew until no more requests come; then let requests in flight end."""
    loop = asyncio.get_running_loop()
    app.web.draining = True
    door.shut()  # others listen; a client that came to us now would be sent away at once
    await wait_for_quiet(app, door, pace)
    until = loop.time() + app.settings.config.drain
    while app.web.under_way and loop.time() < until:
        await asyncio.sleep(LOOK)
    await door.close(max(until - loop.time(), LOOK))


async def wait_for_quiet(app: Served, door: Door, pace: Pace) -> None:
    """Wait until no client is connected, or no request has come for so many polls."""
    served, still = app.web.served, 0
    for _ in range(pace.most):
        await asyncio.sleep(LOOK)  # first: a connection that was just accepted is known only in the loop's next turn
        still = still + 1 if app.web.served == served else 0
        served = app.web.served
        if not door.connections or still == pace.quiet:
            break


async def tasks(worker: Worker) -> None:
    """Run the periodic tasks until told to stop."""
    worker.ready()
    running = asyncio.ensure_future(worker.app.run_tasks())
    stopped = asyncio.ensure_future(worker.stop.wait())
    await asyncio.wait([running, stopped], return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()  # raises what ended it
    running.cancel()
    await asyncio.wait([running], timeout=worker.app.settings.config.drain)  # it releases what it holds


ROLES = {"serve": serve, "tasks": tasks}


def maker(serves: str) -> Callable[[], Served]:
    """The function that makes what is served, the `application` or its `files`. It imports only the one asked for."""
    if serves == "files":
        from backlore.alone import Alone

        return Alone
    from backlore.app import application

    return application


def die_with_master(line: socket.socket) -> None:
    """Start a thread that ends the process when the line closes. A frozen event loop can't stop it."""

    def wait() -> None:
        with contextlib.suppress(OSError):  # the end, when the master left unread what we have said
            while line.recv(100):
                pass
        os._exit(1)

    threading.Thread(target=wait, name="line", daemon=True).start()


def main(role: str, context: Context, make: Callable[[], Served], line: socket.socket, listener: socket.socket) -> None:
    """Import the application, run the worker and end the process, with status 1 after an error, which was reported."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, lambda *_: None)  # it is for the master; a command that we start does not ignore it
    die_with_master(line)
    notify = Notify(console)
    try:
        enter(context)
        app = make()
        notify = app.notify
        status = uvloop.run(Worker(app, line, listener).live(ROLES[role]))
    except ConfigError as error:
        line.sendall(str(error).encode())  # the master reports it once, for all workers
        status = 1
    except Exception as error:
        notify("error", "worker.failed", role=role, pid=os.getpid(), error=error)
        status = 1
    notify.flush()
    os._exit(status)  # threads that still hash a password must not keep us


if __name__ == "__main__":  # executed: `python -m backlore.process.worker ROLE CONTEXT LINE LISTENER`
    given = msgspec.json.decode(sys.argv[2], type=Context)
    main(sys.argv[1], given, maker(given.serves), *(socket.socket(fileno=int(each)) for each in sys.argv[3:]))
