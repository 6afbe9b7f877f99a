"""Files that are small to send and large to unpack, or are no pictures, and what Shoebox says to each."""

import io
import struct
import zlib

from PIL import Image

PIXELS = "It has more than 64 million pixels."
FRAMES = "It has more than 1,000 frames."
BROKEN = "It is damaged, or was cut."
NONE = "It can't be read as a picture that browsers show"


def png(width: int, height: int) -> bytes:
    """A black picture of one bit a pixel."""
    parts = b"\x89PNG\r\n\x1a\n"
    pixels = zlib.compress(bytes(((width + 7) // 8 + 1) * height), 9)
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    for kind, data in ((b"IHDR", head), (b"IDAT", pixels), (b"IEND", b"")):
        parts += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return parts


def gif(frames: int) -> bytes:
    """An animation with one pixel that changes."""
    head = b"GIF89a" + struct.pack("<HHBBB", 64, 64, 0x80, 0, 0) + bytes(6)
    frame = b"\x21\xf9\x04\0\1\0\0\0\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x4c\x01\x00"
    return head + frame * frames + b";"


def photo(kind: str = "JPEG", width: int = 600, height: int = 400) -> bytes:
    """Noise, which no compression makes small."""
    made = io.BytesIO()
    Image.effect_noise((width, height), 90).convert("RGB").save(made, kind)
    return made.getvalue()


def huge_header() -> bytes:
    """A JPEG whose header claims 65,535 by 65,535 pixels."""
    small = photo()
    at = small.index(b"\xff\xc0") + 5
    return small[:at] + struct.pack(">HH", 65535, 65535) + small[at + 4 :]


def canvas() -> bytes:
    """An animated WebP whose canvas would take two gigabytes."""
    frame = bytes(6) + (15).to_bytes(3, "little") * 2 + bytes(4) + b"VP8 " + struct.pack("<I", 26) + bytes(26)
    body = b"VP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + (16382).to_bytes(3, "little") * 2
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6) + b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def bombs() -> dict[str, tuple[bytes, str]]:
    """By name: the bytes, and how the refusal begins."""
    found = {
        "20,000 x 20,000": (png(20_000, 20_000), PIXELS),
        "one row too long": (png(64_000_001, 1), PIXELS),
        "10,000 frames": (gif(10_000), FRAMES),
        "huge header": (huge_header(), PIXELS),
        "huge canvas": (canvas(), PIXELS),
        "nothing": (b"", NONE),
        "a page": (b"<script>alert(1)</script>", NONE),
        "a drawing": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", NONE),
        "another's format": (photo("TIFF"), NONE),
    }
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP"):
        found[f"half a {kind}"] = (photo(kind)[:-5000], BROKEN)
    return found
