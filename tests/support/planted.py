"""What somebody else may put where kravl is about to write."""

import os
from pathlib import Path

KINDS = ("link", "pipe", "folder")


def plant(kind: str, path: Path, theirs: Path) -> None:
    """Make ``path`` a link to the file ``theirs``, a pipe or a folder."""
    match kind:
        case "link":
            path.symlink_to(theirs)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
