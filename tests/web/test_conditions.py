"""Ranges, entity tags, what is accepted: by RFC 9110; and what tus says of itself on every reply."""

from collections.abc import Iterator

import pytest

from backlore.web.delivery import parse_ranges
from backlore.web.reply import etag_matches, quality_of
from tests.conftest import Server, User
from tests.kit.contents import path, put
from tests.kit.tus import OCTETS, SPOKEN, begin, named


@pytest.fixture(scope="module")
def ann(keeping: Server) -> Iterator[User]:
    with User(keeping, "ann@example.com") as user:
        yield user.sign_up()


RANGES = [
    ("bytes=0-1", 10, [(0, 2)]),
    ("Bytes=-3", 10, [(7, 3)]),
    ("bytes=5-", 10, [(5, 5)]),
    ("bytes=0-0,-1", 10, [(0, 1), (9, 1)]),
    ("bytes=, ,0-0 ,\t", 10, [(0, 1)]),  # empty elements
    (f"bytes=3-{10**30}", 10, [(3, 7)]),
    (f"bytes=-{'9' * 5000}", 10, [(0, 10)]),
    (f"bytes={'0' * 5000}1-1", 10, [(1, 1)]),
    ("bytes=10-", 10, []),
    ("bytes=-0", 10, []),
    ("bytes=0-", 0, []),
    ("bytes=-0", 0, []),
    ("bytes=-5", 0, None),  # satisfiable, and no 206 can say it: the whole, which is empty
    ("bytes=0-,-5", 0, None),
    ("bytes =0-1", 10, None),
    ("bytes = 0-1", 10, None),
    (" bytes=0-1", 10, None),
    ("bytes=", 10, None),
    ("bytes=,", 10, None),
    ("bytes=-", 10, None),
    ("bytes=1-0", 10, None),
    ("bytes=0-1;2-3", 10, None),
    ("bytes=0 -1", 10, None),
    ("bytes=0-1 2-3", 10, None),
    ("lines=0-1", 10, None),
    ("bytes=" + ",".join(["0-0"] * 21), 100, None),
]


@pytest.mark.parametrize(("header", "size", "spans"), RANGES)
def test_ranges(header: str, size: int, spans: object) -> None:
    assert parse_ranges(header.encode(), size) == spans


TAGS = [  # header, matches weakly, matches strongly
    ('"a"', True, True),
    ('W/"a"', True, False),
    ('"x" , "a"', True, True),
    (',, "x",\t"a",', True, True),
    ("*", True, True),
    (" * ", True, True),
    ('"x,*,y"', False, False),
    ('"x", *', False, False),
    ('"x,"a",y"', False, False),
    ('"*"', False, False),
    ('"x,a"', False, False),
    ("a", False, False),
    ('w/"a"', False, False),
    ('W/ "a"', False, False),
    ('"a" "b"', False, False),
    ('"a', False, False),
    ('"x", "a"b', False, False),
    ('"x y", "a"', False, False),
    ("", False, False),
]


@pytest.mark.parametrize(("header", "weakly", "strongly"), TAGS)
def test_entity_tags(header: str, weakly: bool, strongly: bool) -> None:
    assert etag_matches(header.encode(), b'"a"') == weakly
    assert etag_matches(header.encode(), b'"a"', strong=True) == strongly


def test_a_tag_with_a_comma_is_one() -> None:
    assert etag_matches(b'"x", "a,b"', b'"a,b"') and not etag_matches(b'"a","b"', b'"a,b"')


@pytest.mark.parametrize(
    ("accept", "quality"),
    [
        ("a/b", 1),
        ("A/B ; q=0.5", 0.5),
        ("c/d, a/b;x=1;Q=0.25", 0.25),
        ("a/b;q=0", 0),
        ("a/b; q=0.000", 0),
        ("c/d", 0),
        ("", 0),
        ("xa/b", 0),
        ("a/bc", 0),
        ("*/*", 0),
    ],
)
def test_accept(accept: str, quality: float) -> None:
    assert quality_of(accept.encode(), b"a/b") == quality


