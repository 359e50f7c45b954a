"""The fit of a head: features once, its settings selected if asked for, then its own rule."""

import logging
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from kravl.backbones.classifier import head_logits
from kravl.backbones.heads.head import Head, Support
from kravl.config.schema import Config
from kravl.run.build import Run
from kravl.run.heads.features import training_features, validation_features
from kravl.runtime.errors import InputError
from kravl.runtime.profiler import Profiler

log = logging.getLogger(__name__)
Choice = dict[str, Any]


def fit_head(trainer: Trainer, cfg: Config, run: Run, profiler: Profiler) -> Choice:
    """Fit the head of a run on the features of its training images; returns the settings that were selected.

    Raises:
        InputError: features that vary from step to step, or more of them than memory holds.
        FloatingPointError: the fit has left the finite numbers.
    """
    classifier, head = run.classifier, run.classifier.feature_head
    assert head is not None
    if not classifier.features_are_fixed():
        raise InputError(f"{cfg.backbone.name} gives an image other features each time, and a head needs fixed ones")
    with profiler("features"):
        features = training_features(trainer, run, head)
        held_out = validation_features(trainer, run) if cfg.tune != "none" else None
    device, before = trainer.strategy.root_device, next(classifier.encoder().parameters()).device
    with profiler("train"):
        classifier.to(device)
        text = classifier.prepared_text()
        dtype = torch.promote_types(head.dtype, torch.float32)
        head.to(dtype)
        text = None if text is None else text.detach().clone().to(dtype)
        labels = torch.tensor(run.data.train_samples.labels, device=device)
        support = Support(features.to(device, dtype), labels, text, cfg.seed)
        log.info("fitting %s (%s) on %d images x %d views", type(head).__name__, head.rule, *support.features.shape[:2])
        chosen: Choice = {}
        if held_out is not None:
            wanted = torch.tensor(run.data.val_samples.labels, device=device)
            chosen = select(head, support, held_out.to(device, dtype), wanted)
            log.info("selected on %d validation images: %s", len(wanted), chosen)
            head.choose(chosen)
        with torch.enable_grad():
            head.fit(support)
        classifier.to(before)
        trainer.precision_plugin.convert_module(classifier)
    return chosen


def select(head: Head, support: Support, features: Tensor, labels: Tensor) -> Choice:
    """The settings of the head's grids whose fit classifies most of the held-out ``features`` (n, d) rightly.

    Of equals the head's own settings win, then those first in the grid. The head is left as it was.
    """
    start = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    own = {name: value for name, value in head.hyperparameters().items() if name in {**head.grid, **head.late_grid}}
    best, most = dict(own), -1.0
    for of_fit in [{}, *_combinations(head.grid)]:
        head.load_state_dict(start)
        head.choose({**own, **of_fit})
        with torch.enable_grad():
            head.fit(support)
        for late in [{}, *_combinations(head.late_grid)]:
            head.choose(late)
            with torch.no_grad():
                right = (head_logits(head, features, support.text).argmax(dim=1) == labels).double().mean().item()
            if right > most:
                best, most = {**own, **of_fit, **late}, right
    head.load_state_dict(start)
    head.choose(own)
    return best


def _combinations(grid: Any) -> Iterator[Choice]:
    if grid:
        yield from (dict(zip(grid, values, strict=True)) for values in product(*grid.values()))
