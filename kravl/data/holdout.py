"""Test images of a set that has none: a share of its training images, the same ones on every machine."""

import hashlib
import logging
from collections import defaultdict

from kravl.data.source import Samples, composed_form
from kravl.runtime.errors import InputError

logger = logging.getLogger(__name__)


def check_share(name: str, share: float) -> None:
    """Raise InputError for a ``share`` that leaves nothing to train or nothing to test on."""
    if not 0 < share < 1:
        raise InputError(f"{name}: test_share is {share}; it must be between 0 and 1, or null for no test images")


def hold_out(samples: Samples, share: float, seed: int) -> tuple[Samples, Samples]:
    """Training and test images: of each class of n images the nearest number to ``share`` * n is tested on.

    At least one of a class is tested on and at least one trained on; a single image is trained on. SHA-256 of ``seed``
    and name decides which, so that an image added later moves as few of the others as can be.

    Raises:
        InputError: no class has two images.
    """
    by_class: defaultdict[int, list[int]] = defaultdict(list)
    for i, label in enumerate(samples.labels):
        by_class[label].append(i)
    tested: set[int] = set()
    for members in by_class.values():
        count = min(max(1, round(share * len(members))), len(members) - 1)
        tested.update(sorted(members, key=lambda i: _rank(samples.names[i], seed))[:count])
    if not tested:
        raise InputError("no class has two images, of which one could be tested on; give test images of their own")
    divided = [[i for i in range(len(samples)) if (i in tested) == part] for part in (False, True)]
    return samples.subset(divided[0]), samples.subset(divided[1])


def say_held_out(name: str, share: float, seed: int, instead: str) -> None:
    """The line of the log that says which images are tested on, and how to name others."""
    logger.info(
        "%s has no test images: a share of %g of each class, drawn with seed %d, is held out of the training images "
        "to test on (data.source.test_share, data.source.test_seed; %s)",
        name,
        share,
        seed,
        instead,
    )


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\t{composed_form(name)}".encode("utf-8", "surrogateescape")).digest()
