"""Lines of files: windows over texts in pieces, conditions, and both on real files that grow meanwhile."""

import asyncio
import itertools
import json
import os
import re
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from backlore.clients.disk import Disk
from backlore.clients.redis.client import Redis
from backlore.core.notify import Notify
from backlore.core.schema import FilesConfig
from backlore.core.turns import Busy
from backlore.services.files.catalog import Changed, File, NoFile
from backlore.services.files.files import Files
from backlore.services.lines import lines as lines_module
from backlore.services.lines.conditions import BadCondition, Conditions, Wanted
from backlore.services.lines.lines import Found, Line, Lines, Look
from backlore.services.lines.windows import Piece, Stretch, Text
from backlore.web.delivery import FilePart, Part, StreamPart
from tests.kit.engines import Engine

ANN = "annabcdefgh"
MANY = settings(derandomize=True, deadline=None, max_examples=1000, suppress_health_check=list(HealthCheck))
SOME = [b"a", b"b", b"ab", b"\n", b"\n", b"\r\n", b"\r", b"\0", b"\xff", "ä".encode(), b"aaaaaaaaaaaa"]
NEVER, AT_ONCE = threading.Event(), threading.Event()
AT_ONCE.set()  # a look covers one window


# --- What is right, said simply ---------------------------------------------------------------------------------


def all_lines(content: bytes, longest: int) -> list[Line]:
    found, at = [], 0
    for each in content.split(b"\n"):
        data = each.removesuffix(b"\r")
        found.append(Line(at, data[:longest], len(data) > longest))
        at += len(each) + 1
    return found[:-1] if content.endswith(b"\n") or not content else found


def look(
    text: Text, wanted: Wanted, newest: bool, stretch: Stretch, limit: int, stopped: threading.Event = NEVER
) -> list[Line]:
    """All lines of a stretch, by looks that end at the limit or anywhere, each going on where the last one ended."""
    found, conditions = Found([], stretch), Conditions(wanted)
    lines: list[Line] = []
    for _ in range(10_000):
        if found.is_all:
            return lines
        found, unknown = Look(conditions, newest, limit).at(text, found.left, stopped)
        assert unknown is None and len(found.lines) <= limit
        lines += found.lines
    raise AssertionError("it never ends")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pieces")


def in_pieces(content: bytes, cuts: Sequence[int], folder: Path, block: int, longest: int) -> Text:
    """The content in pieces, every other one in a file behind something else."""
    edges = [0, *sorted({cut % (len(content) + 1) for cut in cuts}), len(content)]
    pieces = []
    for number, (start, end) in enumerate(itertools.pairwise(edges)):
        if number % 2:
            pieces.append(Piece(start, end - start, content[start:end]))
        else:
            path = folder / str(number)
            path.write_bytes(b"\nx\n" + content[start:end] + b"\nbehind")
            pieces.append(Piece(start, end - start, path, 3))
    return Text(len(content), [piece for piece in pieces if piece.length], block, longest)


@MANY
@given(
    content=st.lists(st.sampled_from(SOME), max_size=40).map(b"".join),
    cuts=st.lists(st.integers(0, 100), max_size=3),
    block=st.sampled_from([2, 3, 4, 5, 8, 40]),
    longest=st.integers(1, 9),
    limit=st.sampled_from([1, 2, 5, 100]),
    edges=st.one_of(st.just((0, -1)), st.tuples(st.integers(0, 90), st.integers(0, 90))),
    stopped=st.sampled_from([NEVER, AT_ONCE]),
    wanted=st.sampled_from(
        [Wanted(), Wanted(("ab",)), Wanted(("ab",), ("^a",)), Wanted((), ("b$",)), Wanted((), ("^$",)), Wanted(("\r",))]
    ),
)
@example(b"\n", [], 2, 1, 1, (0, 1), NEVER, Wanted())
@example(b"aa\r\n" * 5, [], 2, 2, 1, (1, 19), AT_ONCE, Wanted((), ("a$",)))
@example(b"ba", [], 2, 1, 1, (0, -1), NEVER, Wanted((), ("b$",)))
def test_windows_have_each_line_once(
    scratch: Path,
    content: bytes,
    cuts: list[int],
    block: int,
    longest: int,
    limit: int,
    edges: tuple[int, int],
    stopped: threading.Event,
    wanted: Wanted,
) -> None:
    text = in_pieces(content, cuts, scratch, block, longest)
    stretch = Stretch(*sorted(edge % (len(content) + 1) for edge in edges))
    right = [line for line in all_lines(content, longest) if stretch.after <= line.at < stretch.before]
    right = [line for line in right if all(each.encode() in line.data for each in wanted.contains)]
    right = [line for line in right if all(re.search(each.encode(), line.data) for each in wanted.matches)]
    assert look(text, wanted, False, stretch, limit, stopped) == right
    assert look(text, wanted, True, stretch, limit, stopped) == right[::-1]


