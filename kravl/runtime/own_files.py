"""Files that kravl writes on beside others, such as locks and logs: opened only where they are its own plain files."""

import errno
import os
import stat
from pathlib import Path

NO_FILE = "it is a pipe or a device, not a file"


def open_own(path: Path, flags: int = os.O_RDWR) -> int:
    """A descriptor of the file ``path``, made where there is none, with ``flags`` of `os.open`; nothing is emptied.

    In a folder that others write to, a link of its name would change another file, and a pipe would be waited for.

    Raises:
        OSError: it is a link, a folder, a pipe or a device, or cannot be written.
    """
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link, which is not followed", str(path)) from error
        if error.errno == errno.ENXIO:  # a pipe that nobody reads
            raise OSError(errno.EINVAL, NO_FILE, str(path)) from error
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, NO_FILE, str(path))


def create_own(path: Path) -> int:
    """A descriptor of a new file ``path``, in place of a file or link that is there. Raises OSError for a folder."""
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
