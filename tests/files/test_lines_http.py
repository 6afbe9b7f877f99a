"""Lines of users' files over HTTP, on a real server."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.conftest import KEEPING, Server, User, run_in_application, serving
from tests.kit.contents import put
from tests.kit.waiting import until

ROWS = [
    {"n": n, "level": "error" if n % 10 == 0 else "info", "took": n * 2.5, "user": {"id": f"u{n % 3}"}}
    for n in range(1000)
]
LINES = [json.dumps(row) for row in ROWS]


@pytest.fixture(scope="module")
def ann(keeping: Server) -> Iterator[User]:
    with User(keeping, "ann@example.com") as user:
        user.sign_up()
        assert put(user, "logs/a b.jsonl", "\n".join(LINES).encode()).status_code == 200
        yield user


def ask(user: User, route: str, name: str = "logs/a b.jsonl", **query: object) -> httpx.Response:
    return user.get(f"/files/{route}/{name}", params=query)


def found(user: User, **query: object) -> list[int]:
    got = ask(user, "filter", **{"limit": 10_000, **query})
    assert got.status_code == 200, got.text
    return [json.loads(line["text"])["n"] for line in got.json()["lines"]]


def add(server: Server, user: User, name: str, data: bytes) -> None:
    """What an application does."""
    me = user.get("/auth/csrf").json()["user"]["id"]
    run_in_application(server, f"server.app.files.append({me!r}, {name!r}, {data!r})")


def test_tail(ann: User, keeping: Server) -> None:
    got = ask(ann, "tail", lines=3).json()
    assert got == {"lines": LINES[-3:], "before": len("\n".join(LINES[:-3])) + 1, "cut": False}
    assert ask(ann, "tail").json()["lines"] == LINES[-10:]
    before = ask(ann, "filter", before=got["before"], limit=2).json()
    assert [line["text"] for line in before["lines"]] == [LINES[-4], LINES[-5]]
    assert ask(ann, "tail", "none").json() == {"error": "file"}
    put(ann, "empty", b"")
    assert ask(ann, "tail", "empty").json() == {"lines": [], "before": 0, "cut": False}
    put(ann, "odd", b"\xff\xfe\0\r\n" + b"x" * 300_000)
    odd = ask(ann, "tail", "odd").json()
    assert odd["lines"] == ["\ufffd\ufffd\0", "x" * (256 << 10)] and odd["cut"]
    with User(keeping, "bob@example.com") as bob:
        assert ask(bob, "tail").json() == {"error": "nocookie"}
        assert ask(bob.sign_up(), "tail").json() == {"error": "file"}


def test_filter(ann: User) -> None:
    errors = [n for n in range(1000) if n % 10 == 0]
    assert found(ann, where="level=error") == errors[::-1]
    assert found(ann, where="level=error", order="oldest") == errors
    assert found(ann, where=["level=error", "took>2000", "user.id=u1"], order="oldest") == [
        n for n in errors if n > 800 and n % 3 == 1
    ]
    assert found(ann, contains='"n": 77,') == [77]
    assert found(ann, contains='"N": 77,', ignore_case="true") == [77]
    assert found(ann, matches='"n": 7[0-2],', order="oldest") == [70, 71, 72]
    assert found(ann, contains="nowhere") == []
    got, query = [], {"where": "level=error", "limit": 7}
    while True:
        page = ask(ann, "filter", **query).json()
        got += [json.loads(line["text"])["n"] for line in page["lines"]]
        if page["after"] >= page["before"]:
            break
        query |= {"after": page["after"], "before": page["before"]}
    assert got == errors[::-1]
    line = ask(ann, "filter", contains='"n": 1,').json()["lines"][0]
    assert line == {"at": len(LINES[0]) + 1, "text": LINES[1], "cut": False}


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ({"matches": "("}, "matches"),
        ({"matches": "x" * 301}, "matches[0]"),
        ({"matches": "(x{1,900}){1,900}"}, "matches"),
        ({"where": "level"}, "where"),
        ({"contains": "a\nb"}, "contains"),
        ({"limit": 0}, "limit"),
        ({"limit": 10_001}, "limit"),
        ({"order": "random"}, "order"),
        ({"before": -1}, "before"),
        ({"what": 1}, "what"),
    ],
)
@pytest.mark.parametrize("accept", ["*/*", "application/x-ndjson"])
def test_what_can_not_be_asked_for(ann: User, query: dict[str, object], where: str, accept: str) -> None:
    got = ann.get("/files/filter/logs/a b.jsonl", params=query, headers={"accept": accept})
    assert got.status_code == 400 and got.json()["where"] == where and got.json()["why"].endswith("."), got.text


def test_filter_as_a_stream(ann: User) -> None:
    query = {"where": "level=error", "limit": 50}
    got = ann.get("/files/filter/logs/a b.jsonl", params=query, headers={"accept": "application/x-ndjson"})
    assert got.headers["content-type"] == "application/x-ndjson"
    *lines, last = map(json.loads, got.text.splitlines())
    assert [json.loads(line["text"])["n"] for line in lines] == list(range(990, 490, -10))
    assert last == {"after": 0, "before": lines[-1]["at"]}
    assert ann.get("/files/filter/none", headers={"accept": "application/x-ndjson"}).status_code == 404


class Events:
    """What a browser's EventSource reads."""

    def __init__(self, user: User, name: str, last: str = "", **query: object):
        headers = {"last-event-id": last} if last else {}
        self._stream = user.stream("GET", f"/files/follow/{name}", params=query, headers=headers, timeout=30)
        self.response = self._stream.__enter__()
        self._lines = self.response.iter_lines()
        self.last = ""

    def next(self) -> dict[str, str]:
        """The next event that says something; {} at the end."""
        event: dict[str, str] = {}
        for line in self._lines:
            if not line and "data" in event:
                self.last = event.get("id", self.last)
                return event
            name, _, value = line.partition(": ")
            event[name] = value
        return {}

    def texts(self, count: int) -> list[str]:
        return [json.loads(self.next()["data"])["text"] for _ in range(count)]

    def close(self) -> None:
        self._stream.__exit__(None, None, None)