def test_a_look_that_is_stopped_goes_on_anywhere(scratch: Path) -> None:
    """Also in the middle of a line that is longer than what one look covers."""
    content = b"first\n" + b"x" * 1000 + b"\nsecond\n" + b"y" * 500
    for newest in (True, False):
        text = in_pieces(content, [300, 700], scratch, 64, 100)
        found, lines, looks = Found([], Stretch(0, len(content))), [], 0
        while not found.is_all:
            found, _ = Look(Conditions(Wanted()), newest, 100).at(text, found.left, AT_ONCE)
            lines += found.lines
            looks += 1
        assert looks > 15 and lines == all_lines(content, 100)[:: -1 if newest else 1]


# --- Conditions -------------------------------------------------------------------------------------------------


def holding(wanted: Wanted, content: bytes) -> list[bytes]:
    """The lines that hold, by the scout, which must agree with who looks at each line."""
    text = Text(len(content), [Piece(0, len(content), content)])
    found = [line.data for line in look(text, wanted, False, Stretch(0, len(content)), 1000)]
    conditions = Conditions(wanted)
    assert found == [line.data for line in all_lines(content, 1 << 20) if conditions.hold(line.data)]
    return found


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    ("wanted", "right"),
    [
        (Wanted(("Error",)), [b"an Error here"]),
        (Wanted(("Error",), ignore_case=True), [b"an Error here", b"ERROR", "ERROR: ÄÖ".encode()]),
        (Wanted(("äö",), ignore_case=True), ["ERROR: ÄÖ".encode()]),
        (Wanted(("ERROR", "Ä")), ["ERROR: ÄÖ".encode()]),
        (Wanted(("a.b",)), [b"a.b"]),
        (Wanted(("\0",)), [b"nul \0 byte"]),
        (Wanted((), ("a.b",)), [b"a.b", b"axb"]),
        (Wanted((), ("^a.b$",)), [b"a.b", b"axb"]),
        (Wanted((), ("^error$",), ignore_case=True), [b"ERROR"]),
        (Wanted((), (r"\Aan",)), [b"an Error here"]),
        (Wanted((), (r"here\z",)), [b"an Error here"]),
        (Wanted((), (r"(?-m:^)an",)), [b"an Error here"]),
        (Wanted((), ("^$",)), [b""]),
        (Wanted((), ("here\\s*a",)), []),
        (Wanted((), ("b\\Ca",)), []),
        (Wanted((), ("e[^q]a",)), []),
        (Wanted((), ("^an|^ERROR$",)), [b"an Error here", b"ERROR"]),
        (Wanted((), ("byte", "nul")), [b"nul \0 byte"]),
    ],
)
def test_texts_and_patterns(wanted: Wanted, right: list[bytes], end: bytes) -> None:
    lines = [b"an Error here", b"a.b", b"axb", b"ERROR", b"", "ERROR: ÄÖ".encode(), b"nul \0 byte", b"bad \xff\xfe"]
    assert holding(wanted, end.join(lines)) == right


OBJECTS = [
    '{"level": "error", "took": 100.0, "user": {"id": "abc"}}',
    '{"level":"e\\u0072ror","took":1e2}',
    '{"\\u006cevel" : "info", "took": 1000, "user": "abc"}',
    '{"level": "error!", "took": "100", "note": null, "user": {"id": null}}',
    '{"text": "\\"level\\":\\"error\\"", "took": -5, "ok": true, "log.level": "warn"}',
    '{"level": ["error"], "took": 12.5, "time": "2026-10-03T12:00:00Z", "path": "a\\/b \\u00e4\\ud83d\\ude00"}',
    '{"time": "2025-01-01", "path": "a/b ä😀", "took": 99999999999999999999, "ok": false}',
    '{"level": "error"',
    "level=error",
    '["level", "error"]',
    "null",
    "",
]


