"""The frame of every command: explain a mistyped command line in one line, then let Hydra run the task."""

import errno
import sys
from collections.abc import Callable, Sequence
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser

from kravl.config.compose import as_keys, check, methods, register
from kravl.config.schema import CONFIGS
from kravl.runtime.errors import InputError, printable

EXIT_INPUT = 2
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
NOT_A_RUN = ("--help", "-h", "--hydra-help", "--info", "-i", "--version", "--shell-completion", "-sc")


def main(config_name: str, task: Callable[[Any], object]) -> None:
    """Run ``task`` on the config ``config_name`` as the command line changes it; a user's mistake exits with 2."""
    sys.argv[1:] = as_keys(_as_methods(sys.argv[1:]))
    arguments = get_args_parser().parse_args()
    register(name for a in arguments.overrides if a.startswith("experiment=") for name in a[11:].split(","))
    try:
        if not set(NOT_A_RUN) & set(sys.argv):
            check(arguments.overrides, config_name, arguments.multirun)
    except InputError as error:
        sys.exit(_report(error))

    def run(cfg: Any) -> object:
        try:
            return task(cfg)
        except InputError as error:
            sys.exit(_report(error))
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            sys.exit(f"error: {error.filename or 'a file'} cannot be written: {error.strerror}")

    hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(run)()


def _as_methods(arguments: Sequence[str]) -> list[str]:
    """``adapter=lora`` alone as ``method=lora``: its own learning rate, and its own name in folders and tables."""
    if any(a.startswith("method=") for a in arguments):
        return list(arguments)
    changed = []
    for argument in arguments:
        key, _, names = argument.partition("=")
        if key == "adapter" and set(names.split(",")) <= set(methods()):
            changed.append(f"method={names}")
        else:
            changed += [argument, "method=custom"] if key == "adapter" else [argument]
    return changed


def _report(error: InputError) -> int:
    print(f"error: {printable(error)}", file=sys.stderr)
    return EXIT_INPUT