def test_follow(ann: User, keeping: Server) -> None:
    add(keeping, ann, "grows", b"one\ntwo\nthree\n")
    events = Events(ann, "grows", lines=2)
    assert events.response.headers["content-type"] == "text/event-stream"
    assert events.texts(2) == ["two", "three"]
    add(keeping, ann, "grows", "four\r\nf\u00fcnf\nsi".encode())
    assert events.texts(2) == ["four", "f\u00fcnf"]
    events.close()
    add(keeping, ann, "grows", b"x\nseven\n")
    again = Events(ann, "grows", last=events.last)
    assert again.texts(2) == ["six", "seven"]
    only = Events(ann, "grows", lines=0, contains="wanted")
    add(keeping, ann, "grows", b"other\nwanted\n")
    assert only.texts(1) == ["wanted"] and again.texts(2) == ["other", "wanted"]
    version = again.last.partition(":")[0]
    put(ann, "grows", b"another file\n")
    assert again.next() == {"event": "end", "data": "replaced"} and again.next() == {}
    new = Events(ann, "grows", last=f"{version}:3")
    assert new.texts(1) == ["another file"]
    ann.post("/files/delete", json={"name": "grows"})
    assert new.next() == {"event": "end", "data": "deleted"}
    assert ask(ann, "follow", "grows").json() == {"error": "file"}
    assert ask(ann, "follow", matches="(").json()["where"] == "matches"
    for each in (again, only, new):
        each.close()


def test_streams_end_when_the_server_does(tmp_path_factory: pytest.TempPathFactory) -> None:
    """And it ends in time, with nothing left."""
    with serving(KEEPING, tmp_path_factory.mktemp("ending")) as server, User(server, "ann@example.com") as user:
        user.sign_up()
        put(user, "log", b"one\n")
        events = Events(user, "log")
        assert events.texts(1) == ["one"]
        last: list[dict[str, str]] = []
        reading = threading.Thread(target=lambda: last.append(events.next()))
        reading.start()
        assert server.stop() == 0
        reading.join(10)
        assert last == [{}]  # in order: a connection that breaks would raise
        events.close()
        assert "error" not in server.said()


@pytest.mark.parametrize(
    ("route", "query", "accept"),
    [
        ("filter", {"matches": "(a?){300}a{300}b", "seconds": 60}, "*/*"),
        ("filter", {"matches": "(a?){300}a{300}b", "seconds": 60}, "application/x-ndjson"),
        ("follow", {"contains": "b"}, "*/*"),
    ],
)
def test_who_goes_away_ends_the_look(tmp_path: Path, route: str, query: dict[str, object], accept: str) -> None:
    """Meanwhile others are served, and the server can end."""
    with serving(KEEPING, tmp_path, workers=1) as server, User(server, "ann@example.com") as user:
        user.sign_up()
        assert put(user, "slow", (b"a" * 999 + b"\n") * 20_000).status_code == 200
        sent = user.build_request("GET", f"/files/{route}/slow", params=query, headers={"accept": accept})
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.headers.items())
        with socket.create_connection(("127.0.0.1", server.port)) as away:
            away.sendall(f"GET {sent.url.raw_path.decode()} HTTP/1.1\r\n{head}\r\n".encode())
            assert ask(user, "tail", "slow", lines=1).json()["lines"] == ["a" * 999]
            assert "client.disconnected" not in server.said()
        server.wait_said("client.disconnected")
        assert ask(user, "tail", "slow", lines=1).status_code == 200
        assert server.stop() == 0


def test_many_filters_of_one_slow_others_little(ann: User, keeping: Server) -> None:
    """While Ann's filters run over a large file, she is refused, and hears when to come again; Bob never is."""
    put(ann, "large", b"nothing that she is looking for\n" * 600_000)
    busy, bob, stop = [], User(keeping, "bob2@example.com").sign_up(), threading.Event()

    def filter() -> None:
        while not stop.is_set():
            got = ask(ann, "filter", "large", matches=["e(l|L)s+e$"])
            busy.extend([got] if got.status_code != 200 else [])

    with ThreadPoolExecutor(40) as pool:
        for _ in range(40):
            pool.submit(filter)
        try:
            put(bob, "log", b"a line\n")
            until(lambda: busy)
            for _ in range(20):
                refused = len(busy)
                assert ask(bob, "tail", "log").status_code == 200
                until(lambda refused=refused: len(busy) > refused)
        finally:
            stop.set()
    assert {each.status_code for each in busy} == {503} and int(busy[0].headers["retry-after"])