@pytest.mark.parametrize(
    ("where", "right"),
    [
        ("level=error", [0, 1]),
        ("level==error", [0, 1]),
        ("level = error", [0, 1]),
        ('level="error"', [0, 1]),
        ("level!=error", [2, 3, 5]),
        ("took=100", [0, 1, 3]),
        ("took=1e2", [0, 1]),
        ('took="100"', [3]),
        ("took>99", [0, 1, 2, 6]),
        ("took>100", [2, 6]),
        ("took>=100", [0, 1, 2, 6]),
        ("took<0", [4]),
        ("took<=12.5", [4, 5]),
        ("took=12.5", [5]),
        ("took=99999999999999999999", [6]),
        ("took!=100", [2, 4, 5, 6]),
        ("user.id=abc", [0]),
        ("user.id exists", [0, 3]),
        ("user exists", [0, 2, 3]),
        ("user=abc", [2]),
        ("note exists", [3]),
        ("note=null", [3]),
        ("ok=true", [4]),
        ("ok!=true", [6]),
        ("ok=1", []),
        ('"log.level"=warn', [4]),
        ("time>=2026-10", [5]),
        ('time<"2026"', [6]),
        ("path=a/b ä😀", [5, 6]),
        ("level=", []),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_fields(where: str, right: list[int], end: str) -> None:
    assert holding(Wanted(where=(where,)), end.join(OBJECTS).encode()) == [OBJECTS[n].encode() for n in right]


def test_several_conditions() -> None:
    content = "\n".join(OBJECTS).encode()
    assert holding(Wanted(where=("level=error", "took>99")), content) == [OBJECTS[n].encode() for n in (0, 1)]
    wanted = Wanted(("abc",), ("took",), ("level=error", "user.id exists"))
    assert holding(wanted, content) == [OBJECTS[0].encode()]


def spell(value: object, odd: bool) -> str:
    """JSON; if `odd`, with each character of a text as an escape."""
    if not odd or not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    units = value.encode("utf-16-be").hex().upper()
    return '"' + "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)) + '"'


@MANY
@given(
    rows=st.lists(
        st.tuples(
            st.one_of(st.text(max_size=5), st.integers(-200, 2000), st.floats(-50, 5000), st.booleans(), st.none()),
            st.booleans(),
        ),
        max_size=12,
    ),
    sign=st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    value=st.one_of(st.text(max_size=5), st.integers(-200, 2000), st.floats(-50, 5000)),
)
def test_fields_as_python_has_them(rows: list[tuple[object, bool]], sign: str, value: object) -> None:
    """Quoted texts and numbers of any spelling, against json and its comparisons."""
    operators: dict[str, Callable[[object, object], bool]] = {
        "=": lambda a, b: a == b,
        "!=": lambda a, b: a != b,
        "<": lambda a, b: a < b,  # type: ignore[operator]
        "<=": lambda a, b: a <= b,  # type: ignore[operator]
        ">": lambda a, b: a > b,  # type: ignore[operator]
        ">=": lambda a, b: a >= b,  # type: ignore[operator]
    }

    def right(found: object) -> bool:
        numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (found, value))
        if numbers or (isinstance(found, str) and isinstance(value, str)):
            return operators[sign](found, value)
        same_text = sign in ("=", "!=") and isinstance(found, str) and found == json.dumps(value)
        return same_text if sign != "!=" else not same_text

    lines = [json.dumps({"n": 1})[:-1] + f', "key": {spell(each, odd)}' + "}" for each, odd in rows]
    wanted = Wanted(where=(f"key{sign}{json.dumps(value)}",))
    kept = [line.encode() for line, (each, _) in zip(lines, rows, strict=True) if right(each)]
    assert holding(wanted, "\n".join(lines).encode()) == kept


@pytest.mark.parametrize(
    ("wanted", "where", "why"),
    [
        (Wanted(("a\nb",)), "contains", "Has a line break: no line has one."),
        (Wanted(("a" * 501,)), "contains", "Should have at most 500 characters."),
        (Wanted(("\ud800",)), "contains", "Is no text in Unicode."),
        (Wanted((), ("(",)), "matches", "Is no pattern: missing ): (."),
        (Wanted((), ("(?=a)",)), "matches", "Is no pattern: invalid perl operator: (?=."),
        (Wanted((), ("\\1",)), "matches", "Is no pattern: invalid escape sequence: \\1."),
        (Wanted((), ("a)(b",)), "matches", "Is no pattern: unexpected ): a)(b."),
        (Wanted((), ("(x{1,30}){1,33}y{1,900}",)), "matches", "Is no pattern: pattern too large."),
        (Wanted((), ("\\pL{100}",)), "matches", "Is no pattern: pattern too large - compile failed."),
        (Wanted(where=("level",)), "where", "Should be a field, a sign and a value,"),
        (Wanted(where=("=5",)), "where", "Should be a field, a sign and a value,"),
        (Wanted(where=("a..b=5",)), "where", "Should be a field, a sign and a value,"),
        (Wanted(where=('a="b',)), "where", "Has a quoted value that is no string of JSON."),
        (Wanted(where=("a=1e999",)), "where", "Has a number that is out of range."),
    ],
)
def test_what_can_not_be_looked_for(wanted: Wanted, where: str, why: str) -> None:
    with pytest.raises(BadCondition) as caught:
        Conditions(wanted)
    assert caught.value.where == where and caught.value.why.startswith(why)


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+$", "(a|aa)+$", "(.*)*c", "(a?){300}a{300}b", "([a-z]*)*c", "(x+x+)+y", "[ab]*a[ab]{200}c", "(a*)*(a*)*c"],
)
def test_patterns_that_explode_elsewhere(pattern: str) -> None:
    content = b"a" * 100_000 + b"!\n" + b"ab" * 50_000 + b"\n"
    assert holding(Wanted((), (pattern,)), content) == []


