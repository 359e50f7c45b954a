"""A finished run's model again, from the config and the adapter in its folder."""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kravl.adapters.injection.serialization import load_adapters
from kravl.assemble import Parts, assemble
from kravl.config.schema import Config
from kravl.config.untrusted import refuse_foreign
from kravl.runtime.errors import InputError, first_line
from kravl.runtime.files import read_yaml
from kravl.tracking.run_folder import RunFolder


def saved_config(folder: RunFolder, changes: Mapping[str, Any]) -> Config:
    """The config that the run was started with, merged with ``changes``; packages to build from are those of these.

    Raises:
        InputError: it is no longer one, refers to what a config must not, or the changes do not fit it.
    """
    path = folder.path / "config.yaml"
    written = read_yaml(path)
    refuse_foreign(OmegaConf.to_container(written), str(path))
    try:
        saved: Any = OmegaConf.merge(OmegaConf.structured(Config), written, {"plugins": []}, changes)
    except (OmegaConfBaseException, ValueError) as error:
        raise InputError(f"{path} does not fit: {first_line(error)}") from error
    return saved


def restore(cfg: Config, folder: RunFolder) -> Parts:
    """The parts of a run, with what it trained in place.

    Raises:
        InputError: as `assemble` and `load_adapters`.
    """
    parts = assemble(cfg)
    load_adapters(parts.adapters, folder.adapter, parts.facts)
    return parts
