"""A finished run's model again, from the config and the adapter in its folder."""

from collections.abc import Mapping
from typing import Any

from kravl.adapters.injection.serialization import load_adapters
from kravl.config.compose import merged
from kravl.config.schema import Config
from kravl.config.untrusted import check_interpolations, without_rights
from kravl.run.build import Run, build_run
from kravl.runtime.dtypes import TRUE
from kravl.runtime.errors import InputError
from kravl.runtime.files import read_yaml
from kravl.tracking.run_folder import RunFolder


def saved_config(folder: RunFolder, changes: Mapping[str, Any]) -> Config:
    """The config that the run was started with, merged with ``changes``.

    An evaluation among them replaces the run's own; packages to build from are those of the changes alone.

    Raises:
        InputError: it is no longer one, refers to what a config must not, or the changes do not fit it.
    """
    path = folder.path / "config.yaml"
    written = read_yaml(path)
    check_interpolations(written, str(path))
    if "evaluation" in changes:  # in place of the run's own, not beside its sets
        written.pop("evaluation", None)
    try:
        return merged(without_rights(written), changes)
    except InputError as error:
        raise InputError(f"{path} does not fit: {error}") from error


def restore(cfg: Config, folder: RunFolder) -> Run:
    """The model and data of a finished run, with what it trained in place, in the precision of its weights.

    Raises:
        InputError: as `build_run` and `load_adapters`.
    """
    run = build_run(cfg)
    if dtype := TRUE.get(str(cfg.trainer.get("precision"))):  # first: what was trained in double would be rounded
        run.classifier.to(dtype)
    load_adapters(run.adapters, folder.adapter, run.fingerprint)
    return run
