"""What a run will cost: parameters, memory, operations; from the model without its weights."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature

import torch
from torch import Tensor, nn

from kravl.adapters.injection.sites import select_sites
from kravl.adapters.injection.storage import storable
from kravl.backbones.classifier import Classifier
from kravl.backbones.heads.head import Head
from kravl.config.instantiate import resolve
from kravl.config.schema import Config
from kravl.data.datamodule import FewShotDataModule
from kravl.run.doctor.skeleton import Skeleton, Work
from kravl.run.placement import Placement, free_parameters, place
from kravl.run.stages.plan import HEAD, chosen_names, planned_names, planned_steps, stages_of

FLOAT = 4  # bytes; what trains is kept in single precision whatever it is computed in
ADAMW = 2  # moments of a parameter
BACKWARD = 3  # forward passes that one with its backward pass takes
SECONDS = 0.3  # of square products by which a device's speed is told
SIDES = {"cpu": 1024}  # of them; an accelerator needs larger ones to reach its speed
SIDE = 8192


@dataclass(frozen=True)
class Estimate:
    """Of a run.

    Args:
        parameters: of the pretrained model.
        halved: those of them that are stored in half precision.
        trainable: adapters, unfrozen parameters, a new head and a learned context; none of a head on features.
        sites: how many matrices are adapted, by tower and kind.
        steps: optimiser steps of ``batch`` images; those of a head on features cost next to nothing.
        evaluated: images that are evaluated, and those that a head on features is fitted on, with their views.
        pixels: of an image as the model takes it.
        image: the work for one image; None where the model cannot be run without weights.
        prompts: the work for every prompt in each step, where the text tower trains: an upper bound, as prompts that
            begin alike are computed once.
        tower_trains: whether a weight trains that images pass through before the head.
        tower_steps: of ``steps``, those in which one does.
        prompt_steps: those in which the text tower trains.
    """

    parameters: int
    halved: int
    trainable: int
    sites: Mapping[str, Mapping[str, int]]
    steps: int
    batch: int
    evaluated: int
    pixels: int
    image: Work | None
    prompts: Work | None
    tower_trains: bool
    tower_steps: int
    prompt_steps: int

    @property
    def checkpoint_bytes(self) -> int:
        """Of one checkpoint: what trains, and AdamW's moments of it."""
        return FLOAT * (1 + ADAMW) * self.trainable

    def memory_bytes(self, each: int) -> int:
        """Of a training step: weights, gradients, moments, and numbers of ``each`` bytes kept in between."""
        fixed = FLOAT * (self.parameters - self.halved // 2 + (1 + ADAMW) * self.trainable)
        kept = self.batch * self.image.kept if self.image and self.tower_trains else 0
        return fixed + each * (kept + (self.prompts.kept if self.prompts else 0))

    @property
    def operations(self) -> int:
        """At most, of training and of one evaluation of every image."""
        if self.image is None:
            return 0
        passes = self.steps + (BACKWARD - 1) * self.tower_steps
        text = BACKWARD * self.prompts.operations * self.prompt_steps if self.prompts else 0
        return (self.batch * passes + self.evaluated) * self.image.operations + text


def estimate(cfg: Config, data: FewShotDataModule) -> Estimate | None:
    """Of the run that ``cfg`` describes on ``data``; None where only the loaded model can be asked.

    Raises:
        InputError: as `kravl.run.placement.place`.
    """
    classes = len(data.source.class_names)
    encoder = resolve(cfg.backbone.build, Classifier, cfg.plugins).skeleton(classes, cfg.backbone.build)
    if encoder is None:
        return None
    skeleton = Skeleton(encoder, cfg.backbone.build.get("image_size"))
    placement = place(cfg, encoder)
    trained = _trained(encoder, placement, skeleton.head())
    tower = skeleton.of_image_tower()
    of_text = [p for p in trained if id(p) not in tower | set(map(id, skeleton.head()))]
    of_text += skeleton.token_embedding() if cfg.context_tokens else []  # what is before the context has no gradient
    image = skeleton.image(trained)
    steps = planned_steps(cfg, len(data.train_samples))
    tower_steps, prompt_steps = _steps_of_towers(cfg, encoder, placement, tower, steps)
    head = classes * image.width if cfg.linear_head and image and not skeleton.head() else 0  # CLIP's, freed
    return Estimate(
        parameters=sum(p.numel() for p in encoder.parameters()),
        halved=_num_halved(cfg, encoder, placement, skeleton.head()),
        trainable=_num_trained(encoder, placement, skeleton.head()) + head + _context_size(cfg, skeleton, classes),
        sites=placement.sites,
        steps=steps,
        batch=cfg.loading.batch_size,
        evaluated=sum(map(len, data.evaluated.values())) + _encoded_for_head(cfg, data),
        pixels=skeleton.pixels,
        image=image,
        prompts=skeleton.prompts(_num_prompts(data), trained + of_text) if of_text and cfg.optim.trains else None,
        tower_trains=tower_steps > 0,
        tower_steps=tower_steps,
        prompt_steps=prompt_steps,
    )


def _trained(encoder: nn.Module, placement: Placement, head: list[nn.Parameter]) -> list[nn.Parameter]:
    """The weights that are adapted or trained as they are."""
    sites = [site.parameter for site in select_sites(encoder, placement.targets)]
    return list({id(p): p for p in (*sites, *free_parameters(encoder, placement, head))}.values())


def _steps_of_towers(
    cfg: Config, encoder: nn.Module, placement: Placement, tower: set[int], steps: int
) -> tuple[int, int]:
    """In how many of the ``steps`` the image ``tower`` trains, and in how many the text tower, or a context in it."""
    sites = {site.name: site.parameter for site in select_sites(encoder, placement.targets)}
    known = planned_names(cfg, encoder, placement)
    named = sites | dict(encoder.named_parameters())
    counts = [0, 0]
    for stage in stages_of(cfg) if cfg.optim.trains else ():
        every = {name for word in stage.train for name in known[word]} if stage.number is None else None
        chosen = chosen_names(stage.train, known, f"stages.{stage.number}") if every is None else every
        length = steps if stage.number is None else stage.steps
        before_head = [name for name in chosen if name not in known[HEAD]]
        counts[0] += length * any(name in named and id(named[name]) in tower for name in before_head)
        counts[1] += length * any(name not in named or id(named[name]) not in tower for name in before_head)
    return counts[0], counts[1]


def _num_trained(encoder: nn.Module, placement: Placement, head: list[nn.Parameter]) -> int:
    sites = select_sites(encoder, placement.targets)
    sizes: dict[tuple[int, ...], int] = {}
    with torch.random.fork_rng(devices=[]):
        for shape in {tuple(site.weight.shape) for site in sites}:
            adapter = placement.make_adapter(*shape)
            sizes[shape] = sum(p.numel() for p in adapter.parameters() if p.requires_grad)
    others = free_parameters(encoder, placement, head)
    return sum(sizes[tuple(site.weight.shape)] for site in sites) + sum(p.numel() for p in others)


def _num_halved(cfg: Config, encoder: nn.Module, placement: Placement, head: list[nn.Parameter]) -> int:
    trained = free_parameters(encoder, placement, head)
    return sum(p.numel() for p in storable(encoder, trained)) if cfg.backbone.build.get("dtype") else 0


def _context_size(cfg: Config, skeleton: Skeleton, classes: int) -> int:
    width = sum(embedding.shape[1] for embedding in skeleton.token_embedding()) if cfg.context_tokens else 0
    return cfg.context_tokens * width * (classes if cfg.context_per_class else 1)


def _encoded_for_head(cfg: Config, data: FewShotDataModule) -> int:
    """How often an image goes through the tower before a head on features is fitted."""
    if not cfg.head or not cfg.optim.trains:
        return 0
    views = 1
    if cfg.loading.augmentation != "none":
        default = signature(resolve(cfg.head, Head, cfg.plugins)).parameters["views"].default
        views = cfg.head.get("views", default)
    return int(views) * len(data.train_samples) + (len(data.val_samples) if cfg.tune != "none" else 0)


def _num_prompts(data: FewShotDataModule) -> int:
    source = data.source
    if source.descriptions is not None:
        return sum(map(len, source.descriptions))
    return len(source.class_names) * len(source.templates)


def product_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of one large matrix product, timed: an upper bound of what a model reaches."""
    side = SIDES.get(device.type, SIDE)
    a = torch.randn(side, side, device=device).to(dtype)
    _multiply(a)
    count, begin = 0, time.perf_counter()
    while (seconds := time.perf_counter() - begin) < SECONDS or not count:
        _multiply(a)
        count += 1
    return count * 2 * side**3 / seconds


def _multiply(a: Tensor) -> None:
    torch.mm(a, a)
    if a.device.type != "cpu":
        torch.accelerator.synchronize(a.device)
