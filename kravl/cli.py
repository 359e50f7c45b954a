"""The entry points' frame: explain a mistyped command line in one line, then let Hydra run the task."""

import errno
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kravl.chosen_files import check_composed, check_files
from kravl.config import CONFIGS, experiments, methods, register
from kravl.interpolations import refuse_foreign
from kravl.runtime.errors import InputError, first_line, printable, require_safe_versions, unknown

EXIT_INPUT = 2
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
# the class that such a key goes to is its schema: any of its arguments may be given, listed in the YAML or not
CHECKED_WHEN_BUILT = ("trainer.", "loading.", "adapter.", "data.source.", "backbone.build.", "variants.")
EXTRAS = {"joblib": "local", "submitit_local": "slurm", "submitit_slurm": "slurm", "optuna": "search"}  # plugin's file
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


def as_keys(arguments: Sequence[str]) -> list[str]:
    """Settings as Hydra takes them: an argument of a class may be given whether the YAML lists it or not."""
    return [f"++{a}" if a.startswith(CHECKED_WHEN_BUILT) else a for a in arguments]


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


def check(arguments: Sequence[str], config_name: str, multirun: bool = False) -> None:
    """Compose once before anything runs.

    Raises:
        InputError: an unknown key or choice (the nearest one named), a value of the wrong type, or a missing value.
    """
    require_safe_versions()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        compose_checked(arguments, config_name, multirun)


def compose_checked(arguments: Sequence[str], config_name: str, multirun: bool = False) -> Any:
    """The config, within Hydra's ``initialize_config_dir``; raises as `check` does."""
    try:
        overrides = OverridesParser.create().parse_overrides(list(arguments))
        for argument in arguments:
            refuse_foreign({"an argument": argument}, "the command line")
        check_files(overrides, CONFIGS)
        if sweep := next((o for o in overrides if o.is_sweep_override() and not multirun), None):
            raise InputError(f"{sweep.input_line} means several runs: add -m; a list is written key=[a,b]")
        for further in _further_choices(overrides):
            check_composed(compose(config_name, overrides=further), {o.key_or_group for o in overrides})
        config = compose(config_name, overrides=[_first_of_sweep(o) for o in overrides])
        check_composed(config, {o.key_or_group for o in overrides})
        if extra := next(_unlisted(config), None):  # + writes any key
            raise unknown("key", extra, set(_dotted(OmegaConf.to_container(config))) - set(_unlisted(config)))
    except (HydraException, OmegaConfBaseException) as error:
        raise _rephrase(error, overrides_of=arguments, config_name=config_name) from error
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise InputError(f"no value for {missing[0]!r}; give it as {missing[0]}=...")
    return config


def _further_choices(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """Overrides with each but the first of the files that a sweep is over; of all else the first value."""
    first = [_first_of_sweep(o) for o in overrides]
    for i, override in enumerate(overrides):
        if override.is_sweep_override() and (CONFIGS / override.key_or_group).is_dir():
            for value in list(override.sweep_string_iterator())[1:]:
                yield [*first[:i], f"{override.get_key_element()}={value}", *first[i + 1 :]]


def _first_of_sweep(override: Override) -> str:
    if not override.is_sweep_override():
        return str(override.input_line)
    return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"


def _rephrase(error: Exception, overrides_of: Sequence[str], config_name: str) -> InputError:
    """Hydra's several lines as one, with the nearest legal name."""
    text = str(error)
    if isinstance(error, MissingConfigException) and "/" in str(error.missing_cfg_file):
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if choice in EXTRAS:
            return InputError(f"{group} needs a plugin of Hydra: pip install 'kravl[{EXTRAS[choice]}]'")
        return unknown(group, choice, experiments() if group == "experiment" else error.options or ())
    place = re.search(r"In '([^']+)'", text)
    where = f" in configs/{place[1]}.yaml" if place and place[1] != config_name else ""
    if wrong := re.search(r"full_key: (\S+)", text) if "not in" in text else re.search(r"override '([^']+)'", text):
        if f"+{wrong[1]}" in (argument.partition("=")[0] for argument in overrides_of):
            return InputError(f"+{wrong[1]}: the setting is there already; write {wrong[1]}=... without +")
        return unknown(f"key{where}", wrong[1], _legal_keys(overrides_of, config_name))
    if isinstance(error, OverrideParseException):
        return InputError(f"cannot read {error.override!r}: {first_line(error)}")
    because = f": {first_line(error.__cause__)}" if error.__cause__ else ""
    return InputError(f"{first_line(error)}{because}")


def _legal_keys(arguments: Sequence[str], config_name: str) -> set[str]:
    """Groups, and the dotted keys of the config with its groups as chosen."""
    loader = GlobalHydra.instance().config_loader()
    groups = {group for group in loader.list_groups("") if group != "hydra"}
    choices = [a for a in arguments if a.split("=")[0] in groups and "," not in a]
    try:
        config = compose(config_name, overrides=choices)
    except HydraException:
        config = compose(config_name)
    return groups | set(_dotted(OmegaConf.to_container(config)))


def _unlisted(node: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a composed config that its schema has not."""
    schema = OmegaConf.get_type(node)
    listed = {f.name for f in fields(schema)} if is_dataclass(schema) else set(node)
    for key in node:
        if key not in listed:
            yield f"{prefix}{key}"
        elif OmegaConf.is_dict(child := node._get_node(key)):
            yield from _unlisted(child, f"{prefix}{key}.")


def _dotted(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _dotted(value, f"{prefix}{key}.")
