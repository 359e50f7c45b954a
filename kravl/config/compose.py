"""Compose and check a command line, once before anything runs."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from kravl.config.checks import check_bounds, check_choices, check_sweeps
from kravl.config.config_source import hold_files
from kravl.config.hydra_errors import dotted, omegaconf_error, rephrase
from kravl.config.model_name import backbone_name, with_backbone_name
from kravl.config.schema import CONFIGS, SCHEMAS, Config
from kravl.config.untrusted import check_composed, check_hydra, check_interpolations
from kravl.runtime.errors import InputError, first_line, require_safe_versions, unknown
from kravl.runtime.yaml_files import read_yaml

SHOTS = (1, 2, 4, 8, 16)
TABLES = (".csv", ".tsv", ".txt", ".jsonl")
TRAINING = ("train", "training", "images")  # folders whose name says nothing of what is in them, in lower case
UNREADABLE = "a defaults list, or settings of Hydra's own, that Hydra cannot read"
LONGEST_NAME = 100  # of a data set; the name of a run has it and more, and is that of a folder


def methods() -> list[str]:
    """The names of the shipped methods: an adapter, or other parameters to train, with fixed hyper-parameters."""
    return _names("method")


def experiments() -> list[str]:
    """The names of the shipped experiment files, and of every combination of a backbone, a method and 1 to 16 shots."""
    grid = product(_names("backbone"), _names("method"), SHOTS)
    return _names("experiment") + [f"{backbone}_{method}_{shots}shot" for backbone, method, shots in grid]


def register_resolvers() -> None:
    """Let OmegaConf know the interpolations that make names, which the config of a run refers to."""
    OmegaConf.register_new_resolver("images", _images, replace=True)
    OmegaConf.register_new_resolver("named_after", _named_after, replace=True)
    OmegaConf.register_new_resolver("own_set", _own_set, replace=True)
    OmegaConf.register_new_resolver("backbone_name", backbone_name, replace=True)


def register_configs(chosen: Iterable[str] = ()) -> None:
    """Register the schemas with Hydra, and those ``chosen`` experiments that are a ``<backbone>_<method>_<shots>shot``.

    Such an experiment is a composition, on ImageNet and its shifts; a file for each would only repeat its name.
    """
    hold_files()
    register_resolvers()
    store = ConfigStore.instance()
    for name, schema in SCHEMAS.items():
        store.store(name=f"{name}_schema", node=schema)
    for name in chosen:
        for backbone, method in product(_names("backbone"), _names("method")):
            if shots := re.fullmatch(f"{backbone}_{method}_([1-9][0-9]*)shot", name):
                choices = {"backbone": backbone, "method": method, "data": "imagenet", "evaluation": "imagenet_ood"}
                defaults: list[Any] = [{f"override /{group}": choice} for group, choice in choices.items()]
                # interpolated: it follows changes on the command line
                label = "${backbone.name}_${label}_${images:${shots},${fraction}}"
                node = {"defaults": [*defaults, "_self_"], "shots": int(shots[1]), "name": label}
                store.store(group="experiment", name=name, package="_global_", node=node)


def _images(shots: int | None, fraction: float | None) -> str:
    """How many images a run trains on, as written in its name: 16shot, fraction0.5 or all."""
    if shots is not None:
        return f"{shots}shot"
    return "all" if fraction is None else f"fraction{fraction}"


def _named_after(folder: str | None) -> str:
    """The last part of a path as a name for tables and files."""
    if folder is None:
        raise InputError("no value for 'evaluation.root'; give it as evaluation.root=...")
    return _plain_name(Path(folder).absolute().name) or "folder"


def _own_set(place: str | None, part: str | None = None) -> str:
    """The name of a data set of one's own, so that two of them are two in tables and in the names of runs.

    Args:
        place: its folder (``photos/train`` is photos), its table (``photos/list.csv``), or its name at a hub.
        part: what is taken of it, unless that is its training images.
    """
    if place is None:  # asked for when the settings are checked
        return "own"
    path = Path(place).absolute()
    if path.suffix.lower() in TABLES:
        name = f"{path.parent.name}_{path.stem}"
    elif re.fullmatch(r"[\w.-]*\w/\w[\w.-]*", place) and not path.is_dir():
        name = place
    else:
        name = path.parent.name if path.name.lower() in TRAINING else path.name
    if part is not None and Path(part).name.lower() not in ("", *TRAINING):
        name = f"{name}_{Path(part).absolute().name}"
    return _plain_name(name) or "own"


def _plain_name(name: str) -> str:
    """``name`` as `kravl.runtime.errors.require_name` allows it, or empty."""
    return re.sub(r"[^\w.+-]", "_", unicodedata.normalize("NFC", name)).lstrip(".+-")[:LONGEST_NAME]


def _names(group: str) -> list[str]:
    return sorted(p.stem for p in (CONFIGS / group).glob("*.yaml"))


@contextmanager
def composing() -> Iterator[None]:
    """Within the block Hydra composes the files of ``configs``, each read as `kravl.config.config_source` does."""
    hold_files()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        yield


def check_command_line(
    arguments: Sequence[str], config_name: str, multirun: bool = False, complete: bool = True
) -> None:
    """Compose once before anything runs; ``arguments`` are those of `kravl.config.quoting.as_overrides`.

    Args:
        multirun: whether ``-m`` is given, so that a value may be a sweep.
        complete: whether a run follows, for which no value may be missing.

    Raises:
        InputError: an unknown key or choice (the nearest one named), a value of the wrong type or out of its bounds, a
            missing value, or a file that says what the command line alone may say.
    """
    require_safe_versions()
    with composing():
        compose_checked(arguments, config_name, multirun, complete)


def compose_checked(
    arguments: Sequence[str],
    config_name: str,
    multirun: bool = False,
    complete: bool = True,
    of_file: Sequence[str] = (),
) -> Any:
    """The config, within `composing`; takes and raises what `check_command_line` does.

    Args:
        of_file: settings before the ``arguments`` that a file gives, such as a study: they may say what a file may.
    """
    every = [*of_file, *arguments]
    try:
        overrides, by_hand = _parsed(every), _parsed(arguments)
        check_interpolations(every, "the settings" if of_file else "the command line")
        if sweep := next((o for o in overrides if o.is_sweep_override() and not multirun), None):
            raise InputError(f"{sweep.input_line} means several runs: add -m; a list is written key=[a,b]")
        if theirs := next((o for o in _parsed(of_file) if o.is_hydra_override()), None):  # a search path is imported
            raise InputError(f"{theirs.input_line} sets Hydra up, which may run code; only the command line may")
        hydra_typed = [str(o.input_line) for o in by_hand if o.is_hydra_override()]
        check_choices(overrides, _names)
        if multirun:  # what Hydra sets its sweeper and launcher up by
            plain = [str(o.input_line) for o in overrides if not o.is_sweep_override()]
            check_hydra(compose(config_name, plain, True), _frame(config_name, *hydra_typed), hydra_typed)
        keys = {o.key_or_group for o in by_hand}
        combined = _combinations(overrides)
        config = _one(config_name, next(combined), keys, hydra_typed, complete)
        for further in combined:
            _one(config_name, further, keys, hydra_typed, complete)
        check_sweeps(config, overrides, config_name)
    except (HydraException, OmegaConfBaseException) as error:
        raise rephrase(error, every, config_name, experiments) from error
    except RecursionError as error:
        raise InputError(f"a config file names itself in its defaults, {_chosen(every)}") from error
    except (AssertionError, AttributeError, TypeError) as error:
        if not _is_hydras(error):
            raise
        raise InputError(f"a config file has {UNREADABLE}, {_chosen(every)}") from error
    return config


def _is_hydras(error: Exception) -> bool:
    """Whether Hydra's own code fails.

    It asserts that choices are texts once one of them is overridden, and takes its own node for what its schema says.
    """
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith(("hydra.", "omegaconf."))


def _one(
    config_name: str, overrides: list[str], by_hand: Collection[str], hydra_typed: list[str], complete: bool
) -> Any:
    """The checked config of one run."""
    config = compose(config_name, overrides, return_hydra_config=True)
    check_hydra(config, _frame(config_name, *hydra_typed), hydra_typed)
    with open_dict(config):
        del config["hydra"]
    if OmegaConf.get_type(config) is not SCHEMAS[config_name]:
        raise InputError(f"a config file stands in for the schema of {config_name}; rename it")
    if complete and (missing := sorted(OmegaConf.missing_keys(config))):
        raise InputError(f"no value for {missing[0]!r}; give it as {missing[0]}=...")
    check_composed(config, by_hand)
    if extra := next(_unlisted(config), None):  # + writes any key
        raise unknown("key", extra, set(dotted(OmegaConf.to_container(config))) - set(_unlisted(config)))
    check_bounds(config)
    return config


def _frame(config_name: str, *hydra_typed: str) -> Any:
    """The config with Hydra's own overrides alone, and without any file that a user could choose."""
    return _frame_of(CONFIGS, config_name, hydra_typed)


