"""What is wrong with a reply, by the contract alone: status, error word, headers, shape, time."""

import re
import statistics
from collections import defaultdict
from dataclasses import dataclass

from backlore.tools.breaker.document import Contract, Operation, flaw
from backlore.tools.breaker.wire import Got, Sent

SLOW = ((2.0, 20.0), (0.5, 100.0))  # seconds, and the multiple of what the route usually takes
# Headers of every reply (docs/routes.md).
ALWAYS = {"x-content-type-options": "nosniff", "x-frame-options": "DENY", "referrer-policy": "same-origin"}
DETAIL = re.compile(rb"Traceback \(most|File \"/|/site-packages/|redis\.exceptions|Error\('|0x[0-9a-f]{8,}>")
# Error words for requests that no route's contract covers.
ELSEWHERE = {
    400: frozenset({"header", "json", "payload"}),
    403: frozenset({"nocookie", "session", "tampered", "csrf", "admin"}),
    404: frozenset({"route"}),
    405: frozenset({"method"}),
    413: frozenset({"size"}),
    414: frozenset({"query"}),
    415: frozenset({"type"}),
}
BARE = {400, 408, 414, 431}  # from the HTTP parser, before our code sees the request


@dataclass(frozen=True)
class Flaw:
    """Something wrong: `kind` groups flaws, `why` is a sentence."""

    kind: str
    why: str


@dataclass(frozen=True)
class Expected:
    """What a request should get. Empty `words`: any of the contract's."""

    statuses: frozenset[int] = frozenset()  # none: any in the contract
    words: frozenset[str] = frozenset()
    kind: str = "contract"  # of the finding, if the reply is something else
    text: str = "a reply of the contract"


ANY = Expected()


def valid(operation: Operation) -> Expected:
    """For a payload that fits: any reply except one that says it doesn't."""
    refusing = {404} if not operation.of("path") else set()
    allowed = set(operation.replies) - {408, 413, 414, 415, 500} - refusing
    if 404 in operation.replies and operation.replies[404].words - {"route"}:
        allowed.add(404)
    if not (400 in operation.replies and operation.replies[400].beyond_type):
        allowed.discard(400)
    return Expected(frozenset(allowed), frozenset(), "refused", "to be accepted: it fits the type")


INVALID = Expected(frozenset({400, 413}), frozenset({"json", "payload", "size"}), "accepted", "400: it breaks the type")


def refused(status: int, *words: str, kind: str = "gate") -> Expected:
    """A refusal with one of these words."""
    return Expected(frozenset({status}), frozenset(words), kind, f"{status} {' or '.join(words)}")


class Judge:
    """Remembers how long each route takes, and every ETag."""

    def __init__(self) -> None:
        self._times: dict[str, list[float]] = defaultdict(list)
        self._tags: dict[tuple[str, str], bytes] = {}

    def examine(self, operation: Operation | None, sent: Sent, got: Got, expected: Expected) -> list[Flaw]:
        """All that is wrong with a reply."""
        name = str(operation) if operation else sent.method
        slow = self.is_slow(name, got)
        self._times[name].append(got.seconds)
        if slow:
            return [slow]
        if got.status == 0:
            return [Flaw("no reply", f"The connection broke: {got.why}.")]
        found = list(self._of_status(operation, sent, got, expected))
        bare = got.status in BARE and not got.raw.startswith(b'{"error"')
        if bare and expected.statuses <= BARE | {413} and operation is None:
            return found
        return found + list(_of_headers(operation, sent, got)) + list(self._of_tag(sent, got))

    def usual(self, name: str) -> float:
        """The seconds that a route usually takes: the median of its latest requests."""
        return statistics.median(self._times[name][-200:]) if self._times[name] else 0.0

    def is_slow(self, name: str, got: Got) -> Flaw | None:
        """A hang: the reply took long, and many times longer than usual."""
        usual = self.usual(name)
        if got.why == "time" or any(got.seconds > max(least, times * usual) for least, times in SLOW):
            return Flaw("hang", f"It took {got.seconds:.1f} s, usually {usual * 1000:.0f} ms.")
        return None

    def _of_status(self, operation: Operation | None, sent: Sent, got: Got, expected: Expected) -> list[Flaw]:
        if got.status >= 500 and got.status != 503:
            detail = " With a detail of the inside." if got.body != {"error": "server"} else ""
            return [Flaw("crash", f"{got.status}.{detail}")]
        found = [Flaw("detail", "The body shows the inside of the server.")] if DETAIL.search(got.raw) else []
        if got.status in (429, 503):  # these may come at any time, if the contract has them
            pass
        elif expected.statuses and got.status not in expected.statuses:
            said = f"{got.status} {got.error}".strip()
            return [*found, Flaw(expected.kind, f"{said}, expected {expected.text}.")]
        elif expected.words and got.status >= 400 and got.error not in expected.words:
            return [*found, Flaw(expected.kind, f"{got.status} {got.error}, expected {expected.text}.")]
        return found if sent.method == "HEAD" else found + _of_contract(operation, got)

    def _of_tag(self, sent: Sent, got: Got) -> list[Flaw]:
        tag = got.headers.get("etag", "")
        if got.status != 200 or sent.method != "GET" or not tag:
            return []
        known = self._tags.setdefault((sent.path, tag), got.raw)
        if known == got.raw:
            return []
        return [Flaw("etag", f"Two bodies of {sent.path} have the ETag {tag}.")]


