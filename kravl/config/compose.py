"""Compose and check a command line; Hydra's errors in one line, with the nearest legal name."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import product
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from kravl.config.model_name import backbone_name, with_backbone_name
from kravl.config.quoting import types_of
from kravl.config.schema import CONFIGS, SCHEMAS, Config
from kravl.config.untrusted import check_composed, check_config_files, check_interpolations
from kravl.runtime.errors import InputError, first_line, require_safe_versions, unknown

SHOTS = (1, 2, 4, 8, 16)
# plugin of Hydra -> extra of kravl
EXTRAS = {"joblib": "local", "submitit_local": "slurm", "submitit_slurm": "slurm", "optuna": "search"}

# what other tools call a setting
SYNONYMS = {
    "learning_rate": "lr",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "max_steps": "steps",
    "bs": "batch_size",
    "workers": "num_workers",
    "num_shots": "shots",
    "dataset": "data",
    "model": "backbone",
    "output_dir": "runs",
    "logger": "tracking",
}
WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list[str]": "a list such as [a,b]",
    "None": "null",
}
TABLES = (".csv", ".tsv", ".txt", ".jsonl")
TRAINING = ("train", "training", "images")  # folders whose name says nothing of what is in them, in lower case
LONGEST_NAME = 100  # of a data set; the name of a run has it and more, and is that of a folder
NULLS = {"shots": ", which is all images"}


def methods() -> list[str]:
    """The names of the shipped methods: an adapter, or other parameters to train, with fixed hyper-parameters."""
    return _names("method")


def experiments() -> list[str]:
    """The names of the shipped experiment files, and of every combination of a backbone, a method and 1 to 16 shots."""
    grid = product(_names("backbone"), _names("method"), SHOTS)
    return _names("experiment") + [f"{backbone}_{method}_{shots}shot" for backbone, method, shots in grid]


def register_configs(chosen: Iterable[str] = ()) -> None:
    """Register the schemas with Hydra, and those ``chosen`` experiments that are a ``<backbone>_<method>_<shots>shot``.

    Such an experiment is a composition, on ImageNet and its shifts; a file for each would only repeat its name.
    """
    OmegaConf.register_new_resolver("images", _images, replace=True)
    OmegaConf.register_new_resolver("named_after", _named_after, replace=True)
    OmegaConf.register_new_resolver("own_set", _own_set, replace=True)
    OmegaConf.register_new_resolver("backbone_name", backbone_name, replace=True)
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


def check_command_line(arguments: Sequence[str], config_name: str, multirun: bool = False) -> None:
    """Compose once before anything runs; ``arguments`` are those of `kravl.config.quoting.as_overrides`.

    Raises:
        InputError: an unknown key or choice (the nearest one named), a value of the wrong type, or a missing value.
    """
    require_safe_versions()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        compose_checked(arguments, config_name, multirun)


def compose_checked(arguments: Sequence[str], config_name: str, multirun: bool = False) -> Any:
    """The config, within Hydra's ``initialize_config_dir``; takes and raises what `check_command_line` does."""
    try:
        overrides = OverridesParser.create().parse_overrides(list(arguments))
        for argument in arguments:
            check_interpolations({"an argument": argument}, "the command line")
        check_config_files(overrides, CONFIGS)
        if sweep := next((o for o in overrides if o.is_sweep_override() and not multirun), None):
            raise InputError(f"{sweep.input_line} means several runs: add -m; a list is written key=[a,b]")
        for further in _further_choices(overrides):
            check_composed(compose(config_name, overrides=further), {o.key_or_group for o in overrides})
        config = compose(config_name, overrides=[_first_of_sweep(o) for o in overrides])
        if missing := sorted(OmegaConf.missing_keys(config)):
            raise InputError(f"no value for {missing[0]!r}; give it as {missing[0]}=...")
        check_composed(config, {o.key_or_group for o in overrides})
        if extra := next(_unlisted(config), None):  # + writes any key
            raise unknown("key", extra, set(_dotted(OmegaConf.to_container(config))) - set(_unlisted(config)))
    except (HydraException, OmegaConfBaseException) as error:
        raise _rephrase(error, overrides_of=arguments, config_name=config_name) from error
    return config