def test_over_http(ann: User) -> None:
    put(ann, "ten", b"0123456789")
    put(ann, "empty", b"")
    for name, header, status in (("ten", "bytes=0-1", 206), ("ten", "bytes=99-", 416), ("empty", "bytes=0-", 416)):
        assert ann.get(path(name), headers={"range": header}).status_code == status
        head = ann.head(path(name), headers={"range": header})  # of which a range has no meaning (§14.2)
        whole = ann.get(path(name))
        assert head.status_code == 200 and "content-range" not in head.headers
        assert head.headers["content-length"] == whole.headers["content-length"]
    got = ann.get(path("empty"), headers={"range": "bytes=-5"})
    assert (got.status_code, got.content) == (200, b"")
    assert ann.get(path("empty"), headers={"range": "bytes=0-"}).headers["content-range"] == "bytes */0"
    for name, value in (("if-none-match", '"x,*,y"'), ("if-none-match", '"x", *')):
        assert ann.get(path("ten"), headers={name: value}).status_code == 200
        assert ann.get("/files/usage", headers={name: value}).status_code == 200
    assert ann.get(path("ten"), headers={"if-match": '"x,*,y"'}).status_code == 412
    put(ann, "lines", b"one\ntwo\n")
    for accept, kind in (
        ("application/x-ndjson", "application/x-ndjson"),
        ("application/x-ndjson;q=0", "application/json"),
        ("application/json, application/x-ndjson;q=0.5", "application/json"),
        ("*/*", "application/json"),
    ):
        assert ann.get("/files/filter/lines", headers={"accept": accept}).headers["content-type"] == kind


def test_tus_says_its_version_with_whatever_refuses(keeping: Server, ann: User) -> None:
    stranger, upload = User(keeping), begin(ann, 10, "said")
    long = f"/files/tus/{'x' * 65}"
    replies = [
        (stranger.head(upload, headers=SPOKEN), 403),
        (stranger.post("/files/tus", headers=SPOKEN), 403),
        (ann.post("/files/tus", headers={**SPOKEN, "x-csrf-token": "wrong"}), 403),
        (ann.put(upload, headers=SPOKEN), 405),
        (ann.delete("/files/tus", headers=SPOKEN), 405),
        (ann.head(long, headers=SPOKEN), 404),
        (ann.head("/files/tus/none", headers=SPOKEN), 404),
        (ann.head(f"{upload}?{'x' * 3000}", headers=SPOKEN), 414),
        (ann.patch(upload, headers=OCTETS), 400),
        (ann.patch(upload, headers={**OCTETS, "tus-resumable": "0.1"}), 412),
        (ann.post(upload, headers={**SPOKEN, "x-http-method-override": "PUT"}), 405),
    ]
    for got, status in replies:
        assert (got.status_code, got.headers.get_list("tus-resumable")) == (status, ["1.0.0"]), got.request
    assert "tus-resumable" not in ann.get("/files/content/none").headers


def test_tus_for_clients_that_can_only_post(ann: User) -> None:
    upload = begin(ann, 10, "by post")
    kind = {"content-type": "Application/Offset+Octet-Stream; charset=x"}
    added = ann.patch(upload, content=b"01234", headers={**SPOKEN, **kind, "upload-offset": "0"})
    assert added.status_code == 204, added.text
    asked = ann.post(upload, headers={**SPOKEN, "x-http-method-override": "HEAD"})
    assert (asked.status_code, asked.headers["upload-offset"], asked.headers["upload-length"]) == (200, "5", "10")
    assert asked.content == b""
    for place in (upload, "/files/tus"):
        offered = ann.post(place, headers={"x-http-method-override": "OPTIONS"})
        assert (offered.status_code, offered.headers["tus-version"]) == (204, "1.0.0")
    whole = ann.post("/files/tus", content=b"01234", headers={**SPOKEN, **kind, "upload-length": "5", **named("whole")})
    assert (whole.status_code, whole.headers["upload-offset"]) == (201, "5")