def test_a_json_bomb_is_no_object() -> None:
    bombs = [b'{"level":' * 20_000, b'{"level":' + b"[" * 20_000, b'{"level":' + b"9" * 5000 + b"}", b'{"level":1e999}']
    assert holding(Wanted(where=("level exists",)), b"\n".join(bombs)) == []


# --- Files ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a test's coroutine with files of its own, whose blobs are small and which are looked at often."""
    monkeypatch.setattr("backlore.services.files.append.BLOB", 1000)
    monkeypatch.setattr(lines_module, "POLL", 0.01)

    def runs(test: Callable[[Files, Lines], Awaitable[None]]) -> None:
        async def within() -> None:
            redis = Redis(unix_socket_path=engine.path, timeout=5)
            await redis.flushall()
            disk = Disk(tmp_path / "files")
            disk.prepare()
            files = Files(redis, Notify(lambda _: None), disk, None, FilesConfig(quota=1 << 30))
            lines = Lines(files.find, files.spans)
            try:
                await test(files, lines)
            finally:
                lines.close()
                disk.close()
                await redis.aclose()

        asyncio.run(within())

    return runs


def rows(first: int, last: int) -> bytes:
    """Lines of some JSON, numbered."""
    return b"".join(
        b'{"n": %d, "level": "%s"}\n' % (n, b"error" if n % 10 == 0 else b"info") for n in range(first, last)
    )


def numbers(found: list[Line]) -> list[int]:
    return [json.loads(line.data)["n"] for line in found]


def test_tail_and_filter_of_a_file_that_was_added_to(run) -> None:
    async def test(files: Files, lines: Lines) -> None:
        for start in range(0, 300, 10):
            file = await files.append(ANN, "log", rows(start, start + 10))
        assert len(file.blobs) > 5  # and lines lie across them
        found = await lines.tail(ANN, "log", 3)
        assert numbers(found.lines) == [297, 298, 299] and not found.is_all
        assert await lines.tail(ANN, "log", 1000) == Found(all_lines(rows(0, 300), 1 << 20), Stretch(0, 0))
        errors = Wanted(where=("level=error",))
        assert numbers((await lines.filter(ANN, "log", errors)).lines) == list(range(290, -1, -10))
        assert numbers((await lines.filter(ANN, "log", errors, newest=False, limit=3)).lines) == [0, 10, 20]
        await files.append(ANN, "log", b"unfinished")
        assert [line.text for line in (await lines.tail(ANN, "log", 1)).lines] == ["unfinished"]
        await files.append(ANN, "log", b", finished\r\nbad \xff")
        assert [line.text for line in (await lines.tail(ANN, "log", 2)).lines] == ["unfinished, finished", "bad \ufffd"]
        await files.put(ANN, "empty", b"")
        assert await lines.tail(ANN, "empty") == Found([], Stretch(0, 0))
        with pytest.raises(NoFile):
            await lines.tail(ANN, "none")
        with pytest.raises(BadCondition):
            await lines.scan(ANN, "log", Wanted(matches=("(",)))

    run(test)


