"""From a config to what a run is made of: source, classifier, adapters, data."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from kravl.adapters.injection.adapter_set import AdapterSet
from kravl.adapters.injection.inject import inject
from kravl.adapters.injection.storage import round_weights
from kravl.backbones.classifier import Classifier, parse_dtype, statistics
from kravl.backbones.heads.head import Head
from kravl.backbones.structure.projection import visual_projection
from kravl.backbones.text.tower import require_dropout_to_share
from kravl.config.instantiate import build, resolve
from kravl.config.schema import Config
from kravl.data.datamodule import FewShotDataModule, FewShotSplit, LoadingSettings
from kravl.data.source import Samples, Source
from kravl.run.context import check_context, context_of
from kravl.run.finished.saved import seen_classes
from kravl.run.heads.checks import check_head, head_buffers, head_settings
from kravl.run.placement import Placement, check_stored, free_parameters, place
from kravl.run.sources import Sources, list_sources, training_source
from kravl.run.stages.plan import check_names, planned_names
from kravl.runtime.dtypes import TRUE
from kravl.runtime.errors import InputError, require_safe_versions
from kravl.tracking.run_folder import find_run
from kravl.tracking.settings import is_digest
from kravl.training.loss import resolved_class_weights
from kravl.training.trainer import FSDP

L2_SP_0 = "leave optim.l2_sp out"
ANY_CLASSES = ("cat", "dog")  # where those of a run are not known
Prompts = Sequence[str | Sequence[str]]
Classes = tuple[Sequence[str], Prompts]  # names and their prompts


@dataclass(frozen=True)
class Model:
    """A classifier of named classes with its adapters, untrained."""

    classifier: Classifier
    adapters: AdapterSet
    sites: dict[str, dict[str, int]]  # how many matrices are adapted, by tower and kind
    head: str | None = None  # on features, with the settings that it is built with

    def fingerprint(self, class_ids: Sequence[str]) -> dict[str, object]:
        """What an adapter fits besides the weights: activation and resolution, and the classes in their order."""
        known = self.classifier.provenance()
        model = {key: known[key] for key in ("quick_gelu", "image_size") if key in known}
        head = {"head": self.head} if self.head else {}
        return model | head | {"classes": classes_digest(class_ids)}


@dataclass(frozen=True)
class Run:
    """What a run is made of."""

    source: Source
    classifier: Classifier
    adapters: AdapterSet
    data: FewShotDataModule
    sites: dict[str, dict[str, int]]  # how many matrices are adapted, by tower and kind
    class_weights: Sequence[float] | None = None  # of the loss
    head: str | None = None  # on features, with the settings that it is built with
    # trained class weights score the classes that they know, wherever they are evaluated, the text tower the others
    selective: bool = False
    seen: tuple[str, ...] = ()  # names of the classes that ``init`` was trained on

    @property
    def model(self) -> Model:
        return Model(self.classifier, self.adapters, self.sites, self.head)

    @property
    def fingerprint(self) -> dict[str, object]:
        """See `Model.fingerprint`."""
        return self.model.fingerprint(self.source.class_ids)


def classes_digest(class_ids: Sequence[str]) -> str:
    """How many classes there are, and a digest of their ids in order."""
    lines = "\n".join(class_ids).encode("utf-8", "surrogateescape")
    return f"{len(class_ids)}, sha256 {hashlib.sha256(lines).hexdigest()[:16]}"


def build_run(cfg: Config, known: Sources | FewShotDataModule | None = None) -> Run:
    """Everything that a run needs: weights loaded, adapters injected and untrained, no image read yet.

    Args:
        known: what `list_sources` has found, or `make_data`, where it was asked before.

    Raises:
        InputError: whatever in ``cfg`` does not name something that exists.
    """
    require_safe_versions()
    if isinstance(known, FewShotDataModule):
        source, data = known.source, known
    else:
        source, evaluated = known or list_sources(cfg)
        require_classes(cfg, source)
        data = make_data(cfg, Sources(source, evaluated))  # a class with too few images need not wait for the weights
    if cfg.optim.trains:
        data.check_test_images()
    labels, names = data.train_samples.labels, source.class_names
    class_weights = resolved_class_weights(cfg.optim.class_weights, labels, names)
    check_head(cfg, data)
    model = build_model(cfg, (names, source.prompts), data.further_classes(), len(data.train_samples))
    data.preprocess = model.classifier.preprocess
    return Run(
        source,
        *(model.classifier, model.adapters, data, model.sites, class_weights, model.head),
        selective=bool(cfg.stages) and cfg.linear_head,
        seen=_seen(cfg),
    )


def _seen(cfg: Config) -> tuple[str, ...]:
    """Of ``init``; a finished run has its digest there in place of the path, and the names in its model.json."""
    return seen_classes(find_run(cfg.init)) if cfg.init and not is_digest(cfg.init) else ()


def build_model(cfg: Config, classes: Classes, further: Sequence[Classes] = (), num_images: int = 0) -> Model:
    """The pretrained classifier of ``classes``, its adapters injected and untrained.

    Args:
        further: classes that are evaluated besides, see `Classifier.add_classes`.
        num_images: that a head on features is fitted on; it may keep something of each.

    Raises:
        InputError: as `build_run`.
    """
    check_frozen_dtype(cfg)
    construct = build(cfg.backbone.build, Classifier, cfg.plugins, long_prompts=cfg.data.long_prompts)
    _check_further_prompts(cfg, further)
    check_context(cfg, classes[0], [name for names, _ in further for name in names])
    encoder, placement = planned(cfg, len(classes[0]))
    if encoder is not None and placement is not None:
        check_names(cfg, planned_names(cfg, encoder, placement))
    torch.manual_seed(cfg.seed)  # a new head and new adapters start from the run's seed
    classifier = construct(*classes)
    placement = placement or place(cfg, classifier.encoder())
    if classifier.frozen_dtype:
        trained = free_parameters(classifier.encoder(), placement, classifier.new_parameters())
        check_stored(cfg, classifier.encoder(), trained)
        round_weights(classifier.encoder(), classifier.frozen_dtype, trained)
    new_names = _add_classes(cfg, classifier, further, num_images)
    classifier.train_statistics = cfg.train_statistics
    unfreeze = [*placement.unfreeze, *new_names]
    buffers = [*_statistics(cfg, classifier.encoder()), *head_buffers(classifier)]
    adapters = inject(
        classifier.encoder(), placement.make_adapter, placement.targets, unfreeze, buffers, classifier.frozen_dtype
    )
    if cfg.backbone.build.get("shared_dropout"):
        require_dropout_to_share(classifier.encoder())
    if cfg.checkpointing:
        classifier.checkpoint_blocks()
    return Model(classifier, adapters, placement.sites, head_settings(cfg))


def _add_classes(cfg: Config, classifier: Classifier, further: Sequence[Classes], num_images: int) -> list[str]:
    """What stands for the trained classes and those only evaluated; the names of parameters that are new."""
    if cfg.linear_head:
        classifier.free_head()
    if cfg.head:
        make_head, kind = build(cfg.head, Head, cfg.plugins), resolve(cfg.head, Head, cfg.plugins)
        classifier.attach_head(make_head, num_images, kind.before_projection)
    if context := context_of(cfg):
        classifier.learn_context(context)
    for class_names, prompts in further:
        classifier.add_classes(class_names, prompts)
    new = {id(p) for p in classifier.new_parameters()}
    return [name for name, p in classifier.encoder().named_parameters() if id(p) in new]


def require_classes(cfg: Config, source: Source) -> None:
    """Raise InputError where there is one class alone to train on."""
    if cfg.optim.trains and len(source.class_names) < 2:
        raise InputError(
            f"{cfg.data.name} has one class, {source.class_names[0]!r}: every image is right, the loss is 0 and "
            "nothing is learned; add a second class, such as a folder of other images, or pass method=zeroshot"
        )


def check_trains(cfg: Config) -> None:
    """Raise InputError where training is asked for and nothing is there to train."""
    parts = (cfg.sites, cfg.targets, cfg.unfreeze, cfg.linear_head, cfg.context_tokens, cfg.head)
    new_head = not resolve(cfg.backbone.build, Classifier, cfg.plugins).zero_shot
    if cfg.optim.trains and not any(parts) and not new_head:
        raise InputError("nothing to train: sites is null and unfreeze is empty; optim.epochs=0 evaluates as it is")


def check_frozen_dtype(cfg: Config) -> None:
    """Raise InputError for an unknown ``backbone.build.dtype``, and where the precision stores all weights itself."""
    dtype, precision = cfg.backbone.build.get("dtype"), str(cfg.trainer.get("precision"))
    if parse_dtype(dtype) and precision in TRUE:
        raise InputError(
            f"backbone.build.dtype={dtype} with trainer.precision={precision}, which stores every weight in its own "
            "type; leave one of them out, or take trainer.precision=auto"
        )


def check_l2_sp(cfg: Config) -> None:
    """Raise InputError where the penalty would have no effect, or where its gradient cannot be had."""
    if not cfg.optim.l2_sp:
        return
    given = f"optim.l2_sp={cfg.optim.l2_sp:g}"
    if not (cfg.sites or cfg.targets or cfg.unfreeze):
        raise InputError(f"{given}: {cfg.label} changes no pretrained weight; {L2_SP_0}")
    if cfg.trainer.get("strategy") == FSDP:
        raise InputError(f"{given} with trainer.strategy={FSDP}: no process has a whole update; use ddp, or {L2_SP_0}")


def _check_further_prompts(cfg: Config, further: Sequence[Classes]) -> None:
    """Hold prompts of evaluated classes against ``data.long_prompts`` before the weights are loaded."""
    settings = {"long_prompts": cfg.data.long_prompts, **cfg.backbone.build}
    for class_names, prompts in further:
        resolve(cfg.backbone.build, Classifier, cfg.plugins).check_prompts(settings, class_names, prompts)


def planned(cfg: Config, num_classes: int) -> tuple[nn.Module | None, Placement | None]:
    """The model without its weights and what is adapted of it; None where only the loaded one can be asked."""
    encoder = skeleton(cfg, num_classes)
    if encoder is None:
        return None, None
    _check_towers(cfg, encoder)
    return encoder, place(cfg, encoder)


def skeleton(cfg: Config, num_classes: int) -> nn.Module | None:
    """The model without its weights; None where only the loaded one can be asked. Raises InputError without one."""
    build(cfg.backbone.build, Classifier, cfg.plugins)  # its settings are ones that it has
    return resolve(cfg.backbone.build, Classifier, cfg.plugins).skeleton(num_classes, cfg.backbone.build)


def check_structure(cfg: Config, encoder: nn.Module) -> None:
    """Hold what is adapted, and what trains, against a `skeleton`, which is left as it is.

    Raises:
        InputError: an adapter without a setting that is given, a preset or pattern that matches nothing, a stage of
            what does not train, or a context that the text tower does not take.
    """
    _check_towers(cfg, encoder)
    check_names(cfg, planned_names(cfg, encoder, place(cfg, encoder)))
    check_context(cfg, ANY_CLASSES, ())


def _check_towers(cfg: Config, encoder: nn.Module) -> None:
    """Raise InputError where running statistics are to train, or a projection, and there are none."""
    _statistics(cfg, encoder)
    if cfg.head and resolve(cfg.head, Head, cfg.plugins).before_projection:
        visual_projection(encoder, str(cfg.backbone.build["name"]))


def _statistics(cfg: Config, encoder: nn.Module) -> list[str]:
    """Names of the encoder's running statistics that training is to change."""
    if not cfg.train_statistics:
        return []
    if names := statistics(encoder):
        return names
    raise InputError(f"train_statistics=true: no norm of {cfg.backbone.name} keeps running statistics; leave it out")


def tested_images(cfg: Config) -> Samples:
    """The images whose metrics are called ``test``, without the other sets. Raises InputError as `build_run`."""
    source = training_source(cfg)
    return make_data(cfg, Sources(source, {})).test_samples if cfg.evaluation.held_out else source.split("test")


def make_data(cfg: Config, sources: Sources) -> FewShotDataModule:
    """The images of a run, listed and drawn; none is read yet. Raises InputError as `build_run`."""
    loading = LoadingSettings(
        **vars(cfg.loading),
        seed=cfg.seed,
        transforms=cfg.data.transforms,
        cache_root=cfg.cache_root,
        feature_cache_gb=cfg.feature_cache_gb,
    )
    return FewShotDataModule(sources.training, make_split(cfg), loading, sources.evaluation, cfg.evaluation.classes)


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