def _of_contract(operation: Operation | None, got: Got) -> list[Flaw]:
    if operation is None:
        if got.status < 400 or got.raw == b"":
            return []
        known = ELSEWHERE.get(got.status, frozenset())
        return [] if got.error in known | {""} else [Flaw("word", f"{got.status} {got.error} is not in the contract.")]
    contract = operation.replies.get(got.status)
    if contract is None:
        return [Flaw("status", f"{got.status} is not in the contract of {operation}.")]
    return [flaw for flaw in (_of_body(contract, got),) if flaw]


def _of_body(contract: Contract, got: Got) -> Flaw | None:
    of_parts = got.status == 206 and got.media == "multipart/byteranges"  # of several ranges
    if contract.media not in ("", "*/*") and got.media != contract.media and not of_parts:
        return Flaw("media", f"{got.status} has the content-type {got.media or 'none'}, not {contract.media}.")
    if contract.media != "application/json" or got.status == 304:
        return None
    if got.body is None:
        return Flaw("shape", f"{got.status} has no JSON.")
    if contract.words and got.error not in contract.words:
        return Flaw("word", f"{got.status} {got.error[:80]!r} is none of {', '.join(sorted(contract.words))}.")
    if (
        got.status == 400
        and got.error == "payload"
        and not (isinstance(got.body.get("why"), str) and "where" in got.body)
    ):
        return Flaw("shape", "400 payload without where and why.")
    broken = flaw(contract.shape or {}, got.body, "body")
    return Flaw("shape", f"{got.status}: {broken}.") if broken else None


def _of_headers(operation: Operation | None, sent: Sent, got: Got) -> list[Flaw]:
    found = []
    for name, value in ALWAYS.items():
        if got.headers.get(name) != value:
            found.append(Flaw("header", f"{got.status} without {name}: {value}."))
            break
    if got.status in (429, 503) and not re.fullmatch(r"[1-9]\d*", got.headers.get("retry-after", "")):
        found.append(Flaw("retry-after", f"{got.status} without Retry-After in whole seconds."))
    is_private = operation is not None and operation.has_session and got.status == 200 and sent.method == "GET"
    # a reply that is not JSON is a file, which only its owner's browser may keep
    wanted = ("no-store",) if got.media == "application/json" else ("no-store", "private")
    if is_private and not any(word in got.headers.get("cache-control", "") for word in wanted):
        found.append(Flaw("cache", f"What belongs to a user may be kept by caches: no {' or '.join(wanted)}."))
    if got.raw and not got.media and got.status != 304:
        found.append(Flaw("media", f"{got.status} with a body and no content-type."))
    return found
