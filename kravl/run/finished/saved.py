"""The config of a finished run, as its folder has it; nothing here loads torch."""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from kravl.config.compose import as_written, merged, register_resolvers, typed
from kravl.config.schema import Config
from kravl.config.untrusted import check_interpolations, check_words, without_rights
from kravl.runtime.errors import InputError
from kravl.runtime.files import json_object, read_text
from kravl.runtime.yaml_files import read_yaml
from kravl.tracking.run_folder import RunFolder, find_run

CHANGED = ("evaluation", "trainer", "loading", "cache_root", "plugins")  # by an evaluation, of the run's own settings


def saved_config(folder: RunFolder, changes: Mapping[str, Any]) -> Config:
    """The config that the run was started with, merged with ``changes``.

    An evaluation among them replaces the run's own; packages to build from are those of the changes alone.

    Raises:
        InputError: it is no longer one, refers to what a config must not, or the changes do not fit it.
    """
    path = folder.path / "config.yaml"
    written = read_yaml(path)
    check_interpolations(written, str(path))
    check_words(OmegaConf.create(written), f"{path}: ")
    if "evaluation" in changes:  # in place of the run's own, not beside its sets
        written.pop("evaluation", None)
    register_resolvers()
    try:
        return merged(without_rights(written), changes)
    except InputError as error:
        raise InputError(f"{path} does not fit: {error}") from error


def seen_classes(folder: RunFolder) -> tuple[str, ...]:
    """Names of the classes that a run was trained on, and the runs before it that it started from (``init``).

    Empty of a run of a release that kept no model.json.

    Raises:
        InputError: that file is not one of kravl's.
    """
    path = folder.path / "model.json"
    if not path.is_file():
        return ()
    content = json_object(read_text(path), str(path))
    names: list[Any] = []
    for key in ("class_names", "seen"):
        listed = content.get(key, [])
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise InputError(f"{path} is not what kravl writes: {key}")
        names += listed
    return tuple(dict.fromkeys(names))


def evaluated_config(config: Any) -> Config:
    """The config of the run that ``config``, of an evaluation, names, with what this changes.

    Raises:
        InputError: no such run, or as `saved_config`.
    """
    settings, cfg = as_written(config), typed(config)
    changes = {key: settings[key] for key in (*CHANGED, *(["data_root"] if cfg.data_root else []))}
    return saved_config(find_run(cfg.run), changes)