@lru_cache(maxsize=8)
def _frame_of(configs: Path, config_name: str, hydra_typed: tuple[str, ...]) -> Any:
    listed = read_yaml(configs / f"{config_name}.yaml")["defaults"]
    groups = [group for entry in listed if isinstance(entry, Mapping) for group in entry if " " not in group]
    return compose(config_name, [*hydra_typed, *(f"~{group}" for group in groups)], return_hydra_config=True)


def _parsed(arguments: Sequence[str]) -> list[Override]:
    return OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(list(arguments))


def _chosen(arguments: Sequence[str]) -> str:
    return f"directly or by way of another: {', '.join(a for a in arguments if _is_group(a.partition('=')[0]))}"


def _is_group(key: str) -> bool:
    return (CONFIGS / key.lstrip("+")).is_dir()


def typed(config: Any) -> Any:
    """The dataclass of `kravl.config.schema` that a composed config describes, every interpolation resolved.

    Raises:
        InputError: an interpolation of a setting that does not exist, or a value that is missing or out of its bounds.
    """
    try:
        check_bounds(config)
        return OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise omegaconf_error(error) from error


def merged(*settings: Mapping[str, Any]) -> Config:
    """The run's config that ``settings`` describe; later ones take precedence.

    Raises:
        InputError: they do not fit `Config`.
    """
    try:
        composed = OmegaConf.merge(OmegaConf.structured(Config), *settings)
    except (OmegaConfBaseException, ValueError) as error:
        raise InputError(first_line(error)) from error
    config: Config = typed(composed)
    return config


