"""The darkroom: a process of its own that looks at pictures and makes their thumbnails, one after another.

    {"picture": PATH, "thumb": PATH}   →   {"width": int, "height": int}  or  {"why": SENTENCE}  or  {"errno": int}

Requests and replies are JSON, one a line. Laws: its input comes from strangers, so it has resource limits of its own
and knows few formats. It reads the header first, and never unpacks a picture that is too large. Of many frames it
unpacks only the first. If it dies, the picture is to blame: `thumbs.py` says so, and starts another.
"""

import json
import os
import resource
import sys
import warnings
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP")  # all shown by browsers
PIXELS = 64_000_000
FRAMES = 1000
SIDE = 320  # pixels: the longest side of a thumbnail
MEMORY = 1536 << 20  # bytes of address space
SECONDS = 8  # CPU seconds for one picture
ORIENTATION = 0x0112  # in EXIF
TURNED = (5, 6, 7, 8)  # its values for which width and height are swapped

NONE = f"It can't be read as a picture that browsers show: {', '.join(FORMATS)}."
TOO_LARGE = f"It has more than {PIXELS // 1_000_000} million pixels."
TOO_MANY = f"It has more than {FRAMES:,} frames."
BROKEN = "It is damaged, or was cut."
TOO_MUCH = "It takes too much to unpack."

Image.MAX_IMAGE_PIXELS = PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)


class Refused(Exception):
    """The picture is refused. The text is a sentence that says why."""


def develop(picture: str) -> tuple[int, int, Image.Image]:
    """Width and height of the picture as it is shown, and its thumbnail. Raises Refused."""
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
    except Exception:  # a decoder may raise anything for a stranger's bytes
        raise Refused(BROKEN) from None


def shrink(image: Image.Image) -> Image.Image:
    """The first frame as a small upright picture, without any metadata."""
    image.seek(0)
    image.draft("RGB", (2 * SIDE, 2 * SIDE))  # a JPEG is decoded at a smaller size
    image.load()
    has_alpha = image.has_transparency_data
    whole = image if image.mode in ("RGB", "RGBA", "L") else image.convert("RGBA" if has_alpha else "RGB")
    whole.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    upright = ImageOps.exif_transpose(whole)
    upright.info.clear()
    return upright


def save(thumb: Image.Image, path: str) -> None:
    """Write it so that nobody sees half of it. Raises OSError."""
    part = f"{path}.{os.getpid()}"
    try:
        thumb.save(part, "WEBP", quality=80, exif=b"", icc_profile=b"", xmp=b"")
        os.replace(part, path)
    except OSError:
        if os.path.exists(part):
            os.unlink(part)
        raise


def answer(asked: dict[str, str]) -> dict[str, Any]:
    """The reply to one request."""
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
    """Allow CPU time for the next picture. The system kills the process when it uses more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + SECONDS, hard))


def main() -> None:
    """Answer requests until standard input ends."""
    os.nice(10)  # other processes come first
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        allow_seconds()
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
