"""Makes docs/shoebox.png, the picture of the README: Shoebox in Chromium, with a few pictures.

    .venv/bin/python -m docs.picture

It needs what the tests need.
"""

import io
import math
import random
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

from tests.conftest import SHOEBOX, User, serving
from tests.kit.browser import opened

FILE = Path(__file__).parent / "shoebox.png"
SIZE = 1120, 650  # of the window, in pixels
SCENES = (  # name, tags, sky, ground, phase of the hills
    ("dawn.jpg", "holiday", (250, 190, 150), (90, 80, 120), 0.0),
    ("lake.jpg", "holiday", (160, 205, 235), (60, 110, 130), 1.1),
    ("hill.jpg", "holiday", (200, 225, 240), (95, 140, 80), 2.3),
    ("dunes.jpg", "family", (245, 220, 180), (205, 160, 100), 3.9),
    ("night.jpg", "slides", (40, 45, 90), (15, 20, 40), 5.2),
)


def paint(sky: tuple[int, int, int], ground: tuple[int, int, int], phase: float) -> bytes:
    """A JPEG of three rows of hills below a sky."""
    picture = Image.new("RGB", (900, 675), sky)
    draw = ImageDraw.Draw(picture)
    draw.ellipse((620, 90, 720, 190), fill=tuple(min(255, each + 45) for each in sky))
    for row in range(3):
        part = (row + 1) / 3
        colour = tuple(round(s + (g - s) * part) for s, g in zip(sky, ground, strict=True))
        heights = [
            330 + 90 * row + 60 * math.sin(phase + row + x / (140 - 20 * row)) + random.uniform(-2, 2)
            for x in range(0, 901, 5)
        ]
        draw.polygon([(0, 675), *zip(range(0, 901, 5), heights, strict=True), (900, 675)], fill=colour)
    kept = io.BytesIO()
    picture.save(kept, "JPEG", quality=88)
    return kept.getvalue()


def main() -> None:
    """Serve Shoebox, fill it, and take the picture."""
    random.seed(1)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(SHOEBOX, Path(folder) / "server") as server,
        User(server, "ann@example.com") as user,
        opened(Path(folder) / "chromium") as browser,
    ):
        user.sign_up()
        for name, tag, *scene in SCENES:
            file = {"file": (name, paint(*scene), "image/jpeg")}
            assert user.post("/pictures", files=file, data={"tags": tag}).status_code == 200
        browser.set_window_size(*SIZE)
        browser.get(server.url)
        for cookie in user.cookies.jar:
            browser.add_cookie({"name": cookie.name, "value": cookie.value})
        browser.get(server.url)
        browser.implicitly_wait(5)
        browser.find_element("css selector", "img")
        browser.execute_async_script(
            "const done = arguments[0], shown = [...document.images].map((each) => each.decode().catch(() => 0));"
            "Promise.all(shown).then(() => setTimeout(done, 500));"
        )
        shot = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    shot.quantize(128, dither=Image.Dither.NONE).save(FILE, optimize=True)
    print(f"{FILE}: {FILE.stat().st_size >> 10} KiB")


if __name__ == "__main__":
    main()