@pytest.mark.parametrize("newest", [True, False])
@pytest.mark.parametrize("limited", [{"limit": 7}, {"seconds": 0}])
def test_answers_go_on_where_the_last_one_ended_while_the_file_grows(
    run, newest: bool, limited: dict, monkeypatch
) -> None:
    monkeypatch.setattr(lines_module, "SLICE", 0)

    async def test(files: Files, lines: Lines) -> None:
        await files.put(ANN, "log", rows(0, 20_000))
        size = (await files.find(ANN, "log")).size
        found, got = Found([], Stretch(0, size)), []
        while not found.is_all:
            found = await lines.filter(
                ANN,
                "log",
                Wanted(where=("n>100", "level=error")),
                newest=newest,
                stretch=found.left,
                **limited | {"limit": limited.get("limit", 10**6)},
            )
            got += numbers(found.lines)
            if len(got) < 100:
                await files.append(ANN, "log", rows(50_000, 50_010))
        assert got == list(range(110, 20_000, 10))[:: -1 if newest else 1]

    run(test)


def test_an_answer_covers_what_was_there_when_it_was_asked(run) -> None:
    async def test(files: Files, lines: Lines) -> None:
        await files.append(ANN, "log", rows(0, 20_000))
        scan = await lines.scan(ANN, "log", newest=False)
        got = numbers((await anext(scan)).lines)
        for _ in range(5):
            await files.append(ANN, "log", rows(90_000, 90_100))
        async for found in scan:
            got += numbers(found.lines)
        assert got == list(range(20_000))

    run(test)


def test_an_answer_is_bounded(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "ANSWER", 3 << 20)

    async def test(files: Files, lines: Lines) -> None:
        await files.put(ANN, "long", (b"x" * 300_000 + b"\n") * 40)
        found = await lines.filter(ANN, "long", limit=1000)
        assert len(found.lines) < 30 and not found.is_all
        assert all(line.cut and len(line.data) == 256 << 10 for line in found.lines)
        rest = await lines.filter(ANN, "long", limit=1000, stretch=found.left)
        more = await lines.filter(ANN, "long", limit=1000, stretch=rest.left)
        starts = [line.at for each in (found, rest, more) for line in each.lines]
        assert starts[: len(starts)] == [n * 300_001 for n in range(39, 39 - len(starts), -1)]

    run(test)


def test_only_what_is_needed_is_asked_for(run) -> None:
    """The end of a file can be read whose beginning is lost."""

    async def test(files: Files, lines: Lines) -> None:
        for start in range(0, 100_000, 10_000):
            await files.append(ANN, "log", rows(start, start + 10_000))
        file = await files.find(ANN, "log")
        files.store.disk.path(file.blobs[0][0]).unlink()
        assert numbers((await lines.tail(ANN, "log", 1)).lines) == [99_999]
        with pytest.raises(Exception, match=file.blobs[0][0]):
            await lines.filter(ANN, "log", Wanted(("no such text",)))

    run(test)


