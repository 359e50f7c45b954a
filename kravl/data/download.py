"""Fetch a file whole and unaltered: going on where it stopped, from mirrors in order, checked as it comes.

While it comes it is ``<name>.part``; what is not what the card promises is kept as ``<name>.wrong-checksum``.
"""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from kravl.data.partial_file import Digests, PartialFile
from kravl.data.remote_file import RemoteFile
from kravl.data.transfer import TransferError, receive
from kravl.runtime.errors import InputError

BY_HAND = ("drive.google.com", "docs.google.com")


@dataclass(frozen=True)
class Fetched:
    """A whole file, its sha256, and the name of the checksum that it was held against (None: none is known)."""

    path: Path
    sha256: str
    checked: str | None


def fetch(remote: RemoteFile, folder: Path) -> Fetched:
    """``remote`` as a file in ``folder``: the one that is there, if it is right, else from its addresses in order.

    A bar on stderr shows the progress where that is a terminal.

    Raises:
        InputError: no address gives the file: each with its reason, and where to put the file by hand; or no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / remote.name
    checked = remote.checksum[0] if remote.checksum else None
    reasons = []
    if target.is_file():
        present = Digests().add_file(target)
        if (reason := _refusal(remote, present)) is None:
            return Fetched(target, present.hex["sha256"], checked)
        reasons.append(f"{target}: {reason}; kept as {_set_aside(target, target)}")
    part = PartialFile(target.with_name(f"{remote.name}.part"))
    for url in remote.urls:
        try:
            _receive_all(url, part, remote)
        except TransferError as error:
            reasons.append(f"{url}: {error}")
            continue
        if (reason := _refusal(remote, part.digests)) is None:
            done = Fetched(target, part.digests.hex["sha256"], checked)
            part.finish(target)
            return done
        reasons.append(f"{url}: {reason}; kept as {_set_aside(part, target)}")
    listed = "\n".join(f"  {reason}" for reason in reasons)
    raise InputError(
        f"cannot download {remote.name}:\n{listed}\n  give the command again, or put it at {target} by hand"
    )


def _receive_all(url: str, part: PartialFile, remote: RemoteFile) -> None:
    """Ask again as long as each answer brings more."""
    if urlsplit(url).hostname in BY_HAND:
        raise TransferError("Google Drive hands large files to a person only: open it in a browser")
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True
    ) as progress:
        task = progress.add_task(remote.name, total=remote.bytes)
        while True:
            before = part.size
            try:
                return receive(url, part, lambda size, total: progress.update(task, completed=size, total=total))
            except TransferError:
                if part.size <= before:
                    raise


def _refusal(remote: RemoteFile, got: Digests) -> str | None:
    """Why these bytes are not the file, or None."""
    if remote.checksum is not None:
        kind, expected = remote.checksum
        return None if got.hex[kind] == expected else f"its {kind} is {got.hex[kind]}, not {expected}"
    if remote.bytes is not None and got.size != remote.bytes:
        return f"it has {got.size:,} bytes, not {remote.bytes:,}"
    return None


def _set_aside(file: PartialFile | Path, target: Path) -> Path:
    aside = target.with_name(f"{target.name}.wrong-checksum")
    file.replace(aside) if isinstance(file, Path) else file.finish(aside)
    return aside
