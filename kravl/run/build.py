"""From a config to what a run is made of: source, classifier, adapters, data."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kravl.adapters.base import Adapter
from kravl.adapters.injection.adapter_set import AdapterSet
from kravl.adapters.injection.inject import inject
from kravl.backbones.classifier import Classifier, statistics
from kravl.config.instantiate import build
from kravl.config.schema import Config
from kravl.data.datamodule import FewShotDataModule, FewShotSplit, LoadingSettings
from kravl.data.source import Samples, Source
from kravl.run.sources import Sources, list_sources, training_source
from kravl.runtime.errors import InputError, require_safe_versions, unknown
from kravl.training.loss import resolved_class_weights


@dataclass(frozen=True)
class Run:
    """What a run is made of."""

    source: Source
    classifier: Classifier
    adapters: AdapterSet
    data: FewShotDataModule
    class_weights: Sequence[float] | None = None  # of the loss

    @property
    def fingerprint(self) -> dict[str, object]:
        """What an adapter fits besides the weights: activation and resolution, and the classes in their order."""
        known = self.classifier.provenance()
        model = {key: known[key] for key in ("quick_gelu", "image_size") if key in known}
        classes = "\n".join(self.source.class_ids).encode("utf-8", "surrogateescape")
        return model | {"classes": f"{len(self.source.class_ids)}, sha256 {hashlib.sha256(classes).hexdigest()[:16]}"}


def build_run(cfg: Config, sources: Sources | None = None) -> Run:
    """Everything that a run needs: weights loaded, adapters injected and untrained, no image read yet.

    Args:
        sources: what `list_sources` has found, where it was asked before.

    Raises:
        InputError: whatever in ``cfg`` does not name something that exists.
    """
    require_safe_versions()
    source, evaluated = sources or list_sources(cfg)
    if cfg.optim.trains and len(source.class_names) < 2:
        raise InputError(
            f"{cfg.data.name} has one class, {source.class_names[0]!r}: every image is right, the loss is 0 and "
            "nothing is learned; add a second class, such as a folder of other images, or pass method=zeroshot"
        )
    data = _data(cfg, source, evaluated)  # before the weights: a class with too few images need not wait for them
    labels, names = data.train_samples.labels, source.class_names
    class_weights = resolved_class_weights(cfg.optim.class_weights, labels, names)
    torch.manual_seed(cfg.seed)  # a new head and new adapters start from the run's seed
    placement = _placement(cfg)
    construct = build(cfg.backbone.build, Classifier, cfg.plugins, long_prompts=cfg.data.long_prompts)
    classifier = construct(source.class_names, source.prompts)
    if cfg.linear_head:
        classifier.free_head()
    data.preprocess = classifier.preprocess
    for class_names, prompts in data.further_classes():
        classifier.add_classes(class_names, prompts)
    head = {id(p) for p in classifier.head_parameters()}
    head_names = [name for name, p in classifier.encoder().named_parameters() if id(p) in head]
    unfreeze = [*cfg.unfreeze, *head_names]
    adapters = inject(classifier.encoder(), *placement, unfreeze, _statistics(cfg, classifier))
    if cfg.checkpointing:
        classifier.checkpoint_blocks()
    return Run(source, classifier, adapters, data, class_weights)


def _statistics(cfg: Config, classifier: Classifier) -> list[str]:
    """Names of the encoder's running statistics that training is to change; it has the classifier change them."""
    if not cfg.train_statistics:
        return []
    classifier.train_statistics = True
    if names := statistics(classifier.encoder()):
        return names
    raise InputError(f"train_statistics=true: no norm of {cfg.backbone.name} keeps running statistics; leave it out")


def _placement(cfg: Config) -> tuple[Any, list[str]]:
    """The adapter's constructor and the patterns of the matrices that it adapts."""
    if cfg.targets:
        targets = list(cfg.targets)
    elif cfg.sites is None:
        return None, []
    elif cfg.sites in cfg.backbone.sites:
        targets = list(cfg.backbone.sites[cfg.sites])
    else:
        raise unknown(f"sites preset of {cfg.backbone.name}", cfg.sites, cfg.backbone.sites)
    return build(cfg.adapter, Adapter, cfg.plugins), targets


def tested_images(cfg: Config) -> Samples:
    """The images whose metrics are called ``test``, without the other sets. Raises InputError as `build_run`."""
    source = training_source(cfg)
    return _data(cfg, source, {}).test_samples if cfg.evaluation.held_out else source.split("test")


def _data(cfg: Config, source: Source, sets: Mapping[str, Source]) -> FewShotDataModule:
    loading = LoadingSettings(
        **vars(cfg.loading), seed=cfg.seed, transforms=cfg.data.transforms, cache_root=cfg.cache_root
    )
    return FewShotDataModule(source, make_split(cfg), loading, sets, cfg.evaluation.classes)


def make_split(cfg: Config) -> FewShotSplit:
    """Which images are drawn. Raises InputError where both ``shots`` and ``fraction`` say how many."""
    return FewShotSplit(
        training_amount(cfg), cfg.split_seed, cfg.split_protocol, cfg.short_classes, cfg.evaluation.held_out
    )


def training_amount(cfg: Config) -> int | float | None:
    """Images per class, a share of all of them, or None for all.

    Raises:
        InputError: both are given.
    """
    if cfg.fraction is None:
        return cfg.shots
    if cfg.shots is not None:
        raise InputError(f"shots={cfg.shots} and fraction={cfg.fraction} are both given; set one of them to null")
    return cfg.fraction
