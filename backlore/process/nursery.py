"""The zygotes of a master: the one that forks now, a fresh one for a reload, and those that were retired.

Law: a fresh zygote takes the place of the old one only when a child of it is ready.
"""

import contextlib
import selectors
import time

from backlore.core.config import Context
from backlore.core.notify import Notify
from backlore.process.child import grown
from backlore.process.zygote import Zygote, adopt_orphans


class Nursery:
    """Starts zygotes and watches them. Where children are executed instead, it has none."""

    def __init__(self, context: Context, selector: selectors.BaseSelector, notify: Notify):
        self.forks = adopt_orphans()
        self._context = context
        self._selector = selector
        self._notify = notify
        self._zygote: Zygote | None = None  # forks children that are missing
        self._fresh: Zygote | None = None  # forks children with the new code of a reload, until one of them is ready
        self._retired: list[Zygote] = []
        self._refreshes = False  # the reload under way wants new code of the libraries, and of Backlore
        self._stops = False
        self._pause = 0.0
        self._starts = 0.0  # when a zygote that died is replaced, even if no child is missing

    def bearer(self) -> Zygote | None:
        """The zygote for children that are missing. None where children are executed. Raises OSError."""
        self._zygote = self._zygote or self._new()
        return self._zygote

    def bearer_of_reload(self) -> Zygote | None:
        """The zygote for children with new code. None where children are executed. Raises OSError."""
        if not self._refreshes:
            return self.bearer()
        self._fresh = self._fresh or self._new()
        return self._fresh

    def refresh(self) -> None:
        """A reload begins that wants all code new."""
        self.drop_fresh()
        self._refreshes = True

    def prove(self, zygote: Zygote | None) -> None:
        """A child of this zygote is ready. If it is the fresh one, all further children are of it."""
        if zygote and zygote is self._fresh:
            self._retire(self._zygote)
            self._zygote, self._fresh, self._refreshes = zygote, None, False

    def drop_fresh(self) -> None:
        """The reload ends without success."""
        self._retire(self._fresh)
        self._fresh, self._refreshes = None, False

    def look(self, replaces: bool) -> None:
        """Notice zygotes that have ended. `replaces`: start another one, after a pause, for one that died."""
        for zygote in self._all():
            if zygote.look():
                continue
            self._selector.unregister(zygote.line)
            zygote.end()
            if zygote.retired:
                self._retired.remove(zygote)
                continue
            if not self._stops:
                self._notify("error", "zygote.died", pid=zygote.process.pid, status=zygote.process.returncode)
            if zygote is self._fresh:
                self._fresh = None
                continue
            self._zygote = None
            self._pause = grown(self._pause, zygote.born)
            # one that could not import is replaced when a child is missing, after that child's pause
            self._starts = time.monotonic() + self._pause if zygote.ready else float("inf")
        if replaces and not self._zygote and time.monotonic() >= self._starts:
            with contextlib.suppress(OSError):  # there is no room for one: later, when a child is missing
                self.bearer()

    def pids(self) -> set[int | None]:
        """The process ids of all zygotes."""
        return {zygote.process.pid for zygote in self._all()}

    def stop(self) -> None:
        """The server ends: children that a zygote still imports for are not needed any more."""
        self._stops = True
        for zygote in self._all():
            if not zygote.ready:
                zygote.process.kill()

    def end(self) -> None:
        """Kill all zygotes."""
        for zygote in self._all():
            zygote.end()

    def _new(self) -> Zygote | None:
        if not self.forks:
            return None
        zygote = Zygote(self._context)
        self._selector.register(zygote.line, selectors.EVENT_READ)
        return zygote

    def _retire(self, zygote: Zygote | None) -> None:
        if zygote:
            zygote.retire()
            self._retired.append(zygote)

    def _all(self) -> list[Zygote]:
        return [zygote for zygote in (self._zygote, self._fresh, *self._retired) if zygote]
