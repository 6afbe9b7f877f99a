"""The darkroom: a process apart that looks at pictures and makes their thumbnails, one after another.

    {"picture": PATH, "thumb": PATH}   →   {"width": int, "height": int}  or  {"why": SENTENCE}  or  {"errno": int}

A line of JSON each. Laws: what it is given comes from strangers, so it has bounds of its own and knows few formats; the
header decides first, and what is too large is never unpacked; of many frames only the first is. What it dies of is the
picture's fault: `thumbs.py` says so, and starts another.
"""

import json
import os
import resource
import sys
import warnings
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP")  # that browsers show
PIXELS = 64_000_000
FRAMES = 1000
SIDE = 320  # pixels of a thumbnail, at most
MEMORY = 1536 << 20  # bytes of address space
SECONDS = 8  # of a processor, for one picture
ORIENTATION = 0x0112  # in EXIF
TURNED = (5, 6, 7, 8)  # of its values: width is height

NONE = f"It can't be read as a picture that browsers show: {', '.join(FORMATS)}."
TOO_LARGE = f"It has more than {PIXELS // 1_000_000} million pixels."
TOO_MANY = f"It has more than {FRAMES:,} frames."
BROKEN = "It is damaged, or was cut."
TOO_MUCH = "It takes too much to unpack."

Image.MAX_IMAGE_PIXELS = PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)


class Refused(Exception):
    """The sentence that says why."""


def develop(picture: str) -> tuple[int, int, Image.Image]:
    """Width and height as it is shown, and the thumbnail. Raises Refused."""
    try:
        with Image.open(picture, formats=FORMATS) as image:
            if getattr(image, "is_animated", False) and getattr(image, "n_frames", 1) > FRAMES:
                raise Refused(TOO_MANY)
            width, height = image.size
            if image.getexif().get(ORIENTATION) in TURNED:
                width, height = height, width
            return width, height, shrink(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Refused(TOO_LARGE) from None
    except UnidentifiedImageError:
        raise Refused(NONE) from None
    except MemoryError:
        raise Refused(TOO_MUCH) from None
    except Refused:
        raise
    except Exception:  # of a stranger's bytes a decoder may raise anything
        raise Refused(BROKEN) from None


def shrink(image: Image.Image) -> Image.Image:
    """The first frame as a small picture that stands upright, without all that was said of it."""
    image.seek(0)
    image.draft("RGB", (2 * SIDE, 2 * SIDE))  # a JPEG is unpacked small at once
    image.load()
    has_alpha = image.has_transparency_data
    whole = image if image.mode in ("RGB", "RGBA", "L") else image.convert("RGBA" if has_alpha else "RGB")
    whole.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    upright = ImageOps.exif_transpose(whole)
    upright.info.clear()
    return upright


def save(thumb: Image.Image, path: str) -> None:
    """Write it so that nobody sees it half. Raises OSError."""
    part = f"{path}.{os.getpid()}"
    try:
        thumb.save(part, "WEBP", quality=80, exif=b"", icc_profile=b"", xmp=b"")
        os.replace(part, path)
    except OSError:
        if os.path.exists(part):
            os.unlink(part)
        raise


def answer(asked: dict[str, str]) -> dict[str, Any]:
    """What is said to one line."""
    try:
        width, height, thumb = develop(asked["picture"])
    except Refused as refused:
        return {"why": str(refused)}
    try:
        save(thumb, asked["thumb"])
    except OSError as error:
        return {"errno": error.errno or 5}
    return {"width": width, "height": height}


def allow_seconds() -> None:
    """For the next picture. Whoever goes beyond is ended by the system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + SECONDS, hard))


def main() -> None:
    """Until nobody asks any more."""
    os.nice(10)  # those who wait for other things come first
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        allow_seconds()
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
