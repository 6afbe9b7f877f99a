"""Findings for people and for later: as curl commands that can be pasted, and as rows of a suite."""

import re
import shlex
from collections.abc import Sequence

from backlore.tools.breaker.breaker import Breaker, Finding
from backlore.tools.breaker.wire import Sent

SHOWN = 300  # bytes of a reply
WIDEST = 6000  # characters of a body in a command
BEYOND_ONE = ("lost", "memory", "hang", "changed", "etag", "leak", "limit", "stored")  # kinds that one reply can't show


def to_curl(url: str, sent: Sent) -> str:
    """The request as a command for a POSIX shell."""
    words = ["curl", "-si", "--path-as-is"]
    words += ["-I"] if sent.method == "HEAD" else ["-X", sent.method] if sent.method not in ("GET", "POST") else []
    for name, value in (*sent.lines().items(), *sent.more):
        words += ["-H", f"{name};" if value == "" else f"{name}: {value}"]
    if sent.method == "POST" and sent.body is None:
        words += ["-X", "POST"]
    command = shlex.join([*words, f"{url}{sent.path}"])
    if sent.body is None:
        return command
    if is_plain(sent.body):
        return f"{command} --data-binary {shlex.quote(sent.body.decode())}"
    return f"{to_source(sent.body)} | {command} --data-binary @-"


def is_plain(body: bytes) -> bool:
    """Whether a body can be an argument in a shell."""
    return len(body) < WIDEST and body.isascii() and body.decode().isprintable() and not body.startswith(b"@")


def to_source(body: bytes) -> str:
    """A shell command that writes the body in octal, and long runs of one byte by their length."""
    pieces = []
    for match in re.finditer(rb"(.)\1{999,}|(?:(?!(.)\2{999}).)+", body, re.DOTALL):
        if match[1]:
            byte = "\\" + f"{match[1][0]:03o}"
            pieces.append(f"head -c {len(match[0])} /dev/zero | tr '\\0' '{byte}'")
        else:
            octal = "".join(f"\\{byte:03o}" for byte in match[0])
            pieces.append(f"printf '{octal}'")
    return pieces[0] if len(pieces) == 1 else f"{{ {'; '.join(pieces)}; }}"


def to_text(url: str, finding: Finding) -> str:
    """A finding: what, where, the command, and the reply."""
    times = f" ({finding.count} times)" if finding.count > 1 else ""
    came = finding.got.raw[:SHOWN].decode("utf-8", "replace")
    lines = [
        f"{finding.kind}: {finding.route}{times}",
        f"  {finding.why}",
        f"  tried: {finding.label}, as {finding.sent.who}",
        f"  {to_curl(url, finding.sent)}",
        f"  → {finding.got.status} {came}" if finding.got.status else f"  → no reply: {finding.got.why}",
    ]
    return "\n".join(lines)


def to_table(breaker: Breaker) -> list[tuple[str, int, str]]:
    """For each route: the number of requests, and the kinds of its findings."""
    found: dict[str, list[str]] = {}
    for route, kind in breaker.findings:
        found.setdefault(route, []).append(kind)
    names = dict.fromkeys([*map(str, breaker.operations), *found])
    others = sum(count for name, count in breaker.requests.items() if name not in names)
    rows = [(name, breaker.requests[name], ", ".join(found.get(name, []))) for name in names]
    return [*rows, ("other methods and paths", others, "")]


def to_rows(findings: Sequence[Finding]) -> str:
    """A suite with a row for each finding that one request can show. The others become comments.

    A row expects the right reply. It fails until the server is mended.
    """
    people = dict.fromkeys(each.sent.who for each in findings if each.sent.who != "stranger")
    lines = ['"""What the breaker found. Each row fails until that is mended."""', ""]
    lines += ["from backlore.tools.testing import destroy, request, row, sign_up", "", "ROWS = ["]
    lines += [f"    sign_up({name!r})," for name in people]
    for finding in findings:
        lines += to_row(finding)
    lines += [f"    destroy({name!r})," for name in people]
    return "\n".join([*lines, "]", ""])


def to_row(finding: Finding) -> list[str]:
    """The row of one finding, or its comment, as lines."""
    sent, status = finding.sent, right_status(finding)
    title = f"{finding.kind}: {finding.route}: {finding.label}"
    if status is None:
        return [f"    # {title}: {finding.why}".replace("\n", " ")]
    given = [repr(sent.method), repr(sent.path)]
    if sent.body is not None:
        given.append(f"raw={sent.body!r}")
    headers = {name: value for name, value in sent.headers.items() if name not in ("cookie", "x-csrf-token")}
    if headers:
        given.append(f"headers={headers!r}")
    given.append(f"user={sent.who!r}" if sent.session else "user=None")
    if sent.session and not sent.csrf:
        given.append("csrf=False")
    return [f"    # {finding.why}".replace("\n", " "), f"    row({title!r}, request({', '.join(given)}), {status}),"]


def right_status(finding: Finding) -> int | None:
    """The status that should have come; None if one request can't show the finding."""
    if finding.label == "a story" or finding.kind in BEYOND_ONE:
        return None
    if finding.kind == "gate" and finding.label not in ("no csrf", "no cookie", "as no admin"):
        return None  # a row's user always has the right cookie and token
    allowed = finding.expected.statuses
    if finding.expected.kind == "refused" or not allowed:
        return 200
    return min(allowed)
