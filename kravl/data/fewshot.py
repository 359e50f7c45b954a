"""Which images a few-shot run sees: pure functions of labels, shots and seed.

The protocols are those of CoOp (Zhou et al., IJCV 2022, https://arxiv.org/abs/2109.01134) and CLIP-LoRA (Zanella and
Ben Ayed, CVPRW 2024, https://arxiv.org/abs/2405.18541), so that their subsets come out again.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

from kravl.errors import InputError, unknown

PROTOCOLS = ("coop", "cliplora", "official")
SHORT_CLASSES = ("error", "keep")
MAX_VAL_SHOTS = 4


def few_shot_split(
    train_labels: Sequence[int],
    val_labels: Sequence[int],
    shots: int | None,
    seed: int,
    protocol: str,
    short_classes: str = "error",
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices of the training and of the validation images, in the order the protocol draws them.

    ``coop``: ``shots`` images of each class, classes in order of first appearance, then min(shots, 4) validation images
    of each from the same generator. ``cliplora``: the same, but validation is drawn first, so that its seed 1 is not
    CoOp's seed 1. ``official``: classes in label order, no validation images.

    Args:
        shots: images a class; None takes every training image, and every validation image where the protocol has any.
        short_classes: what happens to a class with fewer training images than ``shots``: ``error``, or ``keep``, the
            protocol's own rule (coop, official: the class is kept whole; cliplora: drawn with replacement).

    Raises:
        InputError: an unknown protocol or rule, shots below 1, or a class with too few images under ``error``.
    """
    _check(shots, protocol, short_classes)
    if shots is None:
        return tuple(range(len(train_labels))), tuple(range(len(val_labels))) if protocol != "official" else ()
    if short_classes == "error":
        require_shots(train_labels, shots, {label: f"class {label}" for label in train_labels})
    rng = random.Random(seed)
    train, val = _by_class(train_labels), _by_class(val_labels)
    if protocol == "official":
        return _draw(rng, dict(sorted(train.items())), shots), ()
    if protocol == "coop":
        train_indices = _draw(rng, train, shots)
        return train_indices, _draw(rng, val, min(shots, MAX_VAL_SHOTS))
    val_indices = _draw(rng, val, min(shots, MAX_VAL_SHOTS), repeat=True)
    return _draw(rng, train, shots, repeat=True), val_indices


def _check(shots: int | None, protocol: str, short_classes: str) -> None:
    if protocol not in PROTOCOLS:
        raise unknown("split protocol", protocol, PROTOCOLS)
    if short_classes not in SHORT_CLASSES:
        raise unknown("rule for short classes", short_classes, SHORT_CLASSES)
    if shots is not None and shots < 1:
        raise InputError(f"shots is {shots}; it must be at least 1, or null for all training images")


def require_shots(labels: Sequence[int], shots: int, class_names: dict[int, str]) -> None:
    """Check that each class has ``shots`` images.

    Raises:
        InputError: some have fewer; each is named with its count.
    """
    counts = Counter(labels)
    short = [f"{name} ({counts[label]})" for label, name in class_names.items() if counts[label] < shots]
    if short:
        listed = ", ".join(short[:20]) + (f" and {len(short) - 20} more" if len(short) > 20 else "")
        raise InputError(
            f"{len(short)} classes have fewer than shots={shots} training images: {listed}; "
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
