"""What a config file may contain, read as data before Hydra composes it.

A config may refer to its own settings and to environment variables that name a folder. Hydra itself copies each YAML
alias, resolves environment variables, and takes its own settings (loggers, launchers, environment variables) from any
file. Those may create objects, so only the command line may set them.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from kravl.config.schema import CACHE
from kravl.runtime.errors import InputError, require_name
from kravl.runtime.files import read_yaml

# innermost first: each legal interpolation is replaced by a letter until none is left
REFERENCE = re.compile(r"\$\{\s*\.*[\w.\[\]-]+\s*\}")
NAMED = re.compile(r"\$\{\s*(?:images|named_after|own_set|backbone_name)\s*:[^${}]*\}")  # kravl's own, which make names
# a variable such as SCRATCH_DIR, and never one that may hold a key
FOLDER = re.compile(
    r"\$\{\s*oc\.env\s*:\s*(?:\w*_)?(?:HOME|DIR|ROOT|PATH|DATA|SCRATCH|WORK|CACHE|TMP)\s*(?:,[^${}]*)?\}"
)
SHOWN = 80
OUTPUTS = ("runs", "out", "cache_root")  # folders that are written to
NAMES = ("name", "method", "backbone.name", "data.name", "evaluation.name")
HEADER = re.compile(r"^\s*#\s*@package\s+(\S+)", re.MULTILINE)


def check_interpolations(tree: Any, what: str) -> None:
    """Check every text of ``tree``, a config that is not resolved; ``what`` is what errors call it.

    Raises:
        InputError: an interpolation that reads anything but settings and folders, with its key.
    """
    for key, text in _texts(tree):
        reduced = text
        while reduced != (reduced := NAMED.sub("x", FOLDER.sub("x", REFERENCE.sub("x", reduced)))):
            pass
        if "${" in reduced:
            raise InputError(
                f"{what}: {key or 'a value'} is {text[:SHOWN]!r}; a config may refer to its own settings and to "
                "environment variables that name a folder (…HOME, …DIR, …ROOT), such as ${oc.env:DATA_ROOT}"
            )


def _texts(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and text of each string below ``tree``, the names of keys included."""
    if isinstance(tree, str):
        yield key, tree
    elif isinstance(tree, Mapping):
        for name, value in tree.items():
            place = f"{key}.{name}" if key else str(name)
            yield place[:SHOWN], str(name)
            yield from _texts(value, place)
    elif isinstance(tree, list | tuple):
        for position, value in enumerate(tree):
            yield from _texts(value, f"{key}[{position}]")


def check_config_files(overrides: Sequence[Override], folder: Path) -> None:
    """Read each file below ``folder`` that an override such as ``experiment=NAME`` names, and those that it names.

    Raises:
        InputError: one is not plain data of bounded size, has a forbidden interpolation, or configures Hydra.
    """
    pending = [(key, choice) for o in overrides for key, choice in _choices(o) if (folder / key).is_dir()]
    seen = set()
    while pending:
        group, choice = pending.pop()
        path = folder / group / f"{choice.removesuffix('.yaml')}.yaml"
        if path in seen or not path.is_file():  # composing refuses an unknown choice and names the nearest
            continue
        seen.add(path)
        tree = read_yaml(path)
        check_interpolations(tree, str(path))
        listed = tree.get("defaults") or []
        if not group.startswith("hydra/"):  # a launcher or sweeper was typed, as no other file may name one
            _refuse_hydra(path, tree, listed)
        pending += list(_listed(path, group, listed))


def check_composed(config: Any, typed: Collection[str]) -> None:
    """Check the composed settings other than those ``typed`` on the command line.

    Raises:
        InputError: a file allows another package or chooses an outside folder, or a name is not a plain one.
    """
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    if plain.get("plugins") and "plugins" not in typed:
        raise InputError(f"a config file allows plugins={plain['plugins']}; only the command line may")
    for key in OUTPUTS:
        if key not in typed and plain.get(key) not in (None, "???", CACHE):
            place = str(OmegaConf.select(config, key))
            if place.startswith(("/", "~")) or ".." in Path(place).parts:
                raise InputError(
                    f"a config file sets {key}={place!r}, outside of this folder; give it on the command line"
                )
    for key in NAMES:
        if (name := OmegaConf.select(config, key)) is not None:
            require_name(key, name)
    for name in OmegaConf.select(config, "evaluation.sets") or {}:
        require_name("evaluation set", name)


def _choices(override: Override) -> Iterator[tuple[str, str]]:
    if override.is_sweep_override():
        values: list[Any] = list(override.sweep_string_iterator())
    else:
        value = override.value()
        values = value if isinstance(value, list) else [value]
    group = override.key_or_group.lstrip("/")
    if ".." not in group:
        yield from ((group, str(value)) for value in values)


def _refuse_hydra(path: Path, tree: Any, listed: Any) -> None:
    package = HEADER.search(path.read_text(encoding="utf-8"))
    if (package and "hydra" in package[1]) or "hydra" in str(listed) or "hydra" in set(_keys(tree)):
        raise InputError(f"{path} configures Hydra, which may run code; only the command line may: hydra.KEY=...")


def _keys(tree: Any) -> Iterator[str]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield re.split(r"[./@]", str(key))[0]
            yield from _keys(value)


def _listed(path: Path, group: str, listed: Any) -> Iterator[tuple[str, str]]:
    """Group and choice of each entry of a file's defaults list."""
    if not isinstance(listed, list):
        raise InputError(f"{path}: defaults must be a list")
    for entry in listed:
        pairs = entry.items() if isinstance(entry, dict) else [(group, entry)]
        for key, choices in pairs:
            place = re.sub(r"^((override|optional)\s+)*", "", str(key)).split("@")[0]
            absolute = place.removeprefix("/") if place.startswith("/") else f"{group}/{place}"
            for choice in choices if isinstance(choices, list) else [choices]:
                if not isinstance(entry, dict) and "/" in str(choice):
                    absolute, _, choice = str(choice).rpartition("/")
                    absolute = absolute.removeprefix("/") if absolute.startswith("/") else f"{group}/{absolute}"
                if ".." in f"{absolute}/{choice}" or "${" in f"{absolute}/{choice}":
                    raise InputError(f"{path}: defaults name {absolute}/{choice}; name a file of configs directly")
                yield absolute, str(choice)
