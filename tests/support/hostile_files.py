"""Files that are no pictures, or that cost more than a picture: their names, bytes, and the line that refuses them."""

import io
import struct
import zlib

from PIL import Image


def picture(kind: str = "JPEG", size: tuple[int, int] = (60, 40), **settings: object) -> bytes:
    """A gradient as a file."""
    written = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(written, kind, **settings)
    return written.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes and many pixels of one bit."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compressobj(1)
    row = bytes(1 + (width + 7) // 8)
    data = b"".join(rows.compress(row * 100) for _ in range(height // 100)) + rows.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


SCRIPT = "<script>document.title = 1</script>"
HOSTILE = {
    "PostScript": ("photo.png", b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) run\n", "PostScript is a program"),
    "a bomb": ("photo.png", bomb(40_000, 40_000), "more than 40,000,000 pixels"),
    "a strip": ("photo.png", bomb(8, 20_000), "8 x 20000 pixels: one side is over 500 times the other"),
    "half a photograph": ("photo.jpg", picture(size=(640, 480))[:900], "truncated"),
    "a drawing": ("photo.svg", f"<svg xmlns='http://www.w3.org/2000/svg'>{SCRIPT}</svg>".encode(), "not an image"),
    "a page": ("photo.jpg", f"<!DOCTYPE html><html>{SCRIPT}</html>".encode(), "not an image"),
    "a text": ("notes.txt", b"hello\n", "not an image"),
    "nothing": ("photo.jpg", b"", "not an image"),
    "a name with a script": (f"{SCRIPT}.jpg", b"x", f"cannot read {SCRIPT}.jpg: not an image"),
    "a name that leads elsewhere": ("../../../../etc/passwd", b"x", "cannot read ../../../../etc/passwd: not an image"),
    "a name with control characters": ("a\x1b[2J\n\u202eb.jpg", b"x", "cannot read a\\x1b[2J \\u202eb.jpg: not an im"),
    "a name of 5,000 characters": ("x" * 5000 + ".jpg", b"x", f"cannot read ...{'x' * 116}.jpg: not an image"),
}
