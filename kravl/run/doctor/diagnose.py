"""Everything that a run needs, checked in the order in which it would fail, and what it will cost."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from rich.filesize import decimal

from kravl.backbones.structure.presets import listed_sites
from kravl.config.schema import Config
from kravl.data.datamodule import FewShotDataModule
from kravl.run.doctor.checklist import Checklist
from kravl.run.doctor.estimate import Estimate, estimate, product_speed
from kravl.run.doctor.inputs import check_data, check_prompts, find_weights
from kravl.run.doctor.machine import (
    check_cache,
    check_device,
    check_disk,
    check_keys,
    check_memory,
    check_run_folder,
    check_versions,
)
from kravl.run.doctor.measure import measure, total_seconds
from kravl.run.heads.checks import check_head_images
from kravl.run.sources import Sources
from kravl.run.stages.plan import check_warmup, stages_of
from kravl.run.train import check
from kravl.runtime.console import duration
from kravl.tracking.settings import Settings
from kravl.training.trainer import precision_of

HALF_PRECISIONS = ("bf16-mixed", "bf16-true", "16-mixed", "16-true")


def check_machine(checks: Checklist, trainer: dict[str, Any], tracking: str | Sequence[str]) -> torch.device:
    """What does not depend on a run: releases, device, precision, keys."""
    check_versions(checks)
    device = check_device(checks, trainer)
    check_keys(checks, tracking)
    return device


def check_run(checks: Checklist, cfg: Config, settings: Settings, measured: bool = False) -> None:
    """Everything of the run that ``cfg`` describes.

    Args:
        settings: of the same config, as written.
        measured: whether to train a few steps and evaluate a few batches if nothing is wrong.
    """
    checks.passes("settings", partial(check, cfg))
    device = check_machine(checks, cfg.trainer, cfg.tracking)
    data = check_data(checks, cfg)
    files = find_weights(checks, cfg)
    path = check_run_folder(checks, cfg, settings)
    if data is None:
        return
    checks.passes("head", partial(check_head_images, cfg, data))
    checks.passes("warm-up", partial(check_warmup, cfg, len(data.train_samples)))
    if files is not None:
        check_prompts(checks, cfg, data)
    cost = checks.attempt("adapters", partial(estimate, cfg, data))
    if cost is None:
        return
    _tell_adapters(checks, cfg, cost)
    half = str(precision_of(cfg.trainer)) in HALF_PRECISIONS
    check_memory(checks, cost, device, half)
    if path is not None:
        check_disk(checks, path, cost, sum(file.path is None for file in files or ()))
        check_cache(checks, cfg, data, cost)
    if measured and not checks.failed:
        _measure(checks, cfg, cost, data)
    else:
        _tell_operations(checks, cfg, cost, device, torch.bfloat16 if half else torch.float32)


def _tell_adapters(checks: Checklist, cfg: Config, cost: Estimate) -> None:
    if cfg.head:
        checks.add("ok", "head", f"{cfg.label}: a head on features; of {cost.parameters:,} parameters none trains")
        return
    where = f" on {listed_sites(cost.sites)}" if cost.sites else ""
    share = f"{cost.trainable:,} of {cost.parameters:,} parameters train"
    checks.add("ok", "adapters", f"{cfg.label}{where}: {share if cfg.optim.trains else 'nothing trains'}")
    if stages := [stage for stage in stages_of(cfg) if stage.number is not None]:
        each = [f"{' and '.join(stage.train)} for {stage.steps:,} steps" for stage in stages]
        checks.add("ok", "stages", ", then ".join(each))


def _tell_operations(checks: Checklist, cfg: Config, cost: Estimate, device: torch.device, dtype: torch.dtype) -> None:
    images = f"{cost.steps:,} steps of {cost.batch} images, {cost.evaluated:,} images evaluated"
    if cfg.head:
        images = f"{cost.evaluated:,} images encoded once, and the fit of a head on their features"
    if not cost.operations:
        checks.add("ok", "time", f"{images}; --measure times some")
        return
    speed = product_speed(device, dtype)
    least = f"{cost.operations:.1e} operations, {duration(cost.operations / speed)} at {speed:.1e} a second"
    checks.add("ok", "time", f"{images}: {least}, which a matrix product reaches here; --measure times real steps")


def _measure(checks: Checklist, cfg: Config, cost: Estimate, data: FewShotDataModule) -> None:
    others = {name: source for name, source in data.sources.items() if name != "test"}
    times = checks.attempt("time", lambda: measure(cfg, Sources(data.source, others)))
    if times is None:
        return
    each = f"{times.step:.2g} s a step, {times.image:.2g} s an evaluated image, peak {decimal(times.peak_bytes)}"
    whole = duration(total_seconds(cfg, cost, times))
    checks.add("ok", "time", f"about {whole}: {cost.steps:,} steps, {cost.evaluated:,} images evaluated; {each}")