def typed(config: Any) -> Any:
    """The dataclass of `kravl.config.schema` that a composed config describes, every interpolation resolved.

    Raises:
        InputError: an interpolation of a setting that does not exist, or a value that is missing.
    """
    try:
        return OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise InputError(first_line(error)) from error


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


def _further_choices(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """Overrides for each further file that a sweep chooses, with the first value of every other sweep."""
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
    """Hydra's message in one line, with the nearest legal name."""
    if isinstance(error.__cause__, InputError):  # of a resolver of kravl
        return error.__cause__
    text = str(error)
    if missing := re.search(r"Missing mandatory value: ([\w.]+)", text):
        return InputError(f"no value for {missing[1]!r}; give it as {missing[1]}=...")
    if isinstance(error, MissingConfigException) and "/" in str(error.missing_cfg_file):
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if choice in EXTRAS:
            return InputError(f"{group} needs a plugin of Hydra: pip install 'kravl[{EXTRAS[choice]}]'")
        return unknown(group, choice, experiments() if group == "experiment" else error.options or ())
    place = re.search(r"In '([^']+)'", text)
    where = f" in configs/{place[1]}.yaml" if place and place[1] != config_name else ""
    if wrong := re.search(r"full_key: (\S+)", text) if "not in" in text else re.search(r"override '([^']+)'", text):
        if f"+{wrong[1]}" in (argument.partition("=")[0] for argument in overrides_of):
            return InputError(f"+{wrong[1]}: the setting exists already; write {wrong[1]}=... without +")
        return _unknown_key(f"key{where}", wrong[1], _legal_keys(overrides_of, config_name))
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, _legal_keys(overrides_of, config_name))
    if isinstance(error.__cause__, ValidationError) and (typed := re.match(r"Error merging override (.*)", text)):
        return _wrong_type(typed[1], config_name)
    because = f": {first_line(error.__cause__)}" if error.__cause__ else ""
    return InputError(f"{first_line(error)}{because}")


def _unknown_key(kind: str, key: str, legal: set[str]) -> InputError:
    """The nearest is one with the same last part, wherever it belongs, or with what it is called here."""
    last = key.rpartition(".")[2]
    same = [each for each in legal if each.rpartition(".")[2] == SYNONYMS.get(last, last)]
    return unknown(kind, key, legal, near=same)


def _wrong_type(override: str, config_name: str) -> InputError:
    """What the setting takes, by the schema; of what the schema leaves open, what the value is not."""
    key = override.partition("=")[0].lstrip("+")
    legal = [word for kind, word in WORDS.items() if kind in types_of(key, SCHEMAS[config_name])]
    null = NULLS.get(key, "") if "null" in legal else ""
    return InputError(f"{override.partition(': ')[0]}: it must be {' or '.join(legal) or 'of another type'}{null}")


def _unreadable(override: str, legal: set[str]) -> InputError:
    """What Hydra's grammar stops at: a key that there is not, or a list or mapping that does not end."""
    key = override.partition("=")[0].lstrip("+~")
    if key not in legal and not key.startswith("hydra"):
        return _unknown_key("key", key, legal)
    return InputError(f"cannot read {override!r}: a list is {key}=[a,b], a mapping {{a: 1}}, a text {key}='\"...\"'")


def _legal_keys(arguments: Sequence[str], config_name: str) -> set[str]:
    """Groups, and the dotted keys of the config with the chosen groups."""
    loader = GlobalHydra.instance().config_loader()
    groups = {group for group in loader.list_groups("") if group != "hydra"}
    choices = [a for a in arguments if a.split("=")[0] in groups and "," not in a]
    try:
        config = compose(config_name, overrides=choices)
    except HydraException:
        config = compose(config_name)
    return groups | set(_dotted(OmegaConf.to_container(config)))


def _unlisted(node: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a composed config that are not in its schema."""
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
