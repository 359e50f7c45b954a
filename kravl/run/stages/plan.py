"""A run in stages, one after the other: what trains in each of them, for how many steps, and where its head begins.

2SFS is of this kind (norms, then class weights), and so are LP-FT (class weights, then all; Kumar et al., ICLR 2022,
https://arxiv.org/abs/2202.10054) and an adapter followed by a head.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from kravl.adapters.injection.inject import matching_parameters
from kravl.adapters.injection.sites import matching, select_sites
from kravl.backbones.classifier import Classifier
from kravl.config import schema
from kravl.config.bounds import MOST
from kravl.config.instantiate import resolve
from kravl.config.schema import Config
from kravl.run.placement import Placement
from kravl.runtime.errors import InputError, nearest, some_of
from kravl.training.optim import OptimSettings
from kravl.training.trainer import FSDP, limits

ADAPTERS, UNFREEZE, CONTEXT, HEAD = WORDS = ("adapters", "unfreeze", "context", "head")
SAID_BY = {ADAPTERS: "sites or targets", UNFREEZE: "unfreeze", CONTEXT: "context_tokens", HEAD: "linear_head=true"}
ROUNDING = 1e-6  # of a sum of shares
Names = Mapping[str, Sequence[str]]  # word -> names of what it stands for: matrices, and parameters besides


@dataclass(frozen=True)
class Stage:
    """One of them; of a run without stages the only one, whose ``number`` is None.

    Args:
        number: from 0.
        train: words and patterns.
        length: Trainer's arguments.
        before: optimiser steps of the stages before.
        starts_head: whether class weights begin with it, as the stages before leave the text features.
        head_waits: whether they begin with a later one, and the text tower scores.
    """

    number: int | None
    train: tuple[str, ...]
    length: Mapping[str, int]
    optim: OptimSettings
    before: int = 0
    starts_head: bool = False
    head_waits: bool = False

    @property
    def steps(self) -> int:
        """Optimiser steps, of one that has a number."""
        return self.length["max_steps"]


def stages_of(cfg: Config) -> list[Stage]:
    """Those of a run in their order; one of all steps where there are none. Raises InputError as `check_stages`."""
    whole = limits(cfg.optim.epochs, cfg.optim.steps, cfg.optim.steps_per_shot, cfg.shots)
    if not cfg.stages or not cfg.optim.trains:
        return [Stage(None, WORDS, whole, _optim(cfg, schema.Stage()))]
    stages: list[Stage] = []
    begun = False
    for number, (node, steps) in enumerate(zip(cfg.stages, _lengths(cfg, whole), strict=True)):
        has_head = HEAD in node.train
        stages.append(
            Stage(
                number,
                tuple(node.train),
                {"max_steps": steps, "max_epochs": -1},
                _optim(cfg, node),
                sum(stage.steps for stage in stages),
                starts_head=has_head and not begun and number > 0,
                head_waits=cfg.linear_head and not has_head and not begun,
            )
        )
        begun = begun or has_head
    return stages


def _optim(cfg: Config, node: schema.Stage) -> OptimSettings:
    optim = cfg.optim
    lr, head_lr = (optim.lr, optim.head_lr) if node.lr is None else (node.lr, None)
    decay = optim.weight_decay if node.weight_decay is None else node.weight_decay
    warmup = optim.warmup_steps if node.warmup_steps is None else node.warmup_steps
    return OptimSettings(lr, head_lr, decay, warmup, optim.min_lr_ratio)


def _lengths(cfg: Config, whole: Mapping[str, int]) -> list[int]:
    """Optimiser steps of each stage. Raises InputError where they are not those of the run."""
    if (total := whole.get("max_steps")) is None:
        raise InputError(
            f"stages take shares of a number of steps, and optim.epochs={cfg.optim.epochs} is none; give "
            "optim.steps=..., or optim.steps_per_shot=..."
        )
    given = [round(s.share * total) if s.share is not None else s.steps for s in cfg.stages]
    if both := [i for i, s in enumerate(cfg.stages) if s.share is not None and s.steps is not None]:
        raise InputError(f"stages.{both[0]} has a share and steps; leave one of them out")
    open_ones = [i for i, steps in enumerate(given) if steps is None]
    if len(open_ones) > 1:
        raise InputError(f"stages {' and '.join(map(str, open_ones))} have neither a share nor steps; one of them may")
    lengths = [steps or 0 for steps in given]
    if open_ones and (taken := sum(lengths)) >= total:
        raise InputError(
            f"stages.{open_ones[0]} has neither a share nor steps, and the others take {taken} of the run's {total} "
            "steps: none is left for it"
        )
    if open_ones or abs(sum(s.share or 0.0 for s in cfg.stages) - 1) < ROUNDING:
        lengths[open_ones[0] if open_ones else -1] += total - sum(lengths)
    if sum(lengths) != total or min(lengths) < 1:
        listed = ", ".join(map(str, lengths))
        raise InputError(f"the stages have {listed} steps and the run has {total}; each needs one, and together all")
    return lengths


def planned_steps(cfg: Config, images: int) -> int:
    """Optimiser steps of a run on so many images: each epoch has all, or a small set up to ``loading.min_batches``."""
    if not cfg.optim.trains or cfg.head:
        return 0
    bounds = limits(cfg.optim.epochs, cfg.optim.steps, cfg.optim.steps_per_shot, cfg.shots)
    if (steps := bounds.get("max_steps")) is not None:
        return steps
    counts = (cfg.trainer.get(key, 1) for key in ("devices", "num_nodes"))
    processes = math.prod(max(1, count) for count in counts if isinstance(count, int))
    batches = max(-(-images // (cfg.loading.batch_size * processes)), cfg.loading.min_batches)
    return bounds["max_epochs"] * -(-batches // int(cfg.trainer.get("accumulate_grad_batches", 1)))


def check_shares(cfg: Config, trained: int, evaluated: Mapping[str, int]) -> None:
    """Hold Trainer's shares of batches against the images, before anything is trained.

    Args:
        trained: images.
        evaluated: images by set.

    Raises:
        InputError: a share of less than one batch, at which Trainer would fail when the training had ended.
    """
    steps = max(-(-trained // cfg.loading.batch_size), cfg.loading.min_batches)
    batches = {
        "limit_train_batches": [("train", steps)] if cfg.optim.trains and not cfg.head else [],
        "limit_test_batches": [(name, -(-n // cfg.loading.eval_batch_size)) for name, n in evaluated.items()],
    }
    for key, counts in batches.items():
        share = cfg.trainer.get(key)
        name, least = min(counts, key=lambda each: each[1], default=("", MOST))
        if isinstance(share, float) and share < 1 and int(least * share) < 1:
            raise InputError(
                f"trainer.{key}={share:g}: {name} has {least} batches, of which that is none; it must be at least "
                f"{1 / max(least, 1):.2g}, or a whole number of batches"
            )


def by_epochs(cfg: Config) -> bool:
    """Whether the number of steps follows from that of the images."""
    return "max_steps" not in limits(cfg.optim.epochs, cfg.optim.steps, cfg.optim.steps_per_shot, cfg.shots)


def check_warmup(cfg: Config, images: int | None = None) -> None:
    """Hold warm-ups against the number of steps in which the rate rises, and falls again.

    Args:
        images: that the run trains on; None where they are not known: a run of epochs is not checked then.

    Raises:
        InputError: a warm-up that is longer than the run, or than its stage: the rate would never be what was asked.
    """
    if not cfg.optim.trains or cfg.head or (images is None and by_epochs(cfg)):
        return
    if not cfg.stages:
        warmup, steps = cfg.optim.warmup_steps, planned_steps(cfg, images or 0)
        if warmup > steps:
            length = f"{steps} steps in {cfg.optim.epochs} epochs" if by_epochs(cfg) else f"{steps} steps"
            raise InputError(f"optim.warmup_steps={warmup}: the run has {length}; it must be at most {steps}")
        return
    for stage, node in zip(stages_of(cfg), cfg.stages, strict=True):
        if (warmup := stage.optim.warmup_steps) > stage.steps:
            key = "optim.warmup_steps" if node.warmup_steps is None else f"stages.{stage.number}.warmup_steps"
            raise InputError(f"{key}={warmup}: stages.{stage.number} has {stage.steps} steps; it must be at most that")


def check_stages(cfg: Config) -> None:
    """Hold the stages of a run against its other settings, before any weight is loaded.

    Raises:
        InputError: lengths that are not those of the run, a stage of what does not train, something that trains in none
            of them, or a setting that goes with no stages.
    """
    if not cfg.stages:
        return
    if cfg.head:
        raise InputError(f"stages are of what the trainer trains, and method={cfg.method} is a head on features")
    if cfg.trainer.get("strategy") == FSDP:
        raise InputError(f"stages with trainer.strategy={FSDP}: what is sharded is chosen once in a run; use ddp")
    if cfg.train_statistics:
        raise InputError("stages with train_statistics=true: running statistics would change in frozen stages too")
    stages_of(cfg)
    _check_words(cfg)


def _check_words(cfg: Config) -> None:
    """Hold the words of each stage against what there is to train, and the first against what it scores by."""
    has_text = resolve(cfg.backbone.build, Classifier, cfg.plugins).zero_shot
    trained = {
        ADAPTERS: bool(cfg.sites is not None or cfg.targets),
        UNFREEZE: bool(cfg.unfreeze),
        CONTEXT: bool(cfg.context_tokens),
        HEAD: cfg.linear_head or not has_text,
    }
    kinds = {word: [word] if there else [] for word, there in trained.items()}
    for number, stage in enumerate(cfg.stages):
        for item in stage.train:
            if item in WORDS and not trained[item]:
                raise InputError(f"stages.{number} trains {item}, which this run has none of; add {SAID_BY[item]}")
    if not has_text and HEAD not in cfg.stages[0].train:
        raise InputError(
            f"stages.0 trains no head, and {cfg.backbone.name} scores by one that starts at zero: nothing would be "
            "learned; train the head in the first stage"
        )
    if cfg.context_tokens and CONTEXT not in cfg.stages[0].train:
        raise InputError(
            f"stages.0 does not train the context (context_tokens={cfg.context_tokens}), which takes the place of the "
            "templates; train it in the first stage"
        )
    if all(item in WORDS for stage in cfg.stages for item in stage.train):  # else names are needed
        check_names(cfg, kinds)


def check_names(cfg: Config, known: Names) -> None:
    """Hold the stages against the names of what the run trains.

    Raises:
        InputError: a pattern that matches none of them, or one that trains in no stage.
    """
    if not cfg.stages or not cfg.optim.trains:
        return
    trained: set[str] = set()
    for number, stage in enumerate(cfg.stages):
        trained |= chosen_names(stage.train, known, f"stages.{number}")
    if left := [name for names in known.values() for name in names if name not in trained]:
        raise InputError(f"no stage trains {some_of(left, 3)}, which this run is to train; add it to one's train")


def chosen_names(train: Sequence[str], known: Names, place: str) -> set[str]:
    """Names that the words and patterns of one stage stand for. Raises InputError where one stands for none."""
    every = {name: None for word in (ADAPTERS, UNFREEZE) for name in known[word]}  # the rest goes by its word alone
    found: set[str] = set()
    for item in train:
        names = known.get(item, ()) if item in WORDS else matching(item, every)
        if not names:
            near = ", ".join(nearest(item, [*WORDS, *every]))
            raise InputError(f"{place} trains {item!r}, which is nothing that this run trains; the nearest are {near}")
        found |= set(names)
    if not found:
        raise InputError(f"{place} trains nothing; give it train=[...] of {', '.join(WORDS)}, or patterns")
    return found


def planned_names(cfg: Config, encoder: nn.Module, placement: Placement) -> dict[str, list[str]]:
    """What each word stands for in a model without its weights: what kravl adds has the name that it will have."""
    free = matching_parameters(encoder, placement.unfreeze, select_sites(encoder, placement.targets))
    head = "class_weight" if resolve(cfg.backbone.build, Classifier, cfg.plugins).zero_shot else "head"
    return {
        ADAPTERS: placement.targets,
        UNFREEZE: list(free),
        CONTEXT: ["context"] if cfg.context_tokens else [],
        HEAD: [head] if cfg.linear_head or head == "head" else [],
    }
