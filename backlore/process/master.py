"""The master keeps the engine, the workers and the tasks process alive, and never serves requests.

Laws: signal handlers only set flags. A worker is replaced by starting the new one before the old one ends. The engine
is stopped last. A data folder has one master.
"""

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from typing import IO, Any

import msgspec

from backlore.core.config import ConfigError, Context, Settings, enter, in_url, load
from backlore.core.cpus import usable
from backlore.core.notify import Notify, console
from backlore.core.streams import say
from backlore.core.temporary import sweep
from backlore.process.child import PAUSE, Child, grown
from backlore.process.datafolder import hold
from backlore.process.engine import Engine
from backlore.process.nursery import Nursery
from backlore.process.program import EngineError
from backlore.process.terminal import Terminal
from backlore.process.watch import Watch
from backlore.process.zygote import Zygote

BACKLOG = 4096  # connections that wait to be accepted
START_LIMIT = 60.0  # seconds from a child's start to its `ready`
GRACE = 7.0  # seconds beyond `drain` for a child to end: it begins to drain when its clients have been told
CLOSING = 0.3  # seconds until all workers have heard that the server ends
# how to reach, from this machine, a server that listens on every address
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}
INSECURE = "passwords and sessions can be read on their way: set `address` in config.py to one of https"
SUFFIXES = {"application": "", "files": "'s file server"}  # appended to the application's name