def as_written(config: Any) -> dict[str, Any]:
    """A composed config as plain data, its interpolations unresolved but for the backbone's name."""
    plain = {str(key): value for key, value in OmegaConf.to_container(config).items()}  # type: ignore[union-attr]
    return with_backbone_name(plain, config)


def _combinations(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """Overrides for each combination of the files that sweeps choose, with the first value of every other sweep."""
    return map(list, product(*([str(o.input_line)] if not o.is_sweep_override() else _values(o) for o in overrides)))


def _values(sweep: Override) -> list[str]:
    key = sweep.get_key_element()
    if sweep.is_interval_sweep():
        return [f"{key}={sweep.value().start}"]  # type: ignore[union-attr]
    values = [f"{key}={value}" for value in sweep.sweep_string_iterator()]
    if not values:
        raise InputError(f"{sweep.input_line} matches no file of configs/{sweep.key_or_group}")
    return values if _is_group(sweep.key_or_group) else values[:1]


def _unlisted(node: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a composed config that are not in its schema."""
    schema = OmegaConf.get_type(node)
    listed = {f.name for f in fields(schema)} if is_dataclass(schema) else set(node)
    for key in node:
        if key not in listed:
            yield f"{prefix}{key}"
        elif OmegaConf.is_dict(child := node._get_node(key)):
            yield from _unlisted(child, f"{prefix}{key}.")
