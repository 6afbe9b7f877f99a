"""Shoebox's thumbnails: real processes, real pictures, and those that are made to harm."""

import asyncio
import contextlib
import hashlib
import io
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest
import uvloop
from PIL import Image

from tests.conftest import SHOEBOX, words_of
from tests.kit.bombs import bombs, gif, photo

sys.path.append(str(SHOEBOX))
import thumbs  # of the example

BOMBS = bombs()
ANN = "ann"
Work = Callable[[thumbs.Thumbs], Awaitable[None]]


class Room:
    """A folder with pictures and one with thumbnails."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.cache = folder / "thumbs"
        self.looked_for = 0

    def picture(self, content: bytes) -> tuple[Path, str]:
        """A file, and its hash."""
        hash = hashlib.sha256(content).hexdigest()
        path = self.folder / hash
        path.write_bytes(content)
        return path, hash

    def run(self, work: Work) -> None:
        """Work with thumbnails; nothing of them is left."""

        async def within() -> None:
            made = thumbs.Thumbs(self.cache)
            try:
                await work(made)
            finally:
                await made.close()
            assert not darkrooms()

        uvloop.run(within())  # as the server does

    def reads(self, path: Path) -> Callable[[], AsyncIterator[bytes]]:
        """What brings the picture, and counts how often."""
        content = path.read_bytes()

        async def read() -> AsyncIterator[bytes]:
            self.looked_for += 1
            yield content

        return read


def darkrooms(pid: int = os.getpid()) -> list[psutil.Process]:
    """The processes that look at pictures, below one."""
    found = []
    for each in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one, too
            if "darkroom" in " ".join(words_of(each)):
                found.append(each)
    return found


def peak(process: psutil.Process) -> int:
    """The most that a process has had in memory, in kB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_are_unpacked(room: Room, name: str) -> None:
    content, sentence = BOMBS[name]
    path, hash = room.picture(content)

    async def work(made: thumbs.Thumbs) -> None:
        with pytest.raises(thumbs.NoPicture) as refused:
            await made.make(ANN, path, hash)
        assert str(refused.value).startswith(sentence)
        assert peak(darkrooms()[0]) < 100_000  # Python and Pillow themselves have 35,000

    room.run(work)
    assert not list(room.cache.rglob("*.webp*"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP"])
def test_every_format_that_browsers_show(room: Room, kind: str) -> None:
    path, hash = room.picture(photo(kind, 1000, 500))

    async def work(made: thumbs.Thumbs) -> None:
        assert await made.make(ANN, path, hash) == (1000, 500)
        with Image.open(io.BytesIO(await made.get(ANN, hash, room.reads(path)))) as thumb:
            assert (thumb.format, thumb.size) == ("WEBP", (320, 160))
        assert room.looked_for == 0

    room.run(work)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_way_to_write_a_colour(room: Room, mode: str) -> None:
    made_of = io.BytesIO()
    Image.new(mode, (50, 400)).save(made_of, "JPEG" if mode == "CMYK" else "PNG")
    path, hash = room.picture(made_of.getvalue())

    async def work(made: thumbs.Thumbs) -> None:
        assert await made.make(ANN, path, hash) == (50, 400)
        with Image.open(io.BytesIO(await made.get(ANN, hash, room.reads(path)))) as thumb:
            assert thumb.size == (40, 320) and (thumb.mode == "RGBA") is (mode in ("LA", "RGBA"))

    room.run(work)


def test_it_stands_upright_and_says_nothing_of_its_owner(room: Room) -> None:
    left_red = Image.new("RGB", (400, 200), "blue")
    left_red.paste("red", (0, 0, 200, 200))
    said = Image.Exif()
    said[0x0112], said[0x010E] = 6, "my address"  # turned by a quarter, to the right
    content = io.BytesIO()
    left_red.save(content, "JPEG", exif=said)
    path, hash = room.picture(content.getvalue())

    async def work(made: thumbs.Thumbs) -> None:
        assert await made.make(ANN, path, hash) == (200, 400)
        raw = await made.get(ANN, hash, room.reads(path))
        assert b"my address" in path.read_bytes() and b"my address" not in raw and b"EXIF" not in raw
        with Image.open(io.BytesIO(raw)) as thumb:
            assert thumb.size == (160, 320)
            red, blue = thumb.getpixel((80, 40)), thumb.getpixel((80, 280))
            assert red[0] > 200 > 100 > red[2] and blue[2] > 200 > 100 > blue[0]

    room.run(work)


def test_the_cache_can_be_deleted_and_is_filled_once_for_all_who_wait(room: Room) -> None:
    path, hash = room.picture(photo())

    async def work(made: thumbs.Thumbs) -> None:
        await made.make(ANN, path, hash)
        first = await made.get(ANN, hash, room.reads(path))
        shutil.rmtree(room.cache)
        again = await asyncio.gather(*(made.get(ANN, hash, room.reads(path)) for _ in range(20)))
        assert set(again) == {first} and room.looked_for == 1

    room.run(work)


def test_whoever_goes_away_takes_nobody_s_answer(room: Room) -> None:
    """One that waits is given up in the middle: the next one gets its own picture's size."""
    slow, small = room.picture(photo("PNG", 3000, 2000)), room.picture(photo("PNG", 10, 20))

    async def work(made: thumbs.Thumbs) -> None:
        for pause in (0, 0.01, 0.05, 0.2):
            going = asyncio.create_task(made.make(ANN, *slow))
            await asyncio.sleep(pause)
            going.cancel()
            assert await made.make(ANN, *small) == (10, 20)

    room.run(work)


def test_a_darkroom_that_dies_is_followed_by_another(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    path, hash = room.picture(photo())

    async def work(made: thumbs.Thumbs) -> None:
        await made.make(ANN, path, hash)
        (first,) = darkrooms()
        first.kill()
        assert await made.make(ANN, path, hash) == (600, 400)
        (first,) = darkrooms()
        first.kill()
        while darkrooms():
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)  # the loop has seen that the pipe is closed
        assert await made.make(ANN, path, hash) == (600, 400)
        (second,) = darkrooms()
        second.suspend()  # and one that hangs
        monkeypatch.setattr(thumbs, "PATIENCE", 3)
        assert await made.make(ANN, path, hash) == (600, 400)
        assert second.pid not in {each.pid for each in darkrooms()}

    room.run(work)


def test_a_darkroom_that_never_answers_is_not_waited_for(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    path, hash = room.picture(photo())
    silent = room.folder / "darkroom.py"
    silent.write_text("import time\nwhile True: time.sleep(1)")

    async def work(made: thumbs.Thumbs) -> None:
        with monkeypatch.context() as changed:
            changed.setattr(thumbs, "DARKROOM", silent)
            changed.setattr(thumbs, "PATIENCE", 0.2)
            with pytest.raises(thumbs.NoPicture, match="too much"):
                await made.make(ANN, path, hash)
        assert await made.make(ANN, path, hash) == (600, 400)

    room.run(work)


def bounded(room: Room, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """From here on the darkroom has this bound."""
    script = room.folder / "darkroom.py"
    lines = ["import runpy, sys", f"darkroom = runpy.run_path({str(thumbs.DARKROOM)!r})"]
    lines += [f"darkroom['main'].__globals__.update({bound})", "darkroom['main']()"]
    script.write_text("\n".join(lines))
    monkeypatch.setattr(thumbs, "DARKROOM", script)


def test_what_takes_too_long_is_ended_by_the_system(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    bounded(room, monkeypatch, "SECONDS=1")
    endless, fine = room.picture(gif(1_500_000)), room.picture(photo())

    async def work(made: thumbs.Thumbs) -> None:
        assert await made.make(ANN, *fine) == (600, 400)
        with pytest.raises(thumbs.NoPicture, match="too much"):
            await made.make(ANN, *endless)
        assert await made.make(ANN, *fine) == (600, 400)

    room.run(work)


def test_what_takes_too_much_memory_is_refused(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    bounded(room, monkeypatch, "MEMORY=200 << 20")
    large = io.BytesIO()
    Image.new("RGBA", (7900, 7900)).save(large, "PNG", compress_level=1)  # 250 MB unpacked, within the allowed pixels
    big, fine = room.picture(large.getvalue()), room.picture(photo())

    async def work(made: thumbs.Thumbs) -> None:
        with pytest.raises(thumbs.NoPicture, match="too much"):
            await made.make(ANN, *big)
        assert await made.make(ANN, *fine) == (600, 400)

    room.run(work)


def test_the_darkroom_ends_when_nobody_asks(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbs, "IDLE", 0.05)
    path, hash = room.picture(photo())

    async def work(made: thumbs.Thumbs) -> None:
        await made.make(ANN, path, hash)
        for _ in range(2):  # also the one that follows
            until = time.monotonic() + 10
            while darkrooms():
                assert time.monotonic() < until
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.1)  # the loop has seen that the pipe is closed
            assert await made.make(ANN, path, hash) == (600, 400)

    room.run(work)


def test_users_take_turns(room: Room) -> None:
    """One brings ten pictures, then another one: it is not the last."""
    many, one = [room.picture(photo("PNG", 700 + n, 700)) for n in range(10)], room.picture(photo("PNG", 10, 20))

    async def work(made: thumbs.Thumbs) -> None:
        done: list[str] = []

        async def bring(user: str, picture: tuple[Path, str]) -> None:
            await made.make(user, *picture)
            done.append(user)

        crowd = [asyncio.create_task(bring(ANN, each)) for each in many]
        await asyncio.sleep(0)
        await asyncio.gather(*crowd, bring("bob", one))
        assert done.index("bob") <= 2, done

    room.run(work)


def test_a_cache_that_can_t_be_written_is_no_fault_of_the_picture(room: Room) -> None:
    path, hash = room.picture(photo())
    (room.cache / hash[:2]).mkdir(parents=True)
    (room.cache / hash[:2] / f"{hash}.webp").mkdir()

    async def work(made: thumbs.Thumbs) -> None:
        with pytest.raises(OSError):
            await made.make(ANN, path, hash)

    room.run(work)
    assert [each.name for each in room.cache.rglob("*")] == [hash[:2], f"{hash}.webp"]
