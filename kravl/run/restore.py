"""A run's folder back into its parts, and an unfinished run resumed."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kravl.adapters.injection.serialization import load_adapters
from kravl.config.schema import Config
from kravl.config.untrusted import refuse_foreign
from kravl.run.build import Parts, assemble
from kravl.runtime.errors import InputError, first_line
from kravl.runtime.files import read_yaml
from kravl.tracking.run_folder import RunFolder, deciding, settings_in

log = logging.getLogger(__name__)
LISTED = 12
Settings = Mapping[str, Any]


def to_go_on(run: str, config: Settings, force: bool) -> Path:
    """The folder ``run``, whose settings ``config`` has, or replaces where ``force`` is true.

    Raises:
        InputError: no run, or one that was started with other settings, each of them named.
    """
    path = Path(run)
    differences = changes(_settings(path), config)
    if differences and not force:
        named = "; ".join(differences[:LISTED]) + (
            f"; and {len(differences) - LISTED} more" * (len(differences) > LISTED)
        )
        raise InputError(
            f"{path} was started with other settings: {named}. Without resume= this is a run of its own; "
            "force=true goes on with the new settings"
        )
    for line in differences:
        log.warning("going on with %s", line)
    return path


def mention_unfinished(path: Path, config: Settings) -> None:
    """Say which unfinished runs of the same name and seed were started with other settings: a typo, or on purpose."""
    for other in sorted(path.parent.glob(f"{path.name.partition('-')[0]}-*")):
        folder = RunFolder(other)
        if other == path or folder.finished or not any(folder.checkpoints.glob("*.ckpt")):
            continue
        try:
            differences = changes(settings_in(other), config)
        except InputError:
            continue
        told = _listed(differences)
        log.info("%s is unfinished and another run: %s (resume=%s force=true goes on there)", other, told, other)


def changes(saved: Settings, config: Settings) -> list[str]:
    """``key: old -> new`` of each setting that decides the results and differs."""
    ours, theirs = dict(_dotted(deciding(config))), dict(_dotted(deciding(saved)))
    keys = [key for key in theirs | ours if theirs.get(key, ...) != ours.get(key, ...)]
    return [f"{key}: {theirs.get(key, 'nothing')} -> {ours.get(key, 'nothing')}" for key in keys]


def _listed(differences: Sequence[str]) -> str:
    more = [f"and {len(differences) - LISTED} more"] if len(differences) > LISTED else []
    return "; ".join([*differences[:LISTED], *more])


def _settings(path: Path) -> Settings:
    file = path / "config.yaml"
    if not file.is_file():
        raise InputError(f"resume={path}: there is no run in this folder, {file} is missing")
    return settings_in(path)


def _dotted(node: Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


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
