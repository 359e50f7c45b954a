"""Files that appear whole or not at all, and the sweeping of what a killed process left of one."""

import os
import re
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` through a temporary file beside it, so that a reader sees the old or the new one.

    Raises:
        OSError: it cannot be written; it names ``path`` and the bytes needed, and the old file is as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        flush(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, f"{error.strerror} ({len(data):,} bytes needed)", str(path)) from error


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes left in ``folder``, which only the caller writes to."""
    for leftover in folder.glob(".*"):
        if re.fullmatch(r"\..+\.\d+", leftover.name) and leftover.is_file():
            leftover.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have the disk hold what was written to a file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
