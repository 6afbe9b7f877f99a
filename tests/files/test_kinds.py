"""What names say of files, and what a zip can say of their times and numbers."""

import asyncio
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from backlore.core.media import guess_kind
from backlore.services.files.catalog import File
from backlore.services.files.kinds import sniff
from backlore.services.files.zips import Zips
from backlore.web.static import _kind
from tests.kit.engines import Engine
from tests.kit.houses import House, Run, runs


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("data:text/html,x", ""),
        ("data:image/svg+xml;base64,x", ""),
        ("http://example.com/x", ""),
        ("page.html", "text/html"),
        ("page.HTML", "text/html"),
        ("folder.html/x", ""),
        ("drawing.svg.gz", "application/gzip"),
        ("drawing.svgz", "application/gzip"),
        ("page.html.gz", "application/gzip"),
        ("all.tgz", "application/gzip"),
        ("all.tar.bz2", "application/x-bzip2"),
        ("all.tar.xz", "application/x-xz"),
        ("page.html.br", "application/octet-stream"),
        ("page.html.Z", "application/octet-stream"),
        ("drawing.svg.", ""),
        ("page.html ", ""),
        ("", ""),
    ],
)
def test_media_types(name: str, kind: str) -> None:
    assert guess_kind(name) == kind
    assert sniff(b"\0\1", name) == kind or "application/octet-stream"
    assert sniff(b"words", name) == (kind or "text/plain")


def test_a_static_file_that_is_packed_is_that() -> None:
    assert (
        _kind(Path("page.html.gz")) == "application/gzip"
        and _kind(Path("data:text,html,x")) == "application/octet-stream"
    )
    assert _kind(Path("page.html")) == "text/html; charset=utf-8"


@pytest.fixture
def run(engine: Engine, tmp_path: Path) -> Run:
    return lambda test: runs(engine, tmp_path, None)(test, with_bucket=False)  # type: ignore[arg-type]


async def packed(house: House, files: Sequence[File]) -> zipfile.ZipFile:
    pieces = [piece async for piece in Zips(house.files)._stream("annabcdefgh", files)]
    return zipfile.ZipFile(io.BytesIO(b"".join(pieces)))


def test_zips_of_all_times_and_of_many(run: Run) -> None:
    years = [(-(10**12), 1980), (0, 1980), (10**15, 2001), (10**16, 2107), (2**53, 2107), (10**30, 2107)]

    async def test(house: House) -> None:
        await house.files.put("annabcdefgh", "a", b"")
        file = await house.files.find("annabcdefgh", "a")
        fields = (file.id, "a", file.type, 0, file.hash, file.created)
        dated = [File(*fields, moment, file.blobs) for moment, _ in years]
        archive = await packed(house, dated)
        assert [each.date_time[0] for each in archive.infolist()] == [year for _, year in years]
        assert len(set(archive.namelist())) == len(years) and archive.testzip() is None
        await asyncio.sleep(0)
        many = [File(file.id, f"{n}", file.type, 0, file.hash, 0, 0, file.blobs) for n in range(66_000)]
        assert len((await packed(house, many)).namelist()) == 66_000

    run(test)
