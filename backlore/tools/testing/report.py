"""What a run has found, and how it is shown."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from backlore.tools.testing.client import Outgoing, Server
from backlore.tools.testing.compose import HIDDEN, to_curl
from backlore.tools.testing.reply import RowReply

LONGEST = 2000  # characters of a body that are shown


@dataclass(frozen=True)
class Failure:
    """A row that failed: where it stands, what differs, and the request and the reply, if there were any."""

    path: str
    place: str  # FILE:LINE
    found: Sequence[str]
    server: Server
    sent: Outgoing | None = None
    reply: RowReply | None = None

    def __str__(self) -> str:
        lines = [f"FAILED  {self.path}", f"        {self.place}", *(f"  {each}" for each in self.found)]
        if self.sent:
            lines += ["", to_curl(self.sent, self.server)]
        if self.reply:
            lines += ["", show(self.reply, self.server)]
        return "\n".join(lines)


@dataclass(frozen=True)
class Skipped:
    """A row that could not be sent, and why."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"SKIPPED {self.path}: {self.why}"


@dataclass
class Report:
    """What a run has found. `count` is the number of rows that were sent."""

    count: int = 0
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every row passed."""
        return not self.failures and not self.skipped

    def __str__(self) -> str:
        summary = f"{self.count:,} row{'' if self.count == 1 else 's'}, {self.seconds:.1f} s"
        summary += f", {len(self.failures)} failed" if self.failures else ""
        summary += f", {len(self.skipped)} skipped" if self.skipped else ""
        told = ["\n\n".join(map(str, self.failures)), "\n".join(map(str, self.skipped)), summary]
        return "\n\n".join(each for each in told if each)


def show(reply: RowReply, server: Server) -> str:
    """A reply for people. The cookies of a server on another machine are hidden."""
    hidden = set() if server.is_loopback else HIDDEN
    lines = [str(reply.status)]
    lines += [f"{name}: {'…' if name in hidden else value}" for name, value in reply.headers.items()]
    body = reply.body
    if isinstance(body, dict | list):
        text = json.dumps(body, ensure_ascii=False, indent=2)
    else:
        text = body if isinstance(body, str) else repr(body)
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}… ({len(text):,} characters)"
    return "\n".join([*lines, "", text] if text else lines)