class Master:
    """Runs an application: `status = Master(context).run()`."""

    def __init__(self, context: Context):
        enter(context)
        self.settings: Settings = load()
        self.notify = Notify(console)
        self._context = context
        self._roles = ["serve"] * (self.settings.config.workers or usable()) + ["tasks"]
        self._slots: list[Child | None] = [None for _ in self._roles]
        self._pauses = [0.0 for _ in self._roles]
        self._starts = [0.0 for _ in self._roles]  # when an empty slot is filled again
        self._selector = selectors.DefaultSelector()
        self._nursery = Nursery(context, self._selector, self.notify)
        self._leaving: list[Child] = []  # replaced, draining
        self._coming: dict[int, Child] = {}  # replacements for the slots' children, not ready yet
        self._renew: list[int] = []  # slots whose children a reload still has to replace
        self._stop = False
        self._hangup = False  # SIGHUP was received
        self._serves = False
        self._failed = False
        self._failure = ""  # what is wrong with the application, if it never served
        # in dev, new code is served as soon as it is saved
        self._watch = Watch(self.settings.folder) if self.settings.env == "dev" else None
        self._hurry = False  # of the reload under way: the developer waits for it, so all slots are renewed at once
        self._engine: Engine | None = None
        self._engine_starts = 0.0  # the earliest time to start the engine again
        self._lock: IO[str]
        self._listener: socket.socket

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT. Returns the exit status. Raises ConfigError, EngineError."""
        self._lock = hold(self.settings)
        sweep(self.settings.temporary, lives=0)  # no request is under way
        if self.settings.env != "dev" and not self.settings.config.secure and self._context.serves == "application":
            self.notify("warning", "address.insecure", why=INSECURE)
        self._listener = listen(self.settings.config.host, self.settings.config.port)
        try:
            if self.settings.config.own_redis and self._context.serves == "application":
                self._probe()
            self._heed_signals()
            try:
                self._nursery.bearer()  # it gets ready while the engine does
            except OSError as error:
                raise EngineError(f"No process can be started: {error}.") from None
            self._start_engine()
            while not self._stop:
                self._turn()
            self._end_children()
            if self._failure:
                raise ConfigError(self._failure)
        except (ConfigError, EngineError):
            raise  # its text says what to do
        except Exception as error:
            self.notify("error", "master.failed", error=error)
            raise
        finally:
            self._listener.close()
            self._nursery.end()
            if self._engine:
                self._engine.stop()
            self.notify.flush()
        return int(self._failed)

    def _probe(self) -> None:
        """Check a redis that isn't the embedded one. Raises EngineError. Meanwhile a signal ends the master at once."""
        words = [sys.executable, "-m", "backlore.process.probe", msgspec.json.encode(self._context).decode()]
        probe = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if probe.returncode:
            raise EngineError(probe.stderr.strip())
        if probe.stdout:
            self.notify("warning", "redis.unsafe", why=probe.stdout.strip())

    def _start_engine(self) -> None:
        if self.settings.config.own_redis or self._context.serves == "files":  # a file server needs none
            return
        engine = Engine(self.settings, self.notify)
        engine.start()
        self._engine = engine

    def _heed_signals(self) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        self._wakeup = ours, theirs
        self._terminal = Terminal()
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._selector.register(ours, selectors.EVENT_READ)
        for number, handler in {
            signal.SIGTERM: self._on_stop,
            signal.SIGINT: self._on_stop,
            signal.SIGHUP: self._on_hangup,
            signal.SIGCHLD: lambda *_: None,  # it only wakes us
        }.items():
            signal.signal(number, handler)

    def _on_stop(self, *_: Any) -> None:
        self._stop = True

    def _on_hangup(self, *_: Any) -> None:
        self._hangup = True

    # One turn: look at everything, then do what is due.

    def _turn(self) -> None:
        self._wait(self._rest())
        hangup, self._hangup = self._hangup, False
        if hangup and self._terminal.has_left_us():
            self._stop = True
            return
        self._terminal.look()
        self._nursery.look(replaces=self._serves and not self._stop)
        self._look_at_engine()
        if self._loading() and not self._serves:
            return  # there is no worker to reload and no engine to serve with
        written = self._watch is not None and self._watch.changed()
        if hangup or written:
            self._hurry = not hangup
            if self._watch and hangup:
                self._watch.settle()
            self._drop_coming()  # of a reload that this one overtakes
            self._renew = list(range(len(self._roles)))[::-1]  # the tasks first: if they fail, all is as it was
            if hangup:
                self._nursery.refresh()
            self.notify("info", "master.reload")
        for slot, child in enumerate(self._slots):
            self._look_at(slot, child)
        self._look_at_coming()
        self._look_at_leaving()
        self._bury_strangers()

    def _wait(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._wakeup[0]:
                self._wakeup[0].recv(1000)

    def _rest(self) -> float:
        """Seconds until we look again, unless something wakes us."""
        if self._loading():
            return 0.01
        changing = self._coming or self._leaving or not all(child and child.ready for child in self._slots)
        return 0.05 if changing else 0.2

    def _loading(self) -> bool:
        return self._engine is not None and self._engine.loading

    def _start(self, slot: int, zygote: Zygote | None) -> Child:
        child = Child(self._roles[slot], self._context, zygote, self._listener)
        self._selector.register(child.line, selectors.EVENT_READ)
        return child

    def _bury_strangers(self) -> None:
        """Reap adopted processes: the application or the engine started them, and their parents have ended."""
        children = [child for child in (*self._slots, *self._coming.values(), *self._leaving) if child]
        ours = {child.process.pid for child in children} | self._nursery.pids()
        if self._engine:
            ours.add(self._engine.process.pid)
        if (
            not self._nursery.forks or None in ours
        ):  # a child that has not told its pid yet must not be taken for one of them
            return
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid not in ours:
                os.waitpid(ended.si_pid, 0)

    def _bury(self, child: Child) -> None:
        child.look()  # reads its last message
        self._selector.unregister(child.line)
        child.line.close()

    def _look_at_engine(self) -> None:
        engine = self._engine
        if not engine or time.monotonic() < self._engine_starts:
            return
        try:
            if engine.loading:
                if engine.ready() and self._serves:
                    self.notify("info", "engine.back")
            elif (status := engine.process.poll()) is not None:
                self.notify("error", "engine.died", status=status)
                engine.start()
        except (
            EngineError,
            OSError,
            RuntimeError,
        ) as error:  # no thread, no memory, no room on the disk: a later start may succeed
            if not self._serves:
                raise
            self._engine_starts = time.monotonic() + PAUSE[1]
            self.notify("error", "engine.failed", why=str(error), starts_again_in=PAUSE[1])

    def _look_at(self, slot: int, child: Child | None) -> None:
        if child and child.look() and child.role == "serve" and not self._serves:
            self._announce()
        if child and self._is_dead(child):
            self._bury(child)
            self._slots[slot] = None
            self._schedule(slot, child)
        if not (self._slots[slot] or self._stop) and time.monotonic() >= self._starts[slot]:
            try:
                self._slots[slot] = self._start(slot, self._nursery.bearer())
            except OSError as error:  # too many processes or files, or no memory: a later start may succeed
                if not self._serves:
                    raise EngineError(f"No process can be started: {error}.") from None
                self._starts[slot] = time.monotonic() + PAUSE[1]
                failed = {"role": self._roles[slot], "why": str(error), "starts_again_in": PAUSE[1]}
                self.notify("error", "worker.failed", **failed)

    def _is_dead(self, child: Child) -> bool:
        """Whether it has ended. Kills a child that did not get ready in time, or did not end in time."""
        now = time.monotonic()
        late = not child.ready and now > child.born + START_LIMIT
        if late or (child.ending and now > child.ending):
            child.process.kill()
        return child.ended()

    def _schedule(self, slot: int, child: Child) -> None:
        lived = time.monotonic() - child.born
        self._pauses[slot] = pause = grown(self._pauses[slot], child.born)
        self._starts[slot] = time.monotonic() + pause
        if child.why and not self._serves:
            self._failure, self._stop = child.why, True
            return
        died = {"role": child.role, "pid": child.process.pid, "status": child.process.returncode}
        if child.why:
            died["why"] = child.why
        self.notify("error", "worker.died", **died, seconds_lived=round(lived, 1), starts_again_in=pause)
        if not self._serves and child.role == "serve":
            # the first start: an error that is seen is better than a server that never comes up
            self._failed = self._stop = True

    def _look_at_coming(self) -> None:
        """A reload goes slot by slot: start a new child, and when it is ready, let the old one drain."""
        at_once = len(self._roles) if self._hurry else 1
        while self._renew and len(self._coming) < at_once and self._renew[0] not in self._coming:
            slot = self._renew.pop(0)
            try:
                self._coming[slot] = self._start(slot, self._nursery.bearer_of_reload())
            except OSError as error:
                self._call_off(f"no process can be started: {error}")
                return
        for slot, child in list(self._coming.items()):
            if child.look():
                self._nursery.prove(child.zygote)
                old, self._slots[slot] = self._slots[slot], self._coming.pop(slot)
                if old:
                    old.end(self.settings.config.drain + GRACE, signal.SIGUSR1 if self._hurry else signal.SIGUSR2)
                    self._leaving.append(old)
                if not self._renew and not self._coming:
                    self.notify("info", "master.reloaded")
            elif self._is_dead(child):
                self._bury(child)
                del self._coming[slot]
                self._call_off(child.why or "the new code does not start")
                return

    def _call_off(self, why: str) -> None:
        left = len(self._renew) + len(self._coming) + 1  # with the one that has failed
        new = len(self._roles) - left
        self._drop_coming()
        self._nursery.drop_fresh()
        mixed = f"; {new} of {len(self._roles)} processes have the new code already" if new > 0 else ""
        self.notify("error", "master.reload.failed", why=f"{why}; the old code goes on{mixed}")

    def _drop_coming(self) -> None:
        for child in self._coming.values():
            child.end(self.settings.config.drain + GRACE)
        self._leaving += self._coming.values()
        self._coming, self._renew = {}, []

    def _look_at_leaving(self) -> None:
        for child in list(self._leaving):
            child.look()
            if self._is_dead(child):
                self._bury(child)
                self._leaving.remove(child)

    def _announce(self) -> None:
        self._serves = True
        known, port = self.settings.config, self.settings.config.port
        name = known.name.capitalize() + SUFFIXES[self._context.serves]
        say(f"{name} serves on http://{in_url(known.host)}:{port}")
        if self._context.serves == "application":
            host = in_url(LOOPBACK.get(known.host, known.host))
            for page in self.settings.pages:  # on standard output only: no log contains the key
                say(f"{page:<7} http://{host}:{port}/{page}?key={self.settings.key}")
        self.notify("info", "server.started", environment=self.settings.env, workers=len(self._roles) - 1)

    def _end_children(self) -> None:
        self._leaving += [*self._coming.values(), *(child for child in self._slots if child)]
        for child in self._leaving:
            child.end(self.settings.config.drain + GRACE)
        self._nursery.stop()
        closes = time.monotonic() + CLOSING
        while self._leaving:
            self._wait(0.05)
            if time.monotonic() > closes:
                with contextlib.suppress(OSError):  # it is closed already, or macOS can't
                    self._listener.shutdown(socket.SHUT_RD)  # for all processes: no client waits for us in vain
            self._nursery.look(replaces=False)
            self._look_at_leaving()


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket of all workers. Raises ConfigError when the address can't be bound."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Its connections inherit this: a client that vanished is noticed within two minutes, even when no one sends
    # anything.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    until = time.monotonic() + 1.0  # the workers of a killed master hold the port for a moment longer
    while True:
        try:
            listener.bind((host, port))
            listener.listen(BACKLOG)
            listener.setblocking(False)
            return listener
        except (OSError, UnicodeError) as error:  # UnicodeError: this can't be a host name
            if time.monotonic() < until:
                time.sleep(0.05)
                continue
            listener.close()
            why = error.strerror if isinstance(error, OSError) else "not a host name"
            raise ConfigError(
                f"Can't listen on {in_url(host)}:{port} ({why}): choose another --host or --port."
            ) from None
