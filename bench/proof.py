"""Proves that a contestant does the work, before it is measured.

One that answered faster because it checked less would be no contestant. PocketBase has no cookie, no session that is
renewed, no csrf token and no ETag, so these rows are left out for it, in its favour.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import httpx
from contest import Refused, Shot
from contestants import EMAIL, ITEM, Contestant
from redis import Redis

SHORT = 60  # seconds that a session has left, so that its renewal shows
REMEMBERED = 7  # seconds within which the renewal must show

INVALID = (  # what every contestant refuses
    {"title": ""},
    {"title": "x" * 101},
    {"text": "x" * 5001},
    {"stars": 6},
    {"stars": -1},
)
INVALID_BY_TYPE = (  # what contestants with a full payload type refuse too
    {"public": "perhaps"},
    {"stars": 2.5},
    {"tags": ["x"] * 11},
    {"tags": [""]},
    {"tags": ["x" * 31]},
    {"title": None},
)


def prove(contestant: Contestant) -> None:
    """Send what must be refused and what must work. Raises Refused at the first reply that is wrong."""
    with httpx.Client(timeout=30) as client:
        for name, shot, right in _refusals(contestant):
            status = _send(client, shot).status_code
            _check(status in right, f"{name}: {status}, not one of {sorted(right)}")
        _prove_get(client, contestant)
        _prove_post(client, contestant)
        if contestant.redis:
            _prove_etag(client, contestant)
            _prove_renewal(client, contestant, contestant.redis)


def _refusals(contestant: Contestant) -> Iterator[tuple[str, Shot, set[int]]]:
    """Rows of (what, request, statuses that are right)."""
    own_ways = contestant.redis is None
    forbidden = {400, 401, 403, 404} if own_ways else {403}
    for shot in (contestant.get, contestant.post):
        yield f"{shot.method} by nobody", _without(shot, contestant.identity), forbidden
        yield f"{shot.method} by a forger", _forged(shot, contestant.identity), forbidden
    if not own_ways:
        yield "POST without csrf", _without(contestant.post, "x-csrf-token"), {403}
        yield "POST with a wrong csrf", _forged(contestant.post, "x-csrf-token"), {403}
    for wrong in INVALID if own_ways else INVALID + INVALID_BY_TYPE:
        body = json.dumps({**ITEM, **wrong})
        yield f"POST with {str(wrong)[:40]}", replace(contestant.post, body=body), {400, 422}


def _prove_get(client: httpx.Client, contestant: Contestant) -> None:
    reply = _send(client, contestant.get)
    _check(reply.status_code == 200, f"GET: {reply.status_code}")
    _check(reply.json().get("email") == EMAIL and reply.json().get("id"), f"GET: not the user: {reply.text}")


def _prove_post(client: httpx.Client, contestant: Contestant) -> None:
    _check(not contestant.items(), "an item was kept from a request that was refused")
    reply = _send(client, contestant.post)
    _check(reply.status_code == 200, f"POST: {reply.status_code} {reply.text}")
    right = {name: str(value) for name, value in ITEM.items()}
    right |= {"public": "1", "tags": ",".join(ITEM["tags"])}
    _check(contestant.items() == [right], f"POST: kept {contestant.items()}")


def _prove_etag(client: httpx.Client, contestant: Contestant) -> None:
    """A strong ETag (RFC 9110 §8.8.3), the same for the same body, and 304 to a client that has it."""
    first, second = _send(client, contestant.get), _send(client, contestant.get)
    etag = first.headers.get("etag", "")
    _check(etag.startswith('"') and etag == second.headers["etag"], f"GET: ETag {etag!r}")
    known = replace(contestant.get, headers={**contestant.get.headers, "if-none-match": etag})
    _check(_send(client, known).status_code == 304, "GET: not 304 to If-None-Match")


def _prove_renewal(client: httpx.Client, contestant: Contestant, path: str) -> None:
    """A session that is about to end is renewed by use, by GET and by POST: at once, or as soon as a worker that has
    just seen it asks redis for it again.
    """
    with Redis(unix_socket_path=path) as redis:
        for shot in (contestant.get, contestant.post):
            sessions = list(redis.scan_iter("session:*"))
            for key in sessions:
                redis.expire(key, SHORT)
            until = time.monotonic() + REMEMBERED
            while not any(redis.ttl(key) > SHORT for key in sessions):
                _check(time.monotonic() < until, f"{shot.method}: session not renewed")
                _send(client, shot)


def _send(client: httpx.Client, shot: Shot) -> httpx.Response:
    client.cookies.clear()
    return client.request(shot.method, shot.url, headers=shot.headers, content=shot.body or None)


def _without(shot: Shot, header: str) -> Shot:
    return replace(shot, headers={name: value for name, value in shot.headers.items() if name != header})


def _forged(shot: Shot, header: str) -> Shot:
    """The same request with one character in the middle of the header's secret part changed."""
    value = shot.headers[header]
    place = len(value) * 2 // 3
    other = "A" if value[place] != "A" else "B"
    return replace(shot, headers={**shot.headers, header: value[:place] + other + value[place + 1 :]})


def _check(holds: object, why: str) -> None:
    if not holds:
        raise Refused(f"it doesn't do the work: {why}")
