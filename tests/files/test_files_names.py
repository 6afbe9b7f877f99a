"""Names that files may have, and the types that they are given."""

import pytest

from backlore.services.files.kinds import BadName, clean, is_shown, sniff
from tests.kit.houses import ANN, House, Run, read

NAMES = [
    "a",
    "é",
    "日本/語.txt",
    "a b",
    "CON",
    "aux.txt",
    "x" * 127 + "." + "y" * 127,
    "-rf",
    "a\u200db",
    "😀",
    ".hidden",
]
BAD = [
    "",
    "/",
    "a//b",
    "..",
    "a/../b",
    ".",
    "...",
    "a/. .",
    "a\0b",
    "a\nb",
    "x" * 256,
    "\u202egpj.exe",
    "a\\b",
    "a/",
    " ",
]
BAD += ["\u200f", "é" * 128, "\x7f", "\x85"]


@pytest.fixture(params=["disk", "servers"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.getfixturevalue(f"run_on_{request.param}")


def test_names(run) -> None:
    for name in NAMES:
        assert clean(name) == name
    assert clean("e\u0301") == "é"
    for name in BAD:
        with pytest.raises(BadName):
            clean(name)

    async def test(house: House) -> None:
        for name in NAMES:
            await house.files.put(ANN, name, name.encode())
        for name in NAMES:
            assert await read(house.files, ANN, await house.files.find(ANN, name)) == name.encode()

    run(test)


@pytest.mark.parametrize(
    ("head", "name", "kind", "shown"),
    [
        (b"\x89PNG\r\n\x1a\n....", "a.png", "image/png", True),
        (b"\x89PNG\r\n\x1a\n....", "a.html", "image/png", True),
        (b"<script>alert(1)</script>", "a.png", "application/octet-stream", False),
        (b"<html>", "a.html", "text/html", False),
        (b"<svg xmlns=''>", "a.svg", "image/svg+xml", False),
        (b"plain", "a.txt", "text/plain", True),
        (b"plain", "LICENSE", "text/plain", True),
        (b"\0\1\2", "a.txt", "text/plain", True),
        (b"\0\1\2", "thing", "application/octet-stream", False),
        (b"%PDF-1.7", "a.pdf", "application/pdf", False),
        (b"", "a", "application/octet-stream", False),
        (b"\xff\xd8\xff\xe0", "a", "image/jpeg", True),
    ],
)
def test_types(head: bytes, name: str, kind: str, shown: bool) -> None:
    assert (sniff(head, name), is_shown(kind)) == (kind, shown)
