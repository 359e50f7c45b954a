"""A finished run's model again, from the config and the adapter in its folder."""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from kravl.adapters.store import load_adapters
from kravl.assemble import Parts, assemble
from kravl.config import Config
from kravl.errors import InputError, first_line
from kravl.record import RunFolder


def saved_config(folder: RunFolder, changes: Mapping[str, Any]) -> Config:
    """The config that the run was started with, merged with ``changes``.

    Raises:
        InputError: it is no longer one, or the changes do not fit it.
    """
    try:
        saved: Any = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(folder.path / "config.yaml"), changes)
    except (OmegaConfBaseException, YAMLError) as error:
        raise InputError(f"{folder.path}/config.yaml does not fit: {first_line(error)}") from error
    return saved


def restore(cfg: Config, folder: RunFolder) -> Parts:
    """The parts of a run, with what it trained in place.

    Raises:
        InputError: as `assemble` and `load_adapters`.
    """
    parts = assemble(cfg)
    load_adapters(parts.adapters, folder.adapter)
    return parts
