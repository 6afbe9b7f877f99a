"""Names of files and ranges of bytes as they come from people who mean no good."""

import json
import random
import re
from collections.abc import Iterator
from email.parser import BytesParser

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.conftest import KEEPING, Server, User, serving
from tests.kit.raw import ask, form, head, listed, put, upload

SEED = 5
SECRET = b"what is outside"


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("keeping")
    (folder / "outside").write_bytes(SECRET)
    with serving(KEEPING, folder) as server:
        yield server


@pytest.fixture(scope="module")
def ann(keeping: Server) -> Iterator[User]:
    with User(keeping, "ann@example.com") as user:
        yield user.sign_up()


RAW = [
    *("%2e%2e", "%2e%2e%2f%2e%2e%2foutside", "..%2f..%2foutside", "..%5c..%5coutside", "../../outside"),
    "%2e./outside",
    *(
        "%252e%252e%252foutside",
        "a%2f..%2f..%2foutside",
        "%2foutside",
        "//outside",
        "%00",
        "a%00b",
        "%0a",
        "a%0d%0ax:y",
    ),
    *("%c0%ae%c0%ae%c0%afoutside", "%e0%80%ae", "%ff%fe", "%ed%a0%80", "%f4%90%80%80", "%", "%zz", "%1", "a%"),
    *(
        "x" * 300,
        "%78" * 300,
        "x" * 3000,
        "%e2%80%aegpj.exe",
        "%e2%80%8f",
        "%e2%81%a6a",
        "CON",
        "NUL.txt",
        "aux",
        "COM1",
    ),
    *(
        "a.",
        "a%20",
        "%20",
        ".",
        "...",
        ".%20.",
        "-rf",
        "%7f",
        "%c2%85",
        "%ef%bf%bf",
        "%f0%9f%98%80",
        "a%2fb",
        "a%2f%2fb",
    ),
    *(
        "",
        "/",
        "?",
        "%3f",
        "%23",
        "a;b",
        "a%2f",
        "~root",
        "$(id)",
        "%60id%60",
        "'",
        "%22",
        "<script>",
        "file:///etc/passwd",
    ),
]


def test_paths_as_nobody_sends_them(keeping: Server, ann: User) -> None:
    """There is no such file, and no other one is shown instead."""
    for raw in RAW:
        for below in ("content", f"linked/{raw}/{raw}/1/{raw}", "linked/u/i/1/s"):
            status, body = ask(keeping, head(ann, f"GET /files/{below}/{raw}"))
            assert 400 <= status < 500 and SECRET not in body, (below, raw, status, body)


BYTES = [
    *(
        b"..",
        b"../../outside",
        b"..\\outside",
        b"/etc/passwd",
        b"\0",
        b"a\0b",
        b"a\nb",
        b"a\r\nb",
        b"\xc0\xae\xc0\xae/x",
    ),
    *(b"\xff", b"\xed\xa0\x80", b"x" * 255, b"x" * 256, b"x" * 100_000, "\u202egpj.exe".encode(), "\u200f".encode()),
    *(b"CON", b"nul.txt", b"COM1.png", b"a.", b"a ", b" a", b"...", b"-rf", b"%2e%2e", b"%00", b"a//b", b"a/", b"/a"),
    *(
        "é".encode(),
        "e\u0301".encode(),
        "😀".encode(),
        b"a;b",
        b'a"b',
        b"a'b",
        b"\x7f",
        b"\x1b[31m",
        "\ufeffa".encode(),
    ),
]


@pytest.mark.parametrize("place", ["field", "filename"])
def test_names_as_nobody_gives_them(keeping: Server, ann: User, place: str) -> None:
    """Refused as a payload, or kept under this name and found by it; and never anywhere else on the disk."""
    outside = {path for path in keeping.folder.parent.rglob("*") if keeping.data not in path.parents}
    for name in BYTES:
        content = b"content of " + name[:100]
        body = form(name, content) if place == "field" else form(b"", content, name)
        before = listed(ann)
        status, answer = ask(keeping, upload(ann, body))
        assert status in (200, 400, 413), (name, status, answer)
        if status == 200:
            kept = json.loads(answer)["name"]
            quoted = "".join(f"%{byte:02x}" for byte in kept.encode())
            assert ask(keeping, head(ann, f"GET /files/content/{quoted}")) == (200, content), name
        else:
            assert listed(ann) == before
    after = {path for path in keeping.folder.parent.rglob("*") if keeping.data not in path.parents}
    assert after == outside
    for path in (keeping.data / "files").glob("*/*/*"):
        assert re.fullmatch("contents/[a-z0-9]{2}/[a-z0-9]{26}", str(path.relative_to(keeping.data / "files")))


CONTENT = bytes(random.Random(SEED).randbytes(5000))
NUMBERS = st.one_of(st.integers(0, 6000), st.integers(4990, 5010), st.integers(0, 10**20)).map(str)
ONE = st.builds(
    "{}{}{}".format, NUMBERS | st.just(""), st.sampled_from(["-", "-", "-", "", "--", "+"]), NUMBERS | st.just("")
)
LISTS = st.lists(ONE, max_size=25).map(",".join) | st.lists(ONE, max_size=5).map(" ,\t".join)
UNITS = st.sampled_from(["bytes=", "bytes=", "bytes=", "Bytes=", "bytes", "bytes =", "none=", "=", ""])
ODD = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=40)
ODD |= st.text("bytes=0123456789-, ", max_size=30)


def check_parts(kind: str, body: bytes) -> None:
    """Several ranges, each what it says to be."""
    mail = BytesParser().parsebytes(b"content-type: " + kind.encode() + b"\r\n\r\n" + body)
    parts = mail.get_payload()
    assert len(parts) > 1
    for part in parts:
        check_part(part["content-range"], part.get_payload(decode=True))


def check_part(said: str, body: bytes) -> None:
    match = re.fullmatch(rf"bytes (\d+)-(\d+)/{len(CONTENT)}", said)
    assert match, said
    start, end = int(match[1]), int(match[2])
    assert start <= end < len(CONTENT) and body == CONTENT[start : end + 1]


def test_ranges_of_all_kinds(keeping: Server, ann: User) -> None:
    """200 with the whole, 206 with what it says, 416: whatever is asked for."""
    assert put(ann, "r", CONTENT) == 200
    seen = set()

    @settings(max_examples=400, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given((st.builds("{}{}".format, UNITS, LISTS) | ODD).map(str.strip))
    @example("bytes=5000-")  # chance does not always find one
    def check(header: str) -> None:
        got = ann.get("/files/content/r", headers={"range": header.encode("latin-1")})
        seen.add(got.status_code)
        if got.status_code == 200:
            assert got.content == CONTENT
        elif got.status_code == 416:
            assert got.headers["content-range"] == f"bytes */{len(CONTENT)}"
        elif got.headers["content-type"].startswith("multipart/"):
            check_parts(got.headers["content-type"], got.content)
        else:
            check_part(got.headers["content-range"], got.content)

    check()
    assert seen == {200, 206, 416}
