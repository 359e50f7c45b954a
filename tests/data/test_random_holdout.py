"""A set without a published split is divided as torch's random_split divides it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.data import random_split

from kravl.data.sources.random_holdout import RandomHoldout, without_number
from kravl.runtime.errors import InputError


def test_the_division_is_that_of_random_split_under_seed_0(make_tree: Callable[..., Path]) -> None:
    root = make_tree("images", {"001.ak47": 7, "002.touring-bike": 6, "BACKGROUND": 3})
    everything = [f"{c}/{i}.png" for c, n in (("001.ak47", 7), ("002.touring-bike", 6)) for i in range(n)]
    train, test = random_split(range(13), [10, 3], torch.Generator().manual_seed(0))

    source = RandomHoldout("mine", str(root), "images", ["BACKGROUND"], train_share=0.8)

    assert source.class_names == ("ak47", "touring bike")
    assert source.split("train").names == tuple(everything[i] for i in train.indices)
    assert source.split("test").names == tuple(everything[i] for i in test.indices)
    assert source.split("test").image(0).size == (10, 12)


def test_a_number_before_and_a_101_after_a_name_are_no_part_of_it() -> None:
    names = [without_number(f) for f in ("015.bonsai-101", "224.touring-bike", "001.Black_footed_Albatross", "727-200")]

    assert names == ["bonsai", "touring bike", "Black footed Albatross", "727 200"]


def test_a_share_of_everything_is_refused(make_tree: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"train_share is 1\.0; it must be between 0 and 1"):
        RandomHoldout("mine", str(make_tree("images", {"a": 1})), "images", train_share=1.0)
