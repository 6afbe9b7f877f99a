"""Runs a suite against a server.

Laws: the first failure ends the run, unless all are asked for. Chapters that are `always` still run, for users that
exist. Failures in them are not reported then, since they follow from the first one.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from backlore.tools.testing.client import Client, NoReply, Outgoing, Server
from backlore.tools.testing.compose import compose
from backlore.tools.testing.kept import fill, fill_text
from backlore.tools.testing.match import find, follow
from backlore.tools.testing.outbox import Inbox
from backlore.tools.testing.plan import Fork, Part, Step, plan, steps_of
from backlore.tools.testing.reply import RowReply
from backlore.tools.testing.report import Failure, Report, Skipped
from backlore.tools.testing.rows import ExpectedMail, Row, Visitor

PAUSE = 0.03  # seconds between two tries


def run(
    suite: Any, url: str, *, all: bool = False, only: str = "", on_row: Callable[[str], None] = lambda path: None
) -> Report:
    """Send the rows of a suite to the server at `url`.

    `all`: go on after a failure. `only`: the rows whose path contains it, and the rows they need. `on_row` is called
    with each row's path before it is sent, from several threads where chapters are parallel. Raises SuiteError for a
    wrong suite, before anything is sent.
    """
    whole = plan(suite, only)
    runner = Runner(Server(url), all, on_row)
    since = time.monotonic()
    try:
        runner.look(whole)
        runner.part(whole, runner.state)
    finally:
        runner.state.close()
    runner.report.seconds = time.monotonic() - since
    return runner.report


def check(suite: Any, url: str) -> None:
    """`run` for a test: raises AssertionError, with the whole report, when a row fails."""
    report = run(suite, url)
    assert report.ok, f"\n{report}"


@dataclass
class State:
    """What is known at a point in the run."""

    kept: dict[str, Any] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)  # name → the row that should have kept it
    clients: dict[str | None, Client] = field(default_factory=dict)
    strangers: set[str] = field(default_factory=set)  # users whose sign-up failed

    def copy(self) -> "State":
        clients = {user: client.copy() for user, client in self.clients.items()}
        return State(dict(self.kept), dict(self.lost), clients, set(self.strangers))

    def close(self) -> None:
        """Close all connections."""
        for client in self.clients.values():
            client.close()


class Runner:
    """One run of a suite."""

    def __init__(self, server: Server, all: bool, on_row: Callable[[str], None]):
        self.report = Report()
        self.state = State(clients={None: Client(server)})
        self._server = server
        self._all = all
        self._on_row = on_row
        self._lock = threading.Lock()
        self._reader = Client(server)
        self._outbox: Inbox | None = None

    def look(self, whole: Part) -> None:
        """Note which mails are already there, for a suite that waits for mails."""
        if any(isinstance(step.item, ExpectedMail) for step in steps_of(whole)):
            try:
                self._outbox = Inbox(self._reader)
            except NoReply as error:
                self._fail(Failure("the outbox", self._server.url, [str(error)], self._server))

    @property
    def _ended(self) -> bool:
        return bool(self.report.failures) and not self._all

    def part(self, part: Part, state: State, always: bool = False) -> None:
        """Run a chapter."""
        always = always or part.always
        if part.always and part.made and part.made not in state.clients:
            return
        for item in part.items:
            if isinstance(item, Part):
                self.part(item, state, always)
            elif isinstance(item, Fork):
                self._fork(item, state)
            elif self._ended and not always:
                continue
            elif isinstance(item, Visitor):
                state.clients[item.user] = Client(self._server)
            elif not self._step(item, state, quiet=always and (self._ended or part.made in state.strangers)):
                state.strangers |= {part.made} if part.made else set()

    def _fork(self, fork: Fork, state: State) -> None:
        errors: list[BaseException] = []

        def work(part: Part) -> None:
            own = state.copy()
            try:
                self.part(part, own)
            except BaseException as error:  # raised again below: an error inside a thread would be lost
                errors.append(error)
            finally:
                own.close()

        threads = [threading.Thread(target=work, args=(part,), daemon=True) for part in fork.parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def _step(self, step: Step, state: State, quiet: bool) -> bool:
        """Run a row. Returns False if it failed. A quiet row is sent, but its failure is not reported."""
        if why := self._obstacle(step, state, quiet):
            self._lose(step, state)
            with self._lock:
                self.report.skipped.append(Skipped(step.path, why))
            return True
        self._on_row(step.path)
        with self._lock:
            self.report.count += 1
        failure = (self._row if isinstance(step.item, Row) else self._mail)(step, state)
        if failure is None:
            return True
        self._lose(step, state)
        if not quiet:
            self._fail(failure)
        return False

    def _obstacle(self, step: Step, state: State, quiet: bool) -> str:
        for name in sorted(step.item.names()):
            if name in state.lost:
                return f"{name} was not kept by {state.lost[name]!r}"
        return f"{step.user} could not sign up" if step.user in state.strangers and not quiet else ""

    def _lose(self, step: Step, state: State) -> None:
        for name in step.item.keep:
            state.kept.pop(name, None)
            state.lost[name] = step.path

    def _fail(self, failure: Failure) -> None:
        with self._lock:
            if not self._ended:
                self.report.failures.append(failure)

    def _row(self, step: Step, state: State) -> Failure | None:
        row = step.item
        assert isinstance(row, Row)
        client = state.clients[step.user]
        until = time.monotonic() + row.until
        while True:
            sent: Outgoing | None = None
            reply: RowReply | None = None
            try:
                sent = compose(row.request, state.kept, client)
                reply = client.send(sent)
                found = differences(row, reply, state.kept)
            except NoReply as error:
                found = [f"no reply: {error}"]
            except OSError as error:
                found = [f"a file can't be read: {error}"]
            kept: dict[str, Any] = {}
            if not found and reply:
                kept, found = take(row, reply)
            if not found:
                state.kept |= kept
                for name in kept:
                    state.lost.pop(name, None)
                return None
            if time.monotonic() >= until:
                found += [f"tried for {row.until:g} s"] if row.until else []
                return Failure(step.path, row.place, found, self._server, sent, reply)
            time.sleep(PAUSE)

    def _mail(self, step: Step, state: State) -> Failure | None:
        mail = step.item
        assert isinstance(mail, ExpectedMail)
        address = fill_text(mail.address, state.kept)
        until = time.monotonic() + mail.within
        while True:
            try:
                found = self._outbox.find(address, dict(mail.keep)) if self._outbox else "the outbox can't be read"
            except NoReply as error:
                found = str(error)
            if not isinstance(found, str):
                state.kept |= found
                return None
            if self._outbox is None or time.monotonic() >= until:
                return Failure(step.path, mail.place, [f"{found}, within {mail.within:g} s"], self._server)
            time.sleep(PAUSE)


def differences(row: Row, reply: RowReply, kept: dict[str, Any]) -> list[str]:
    """What differs in a reply. If the status differs, only that is given: the rest would mean nothing."""
    if reply.status != row.status:
        return [f"status: expected {row.status}, got {reply.status}"]
    found = find(fill(row.body, kept), reply.body, "body")
    for name, expected in fill(row.headers, kept).items():
        found += find(expected, reply.headers.get(name.lower()), f"headers.{name}")
    return found


def take(row: Row, reply: RowReply) -> tuple[dict[str, Any], list[str]]:
    """What a row keeps of its reply, and what it should keep but can't."""
    kept, found = {}, []
    for name, source in row.keep.items():
        try:
            kept[name] = follow(source, reply.body) if isinstance(source, str) else source(reply)
        except Exception as error:  # the suite's own function may raise anything
            found.append(f"keep {name}: {error if isinstance(error, LookupError) else repr(error)}")
    return kept, found
