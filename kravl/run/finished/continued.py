"""A run that starts from what a finished one has trained: ``init=RUN``."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kravl.adapters.injection.serialization import describe_difference, read_adapters
from kravl.adapters.injection.sites import select_sites
from kravl.config.schema import Config
from kravl.run.build import Run, classes_digest, planned
from kravl.run.finished.model_record import read_model_record
from kravl.run.finished.restore import saved_config
from kravl.run.stages.plan import stages_of
from kravl.runtime.dtypes import refuse_other_dtypes
from kravl.runtime.errors import InputError, some_of
from kravl.tracking.records import record_of
from kravl.tracking.run_folder import RunFolder, find_run

log = logging.getLogger(__name__)
COMPARED = ("method", "hyperparameters", "sites")


def check_init(cfg: Config) -> None:
    """Hold the adapters of ``init`` against those of this run before any weight is loaded.

    Raises:
        InputError: no such run, one with a damaged record or without training here, or another backbone, method or
            sites.
    """
    if cfg.init is None:
        return
    if not cfg.optim.trains:
        raise InputError(f"init={cfg.init} without training would be that run again: kravl evaluate run={cfg.init}")
    if cfg.head:
        raise InputError(f"init={cfg.init}: method={cfg.method} fits its head anew on features; leave init out")
    folder = find_run(cfg.init)
    record_of(folder)
    known = saved_config(folder, {"plugins": cfg.plugins})
    if known.head:
        raise InputError(f"init={cfg.init} is a run of method={known.method}, a head on features: it has no adapters")
    for key in ("context_tokens", "context_per_class", "linear_head"):
        if getattr(known, key) != getattr(cfg, key):
            raise InputError(
                f"init={cfg.init} has {key}={getattr(known, key)}, and this run {key}={getattr(cfg, key)}: they train "
                "other parameters"
            )
    build, own = known.backbone.build, cfg.backbone.build
    for key in sorted((build.keys() & own.keys() - {"_target_"}) | {"dtype"}):
        if build.get(key) != own.get(key):
            raise InputError(f"init={cfg.init} is of another backbone: {key} {build.get(key)}, and not {own.get(key)}")
    if (description := _planned_description(cfg)) is not None:
        _compare(cfg, read_adapters(folder.adapter)[0], description)


def start_from_init(cfg: Config, run: Run) -> None:
    """Put the adapters of ``init`` in place of the untrained ones, and rows of a head for classes that both have.

    Raises:
        InputError: they are of other base weights, or of other parameters that train, or of another kind of number.
    """
    if cfg.init is None:
        return
    folder = find_run(cfg.init)
    record, saved = read_adapters(folder.adapter)
    _compare(cfg, record, run.adapters.description())
    current = run.adapters.state_dict()
    if current.keys() != saved.keys():
        differing = some_of(sorted(current.keys() ^ saved.keys()), 5)
        raise InputError(f"init={cfg.init} trained other parameters: {differing}")
    if record.get("base_sha256") != run.adapters.base_sha256({name: tuple(t.shape) for name, t in saved.items()}):
        raise InputError(f"init={cfg.init} was trained from other base weights than {cfg.backbone.name} has here")
    head = _head_names(run)
    if other := [name for name, value in saved.items() if name not in head and value.shape != current[name].shape]:
        shapes = f"{tuple(saved[other[0]].shape)}, not {tuple(current[other[0]].shape)}"
        raise InputError(f"init={cfg.init} has a {other[0]} of {shapes}")
    refuse_other_dtypes(f"init={cfg.init}", current, saved)
    rows = _shared_rows(cfg, folder, record, run.source.class_ids) if head else {}
    run.adapters.load_state_dict(
        {name: _with_rows(current[name], saved[name], rows) if name in head else saved[name] for name in current}
    )
    if head:
        log.info("init=%s: rows of the head for %d of %d classes", cfg.init, len(rows), len(run.source.class_ids))
    if any(stage.starts_head for stage in stages_of(cfg)):
        log.info("the head starts from the text features that the stages before it leave, not from that of init")
    log.info("training starts from %s", folder.path)


def init_record(cfg: Config, folder: RunFolder) -> dict[str, Any]:
    """What metrics.json says of ``init``: nothing where it is not used."""
    if cfg.init is None:
        return {}
    return {"init": {"run": "/".join(Path(cfg.init).resolve().parts[-2:]), "adapter": folder.settings["init"]}}


def _planned_description(cfg: Config) -> Mapping[str, Any] | None:
    """Method, hyper-parameters and sites of this run's adapters, from the model without its weights."""
    encoder, placement = planned(cfg, 2)  # however many classes
    if encoder is None or placement is None:
        return None
    shapes = {site.name: [*site.weight.shape] for site in select_sites(encoder, placement.targets)}
    if not shapes:
        return {"method": None, "hyperparameters": {}, "sites": {}}
    with torch.random.fork_rng(devices=[]):
        first = placement.make_adapter(*next(iter(shapes.values())))
    method = f"{type(first).__module__}.{type(first).__qualname__}"
    return {"method": method, "hyperparameters": first.hyperparameters(), "sites": shapes}


def _compare(cfg: Config, record: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    for key in COMPARED:
        if record.get(key) != description[key]:
            difference = describe_difference(key, record.get(key), description[key])
            raise InputError(f"init={cfg.init} does not fit this run: {difference}")


def _head_names(run: Run) -> set[str]:
    """Parameters that train and have a row for each class."""
    head = {id(parameter) for parameter in run.classifier.head_parameters()}
    return {name for name, parameter in run.adapters.unfrozen.items() if id(parameter) in head}


def _shared_rows(cfg: Config, folder: RunFolder, record: Mapping[str, Any], ids: Sequence[str]) -> dict[int, int]:
    """Row of a class here -> its row in ``init``."""
    if known := read_model_record(folder):
        row_of = {class_id: row for row, class_id in enumerate(known.class_ids)}
        return {row: row_of[class_id] for row, class_id in enumerate(ids) if class_id in row_of}
    facts = record.get("facts")
    if not isinstance(facts, dict) or facts.get("classes") != classes_digest(ids):
        raise InputError(f"init={cfg.init} was written before runs kept their classes, and its head has others")
    return {row: row for row in range(len(ids))}


def _with_rows(current: Tensor, saved: Tensor, rows: Mapping[int, int]) -> Tensor:
    """``current`` with the ``saved`` rows of the classes that both have."""
    if current.shape[1:] != saved.shape[1:]:
        raise InputError(f"the head of init has rows of {tuple(saved.shape[1:])}, not {tuple(current.shape[1:])}")
    result = current.clone()
    for row, source in rows.items():
        result[row] = saved[source].to(result)
    return result
