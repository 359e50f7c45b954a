"""The verbs whose arguments are settings of a config: checked in one line, then composed and run by Hydra."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser

from kravl.cli.main import framed
from kravl.config.compose import as_keys, check, methods, register
from kravl.config.schema import CONFIGS

NOT_A_RUN = ("--help", "-h", "--hydra-help", "--info", "-i", "--version", "--shell-completion", "-sc")


def run_configured(config_name: str, task: Callable[[Any], object], arguments: Sequence[str]) -> int:
    """Run ``task`` on the config ``config_name`` as ``arguments`` change it; returns 0.

    Raises:
        InputError: an unknown key or choice, a value of the wrong type, or what `check` finds.
        SystemExit: the task's own, and Hydra's.
    """
    command = sys.argv
    sys.argv = [command[0], *as_keys(as_methods(arguments))]
    given = get_args_parser().parse_args()
    register(name for a in given.overrides if a.startswith("experiment=") for name in a[11:].split(","))
    if not set(NOT_A_RUN) & set(sys.argv):
        check(given.overrides, config_name, given.multirun)

    def run(cfg: Any) -> object:
        sys.argv = command  # Lightning starts the other processes of a run with the command that it reads here

        results: list[object] = []

        def job(_: Sequence[str]) -> int:
            results.append(task(cfg))
            return 0

        if status := framed(job)([]):
            sys.exit(status)
        return results[0]

    hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(run)()
    return 0


def as_methods(arguments: Sequence[str]) -> list[str]:
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
