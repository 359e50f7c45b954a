"""The verbs whose arguments are settings of a config: checked in one line, then composed and run by Hydra."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from kravl.cli.main import framed
from kravl.config.schema import CONFIGS
from kravl.runtime.errors import InputError
from kravl.runtime.yaml_files import read_yaml

NOT_A_RUN = ("--help", "-h", "--hydra-help", "--info", "-i", "--version", "--shell-completion", "-sc")
# options of Hydra that would compose other files than those that are checked, or load a pickle
REFUSED = {
    "--config-dir": "hydra.searchpath=[/a/folder] adds a folder of configs",
    "--config-path": "hydra.searchpath=[/a/folder] adds a folder of configs",
    "--config-name": "a file of configs/experiment is chosen with experiment=NAME",
    "--experimental-rerun": "it loads a pickle; the same command again resumes a run",
}


def run_configured(config_name: str, task: Callable[[Any], object], arguments: Sequence[str]) -> int:
    """Run ``task`` on the config ``config_name`` as ``arguments`` change it; returns 0.

    Raises:
        InputError: an unknown key or choice, a value of the wrong type, or what `check` finds.
        SystemExit: the task's own, and Hydra's.
    """
    if list(arguments) in (["--help"], ["-h"]):
        print(_help(config_name))
        return 0
    import hydra

    command = sys.argv
    sys.argv = [command[0], *_checked(as_methods(arguments), config_name)]

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


def _checked(arguments: Sequence[str], config_name: str) -> list[str]:
    """The ``arguments`` as Hydra is to read them. Raises InputError as `run_configured`."""
    from hydra._internal.utils import get_args_parser

    from kravl.config.compose import check_command_line, register_configs
    from kravl.config.quoting import as_overrides

    given = get_args_parser().parse_intermixed_args(arguments)
    for option, instead in REFUSED.items():
        if vars(given)[option.strip("-").replace("-", "_")] is not None:
            raise InputError(f"{option} is not taken; {instead}")
    register_configs(name for a in given.overrides if a.startswith("experiment=") for name in a[11:].split(","))
    overrides = as_overrides(given.overrides, config_name, given.multirun)
    runs = not set(NOT_A_RUN) & set(arguments)
    if runs or overrides:  # Hydra's help is composed, too
        check_command_line(overrides, config_name, given.multirun, complete=runs)
    options = list(arguments)
    for override in given.overrides:
        options.remove(override)
    return [*options, *overrides]  # Hydra itself takes no setting that comes after an option


def _help(config_name: str) -> str:
    """What Hydra prints, without its second of composing; with any setting beside --help it is Hydra's."""
    template: str = read_yaml(CONFIGS / f"{config_name}.yaml")["hydra"]["help"]["template"]
    files = sorted(path.relative_to(CONFIGS) for path in CONFIGS.glob("*/*.yaml") if path.parent.name != "hydra")
    groups = {file.parent.name: [f.stem for f in files if f.parent == file.parent] for file in files}
    listed = "\n".join(f"{group}: {', '.join(names)}" for group, names in groups.items())
    settings = f"kravl {config_name} key=value --help prints each of them, as that command line composes them."
    return template.replace("$APP_CONFIG_GROUPS", listed).replace("$CONFIG", settings)


def as_methods(arguments: Sequence[str]) -> list[str]:
    """``adapter=lora`` alone as ``method=lora``: its own learning rate, and its own name in folders and tables."""
    if any(a.startswith("method=") for a in arguments) or not any(a.startswith("adapter=") for a in arguments):
        return list(arguments)
    from kravl.config.compose import methods

    changed = []
    for argument in arguments:
        key, _, names = argument.partition("=")
        if key == "adapter" and set(names.split(",")) <= set(methods()):
            changed.append(f"method={names}")
        else:
            changed += [argument, "method=custom"] if key == "adapter" else [argument]
    return changed
