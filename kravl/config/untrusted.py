"""What a file may say: an experiment, a study, the config of a run's folder. The command line may say the rest.

A config may refer to its own settings and to environment variables that name a folder. It allows no package, steers no
run but its own, writes below the working folder alone, and does not set Hydra up, whose loggers, launchers, callbacks
and environment variables create objects. All of that is seen in what Hydra composes, not in the text of a file.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from kravl.config.schema import CACHE
from kravl.runtime.errors import InputError, require_name

# innermost first: each legal interpolation is replaced by a letter until none is left
REFERENCE = re.compile(r"\$\{\s*\.*[\w.\[\]-]+\s*\}")
NAMED = re.compile(r"\$\{\s*(?:images|named_after|own_set|backbone_name)\s*:[^${}]*\}")  # kravl's own, which make names
# a variable such as SCRATCH_DIR, and never one that may hold a key
FOLDER = re.compile(
    r"\$\{\s*oc\.env\s*:\s*(?:\w*_)?(?:HOME|DIR|ROOT|PATH|DATA|SCRATCH|WORK|CACHE|TMP)\s*(?:,[^${}]*)?\}"
)
SHOWN = 80
OUTPUTS = ("runs", "out", "cache_root")  # folders that are written to
# what the command line alone may say, at the value that does not say it
TYPED_ONLY: Mapping[str, Any] = {"plugins": [], "resume": None, "force": False, "overwrite": False, "run": "???"}
WORDS = ("study", "context_init")  # of a record besides names and templates
MARK = "\0environment"  # no YAML file and no argument has a NUL
NAMES = ("method", "label", "backbone.name", "data.name", "evaluation.name", "name")
# of Hydra's own settings those that it makes from the command line and from the machine, whatever a file says
MADE_BY_HYDRA = ("overrides", "runtime", "job.override_dirname")


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


def check_composed(config: Any, typed: Collection[str]) -> None:
    """Check the composed settings other than those ``typed`` on the command line.

    Raises:
        InputError: a file says what the command line alone may say, or writes elsewhere, or a name is not a plain one.
    """
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    for key, unsaid in TYPED_ONLY.items():
        if key not in typed and plain.get(key, unsaid) not in (unsaid, "???"):
            raise InputError(f"a config file sets {key}={str(plain[key])[:SHOWN]}; only the command line may")
    for key in OUTPUTS:
        if plain.get(key) not in (None, "???", CACHE):
            _check_place(key, str(OmegaConf.select(config, key)), key in typed)
    for key, folder in _downloads(config):
        if key not in typed:
            _check_place(key, folder, _is_below(folder, config, typed))
    for key in NAMES:
        if (name := OmegaConf.select(config, key)) is not None:
            require_name(key, name)
    for name in OmegaConf.select(config, "evaluation.sets") or {}:
        require_name("evaluation set", name)
    check_words(config)


def check_words(config: Any, what: str = "") -> None:
    """Check names and prompts, which records and reports show; errors begin with ``what``, whose config it is.

    Raises:
        InputError: one is made of an environment variable, directly or through other settings.
    """
    with _marked_environment():
        for key, text in (*_words(config), *_prompts(config)):
            if MARK in text:
                raise InputError(
                    f"{what}{key} is made of an environment variable, and records would show to others what it holds; "
                    "write it out: variables are for paths of images and weights"
                )


@contextmanager
def _marked_environment() -> Iterator[None]:
    """Within the block every environment variable reads as a mark."""
    OmegaConf.register_new_resolver("oc.env", lambda *_: MARK, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def _words(config: Any) -> Iterator[tuple[str, str]]:
    for key in (*NAMES, *WORDS):
        with suppress(OmegaConfBaseException):  # it cannot be resolved, which is told elsewhere
            yield key, str(OmegaConf.select(config, key))


def _prompts(config: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Key and text of the prompts below ``config``; a path of a file of them is none."""
    for name in config if OmegaConf.is_dict(config) and not config._is_none() and not config._is_missing() else ():
        place = f"{key}.{name}".lstrip(".")
        if OmegaConf.is_dict(config._get_node(name)):
            yield from _prompts(config._get_node(name), place)
        elif name == "templates":
            with suppress(OmegaConfBaseException):
                value = OmegaConf.select(config, str(name))
                text = str(OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value)
                if "{}" in text:
                    yield place, text


def without_rights(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The ``settings`` in a run's folder, without what a file cannot say: another command gave it, for another run."""
    kept = {key: value for key, value in settings.items() if key not in (*TYPED_ONLY, *OUTPUTS)}
    return {key: _without_downloads(value) for key, value in kept.items()}


def check_hydra(composed: Any, frame: Any, typed: Sequence[str]) -> None:
    """Compare the whole node ``hydra`` of a composed config with the ``frame``, composed without anybody's files.

    Args:
        typed: Hydra's own overrides on the command line.

    Raises:
        InputError: they differ, and in what.
    """
    found, expected = (_own_part(node) for node in (composed, frame))
    differing = sorted(key for key in found | expected if found.get(key, ...) != expected.get(key, ...))
    if list(OmegaConf.select(composed, "hydra.overrides.hydra")) != list(typed):
        differing.append("overrides")
    if differing:
        raise InputError(
            f"a config file sets Hydra up (hydra.{differing[0][:SHOWN]}), which may run code; "
            "only the command line may: hydra.KEY=..."
        )


def _own_part(composed: Any) -> dict[str, Any]:
    """Dotted key -> value of Hydra's settings that a file could have set."""
    leaves = dict(_leaves(OmegaConf.to_container(composed.hydra)))
    made = tuple(f"{key}." for key in MADE_BY_HYDRA)
    return {key: value for key, value in leaves.items() if not f"{key}.".startswith(made)}


def _leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping) and tree:
        for name, value in tree.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, tree


def _check_place(key: str, place: str, typed: bool) -> None:
    """Raise InputError for a folder to write to that has no name, or that a file chooses outside of this one."""
    if not place.strip() or "\0" in place:
        raise InputError(f"{key}={place!r} is no folder; give one, such as {key}=runs")
    if not typed and (place.startswith("~") or not _lies_in(place, Path.cwd())):
        raise InputError(
            f"a config file sets {key}={place[:SHOWN]!r}, outside of this folder; give it on the command line"
        )


def _lies_in(place: str, folder: Path) -> bool:
    return Path(os.path.normpath(Path.cwd() / place)).is_relative_to(os.path.normpath(Path.cwd() / folder))


def _is_below(place: str, config: Any, typed: Collection[str]) -> bool:
    """Whether a data set is downloaded to the folder of all sets, typed on the command line."""
    root = OmegaConf.select(config, "data_root")
    return "data_root" in typed and isinstance(root, str) and _lies_in(place, Path(root))


def _downloads(config: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Key and folder of each data set below ``config`` that is downloaded where it is not there."""
    if not OmegaConf.is_dict(config) or config._is_none():
        return
    if "download" in config and OmegaConf.select(config, "download") not in (False, None):
        yield f"{key}.root".lstrip("."), str(OmegaConf.select(config, "root"))
    for name in config:
        yield from _downloads(config._get_node(name), f"{key}.{name}")


def _without_downloads(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_without_downloads(value) for value in tree]
    if not isinstance(tree, Mapping):
        return tree
    return {key: False if key == "download" else _without_downloads(value) for key, value in tree.items()}