def test_who_closes_it_ends_the_look(run, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    real = os.pread

    def pread(*given: int) -> bytes:
        nonlocal reads
        reads += 1
        return real(*given)

    monkeypatch.setattr("backlore.services.lines.windows.os.pread", pread)
    monkeypatch.setattr(lines_module, "SLICE", 3600)

    async def test(files: Files, lines: Lines) -> None:
        await files.put(ANN, "big", (b"x" * 99 + b"\n") * 3_000_000)

        async def search() -> None:
            await lines.filter(ANN, "big", Wanted(("no such text",)), seconds=3600)

        task = asyncio.create_task(search())
        while reads < 300:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        so_far = reads
        lines._threads.shutdown(wait=True)  # what was under way has ended
        assert reads < so_far + 10  # of some 2,300

    run(test)


async def take(stream, count: int) -> list[Line]:
    got: list[Line] = []
    async for lines in stream:
        got += lines
        if len(got) >= count:
            return got
    return got


def test_follow(run) -> None:
    async def test(files: Files, lines: Lines) -> None:
        await files.append(ANN, "log", rows(0, 100))
        version, stream = await lines.follow(ANN, "log", count=3)
        assert numbers(await take(stream, 3)) == [97, 98, 99]
        _, errors = await lines.follow(ANN, "log", Wanted(where=("level=error",)), count=1)
        assert numbers(await take(errors, 1)) == [90]
        await files.append(ANN, "log", rows(100, 140) + b'{"n": 1')  # the last one is not finished
        came = await take(stream, 40)
        assert numbers(came) == list(range(100, 140))
        assert numbers(await take(errors, 4)) == [100, 110, 120, 130]
        for _ in range(5):
            assert await anext(stream) == []
        await files.append(ANN, "log", b"40}\n")
        assert numbers(await take(stream, 1)) == [140]
        # whoever was away goes on where it was; of another version it gets the end
        _, again = await lines.follow(ANN, "log", version=version, at=came[-3].at)
        assert numbers(await take(again, 3)) == [138, 139, 140]
        _, again = await lines.follow(ANN, "log", count=1, version="another", at=0)
        assert numbers(await take(again, 1)) == [140]
        await files.put(ANN, "log", b"replaced\n")
        with pytest.raises(Changed):
            await take(stream, 1)
        _, stream = await lines.follow(ANN, "log")
        assert (await anext(stream))[0].text == "replaced"
        await files.append(ANN, "log", b"\n\nadded\n")
        assert [line.text for line in await take(stream, 3)] == ["", "", "added"]
        await files.delete(ANN, "log")
        with pytest.raises(NoFile):
            await take(stream, 1)

    run(test)


def test_many_add_while_others_follow_and_page(run) -> None:
    """Nothing is lost or told twice."""

    async def test(files: Files, lines: Lines) -> None:
        await files.append(ANN, "log", rows(0, 1))
        followers = [(await lines.follow(ANN, "log", count=1))[1] for _ in range(3)]
        taking = [asyncio.create_task(take(stream, 2001)) for stream in followers]
        for batch in range(1, 2001, 50):
            await asyncio.gather(*(files.append(ANN, "log", rows(n, n + 1)) for n in range(batch, batch + 50)))
        for each in await asyncio.gather(*taking):
            got = numbers(each)
            assert len(got) == 2001 and sorted(got) == list(range(2001))

    run(test)


def test_contents_that_come_as_streams_or_move(tmp_path: Path) -> None:
    """From a file server, say; and from a disk where the file has another path meanwhile."""
    content = rows(0, 30_000)
    asked: list[int] = []

    async def find(user: str, name: str) -> File:
        return File("version", name, "text/plain", len(content), "", 0, 0, [("b", len(content))])

    async def read(start: int, length: int):
        yield content[start : start + length // 2]
        yield content[start + length // 2 : start + length]

    async def streams(user: str, file: File, start: int, length: int) -> list[Part]:
        asked.append(length)
        return [StreamPart(read, start, length)]

    async def moving(user: str, file: File, start: int, length: int) -> list[Part]:
        path = tmp_path / str(len(asked))
        if asked:
            os.rename(tmp_path / str(len(asked) - 1), path)
        else:
            path.write_bytes(content)
        asked.append(length)
        return [FilePart(path, start, length)]

    async def test() -> None:
        for spans in (streams, moving):
            lines = Lines(find, spans)
            for newest in (True, False):
                found = await lines.filter(ANN, "log", Wanted(where=("n>49",)), newest=newest, limit=30_000)
                assert numbers(found.lines) == list(range(50, 30_000))[:: -1 if newest else 1]
            assert numbers((await lines.tail(ANN, "log", 1)).lines) == [29_999] and asked[-1] <= 1 << 20
            asked.clear()
            lines.close()

    asyncio.run(test())


def test_users_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ann has twenty filters that find nothing: Bob's tail comes after a few of their looks, and more of hers are
    refused."""
    path, begun = tmp_path / "log", 0
    path.write_bytes(b"nothing that she is looking for\n" * 100_000)
    file, at = File("id", "log", "", path.stat().st_size, "", 0, 0, []), Look.at

    async def find(user: str, name: str) -> File:
        return file

    async def spans(user: str, file: File, start: int, length: int) -> list[Part]:
        return [FilePart(path, start, length)]

    def count(*given: Any) -> tuple[Found, Any]:
        nonlocal begun
        begun += 1
        return at(*given)

    async def test() -> None:
        lines = Lines(find, spans)
        looks = [asyncio.create_task(lines.filter(ANN, "log", Wanted(contains=("else",)))) for _ in range(30)]
        while begun < 30:
            await asyncio.sleep(0)
        before = begun
        assert len((await lines.tail("bob", "log", 1)).lines) == 1
        assert begun - before < 20  # in one row for all, it would be some seventy
        found = await asyncio.gather(*looks, return_exceptions=True)
        assert [type(each) for each in found] == [Found] * 22 + [Busy] * 8  # two were in the threads
        lines.close()

    monkeypatch.setattr(Look, "at", count)
    monkeypatch.setattr(lines_module, "SLICE", 0.005)
    asyncio.run(test())
