"""Which images a few-shot run sees: pure functions of labels, shots and seed.

The protocols are those of CoOp (Zhou et al., IJCV 2022, https://arxiv.org/abs/2109.01134), CLIP-LoRA (Zanella and
Ben Ayed, CVPRW 2024, https://arxiv.org/abs/2405.18541) and Tip-Adapter (Zhang et al., ECCV 2022,
https://arxiv.org/abs/2207.09519), so that their subsets come out again, and the convention that KRAdapter's authors
took over from aTLAS (https://github.com/fredzzhang/atlas).

``coop``: ``shots`` images of each class, classes in order of first appearance, then min(shots, 4) validation images
of each from the same generator. ``cliplora``: the same, but validation is drawn first, so that its seed 1 is not
CoOp's seed 1; of a set without validation images (ImageNet) both are one draw of each class, those to train on first.
``tip``: CoOp's training images, and every validation image; Tip-Adapter itself used seed 1 alone.
``official``: classes in label order, no validation images.

``lineage``: classes in label order, the last ``shots`` of a random permutation of each, or the first part of one
permutation of all images; no validation images. It is aTLAS's rule, not its images: those were drawn from a global
generator that other code had advanced, from the labels seen in the first 1,001 batches alone, and never published.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import torch

from kravl.runtime.errors import InputError, some_of, unknown

PROTOCOLS = ("coop", "cliplora", "tip", "lineage", "official")
SHORT_CLASSES = ("error", "keep")
WITHOUT_VALIDATION = ("lineage", "official")
MAX_VAL_SHOTS = 4


def few_shot_split(
    train_labels: Sequence[int],
    val_labels: Sequence[int] | None,
    shots: int | float | None,
    seed: int,
    protocol: str,
    short_classes: str = "error",
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices of the training and of the validation images, in the order the protocol draws them; see the module.

    Args:
        val_labels: None for a set without validation images; those that ``cliplora`` draws are training images then.
        shots: images per class; None takes every training image, and every validation image where the protocol has any.
            ``lineage`` also takes a share of all training images, between 0 and 1, whatever their class.
        short_classes: what happens to a class with fewer training images than ``shots``: ``error``, or ``keep``, the
            protocol's own rule (coop, lineage, official: the class is kept whole; cliplora, tip: drawn with
            replacement).

    Raises:
        InputError: an unknown protocol or rule, shots below 1, a share under another protocol, or a class with too few
            images under ``error``.
    """
    _check(shots, protocol, short_classes)
    every_val = () if protocol in WITHOUT_VALIDATION else tuple(range(len(val_labels or ())))
    if shots is None:
        return tuple(range(len(train_labels))), every_val
    if isinstance(shots, float):
        return _share(len(train_labels), shots, seed), ()
    if short_classes == "error":
        require_shots(train_labels, shots, {label: f"class {label}" for label in train_labels})
    if protocol == "tip":
        return _protocol_draw("coop", train_labels, (), shots, seed, repeat=True)[0], every_val
    if protocol == "cliplora" and val_labels is None:
        return _joint_draw(random.Random(seed), _by_class(train_labels), shots)
    return _protocol_draw(protocol, train_labels, val_labels or (), shots, seed, repeat=protocol == "cliplora")


def _protocol_draw(
    protocol: str, train_labels: Sequence[int], val_labels: Sequence[int], shots: int, seed: int, repeat: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rng = random.Random(seed)
    train, val = _by_class(train_labels), _by_class(val_labels)
    if protocol == "lineage":
        return _permuted(dict(sorted(train.items())), shots, seed), ()
    if protocol == "official":
        return _draw(rng, dict(sorted(train.items())), shots), ()
    if protocol == "coop":
        train_indices = _draw(rng, train, shots, repeat)
        return train_indices, _draw(rng, val, min(shots, MAX_VAL_SHOTS))
    val_indices = _draw(rng, val, min(shots, MAX_VAL_SHOTS), repeat)
    return _draw(rng, train, shots, repeat), val_indices


def _joint_draw(
    rng: random.Random, groups: Mapping[int, list[int]], shots: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    train: list[int] = []
    val: list[int] = []
    for indices in groups.values():
        drawn = rng.sample(indices, min(len(indices), shots + min(shots, MAX_VAL_SHOTS)))
        train += drawn[:shots] if len(drawn) >= shots else rng.choices(indices, k=shots)
        val += drawn[shots:]
    return tuple(train), tuple(val)


def _check(shots: int | float | None, protocol: str, short_classes: str) -> None:
    if protocol not in PROTOCOLS:
        raise unknown("split protocol", protocol, PROTOCOLS)
    if short_classes not in SHORT_CLASSES:
        raise unknown("rule for short classes", short_classes, SHORT_CLASSES)
    if isinstance(shots, float):
        if protocol != "lineage":
            raise InputError(f"a share of the images, {shots}, needs split_protocol=lineage, not {protocol}")
        if not 0 < shots < 1:
            raise InputError(f"the share of the training images is {shots}; it must be between 0 and 1, null for all")
    elif shots is not None and shots < 1:
        raise InputError(f"shots is {shots}; it must be at least 1, or null for all training images")


def require_shots(labels: Sequence[int], shots: int, class_names: dict[int, str]) -> None:
    """Check that each class has ``shots`` images.

    Raises:
        InputError: some have fewer; each is named with its count.
    """
    counts = Counter(labels)
    short = [f"{name} ({counts[label]})" for label, name in class_names.items() if counts[label] < shots]
    if short:
        raise InputError(
            f"{len(short)} classes have fewer than shots={shots} training images: {some_of(short)}; "
            "lower shots, or set short_classes=keep"
        )


def _by_class(labels: Sequence[int]) -> dict[int, list[int]]:
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        groups[label].append(index)
    return groups


def _draw(rng: random.Random, groups: dict[int, list[int]], shots: int, repeat: bool = False) -> tuple[int, ...]:
    chosen: list[int] = []
    for indices in groups.values():
        if len(indices) >= shots:
            chosen += rng.sample(indices, shots)
        else:
            chosen += rng.choices(indices, k=shots) if repeat else indices
    return tuple(chosen)


def _permuted(groups: dict[int, list[int]], shots: int, seed: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(indices), generator=generator)[-shots:].tolist() for indices in groups.values()]
    return tuple(indices[i] for indices, order in zip(groups.values(), orders, strict=True) for i in order)


def _share(size: int, share: float, seed: int) -> tuple[int, ...]:
    chosen = torch.randperm(size, generator=torch.Generator().manual_seed(seed))[: int(size * share)]
    return tuple(chosen.tolist())
