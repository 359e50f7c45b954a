"""What a file is that no library loads as weights, told from its first bytes."""

import zipfile
from pathlib import Path

HEADER = 64  # bytes, enough for each of the kinds below
AGAIN = "download it again"


def odd_file(path: Path) -> str | None:
    """What ``path`` is besides a file of weights in the format of its name, and what to do; None where nothing is odd.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(HEADER)
    if not start:
        return f"it is empty; {AGAIN}"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the weights; run 'git lfs pull' where it was cloned"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, as a link to a page is saved; download the file that the page names"
    if start.startswith(b"\x1f\x8b"):
        return "it is compressed with gzip; unpack it first"
    is_zip = start.startswith(b"PK\x03\x04")
    if is_zip and not zipfile.is_zipfile(path):
        return f"it is the beginning of a zip archive, whose end is missing; {AGAIN}"
    if path.suffix == ".safetensors":
        return _odd_safetensors(start, size, is_zip)
    if _is_safetensors(start, size):
        return "it is a safetensors file; give it a name that ends in .safetensors"
    return None


def _odd_safetensors(start: bytes, size: int, is_zip: bool) -> str | None:
    if is_zip or start.startswith(b"\x80\x02"):
        return "it is a file of torch.save; give it a name that ends in .pth"
    if start[8:9] == b"{" and not _is_safetensors(start, size):
        return f"its header is longer than the file, whose end is missing; {AGAIN}"
    return None


def _is_safetensors(start: bytes, size: int) -> bool:
    """Whether a file begins with the length of a JSON header and that header, as the format of safetensors has it."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") + 8 <= size
