"""The published few-shot subsets come out again, order included; a class that is too small is named."""

import hashlib
import json
import random
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
import torch

from kravl.data import catalog
from kravl.data.fewshot import few_shot_split, require_shots
from kravl.data.sources.split_file import SplitFile
from kravl.runtime.errors import InputError

SPLIT_FILES = {
    "caltech101": "Caltech101",
    "dtd": "DescribableTextures",
    "eurosat": "EuroSAT",
    "oxford_flowers": "OxfordFlowers",
    "oxford_pets": "OxfordPets",
}
LABELS = [2, 0, 0, 1, 2, 1, 0, 2, 1, 0, 2, 1]
VAL_LABELS = [1, 1, 0, 2, 2, 0]


@pytest.mark.assets
@pytest.mark.parametrize("name", SPLIT_FILES)
def test_every_published_subset_of_coop_comes_out_again_order_included(name: str, assets: Path) -> None:
    coop = assets / "coop"
    source = SplitFile(name, str(coop), str(coop / f"split_zhou_{SPLIT_FILES[name]}.json"))
    train, val = source.split("train"), source.split("val")

    for shots in (1, 16):
        for seed in (1, 2):
            golden = json.loads((coop / "indices" / name / f"shot_{shots}-seed_{seed}.json").read_text())
            drawn, drawn_val = few_shot_split(train.labels, val.labels, shots, seed, "coop")
            assert list(drawn) == golden["train"]["indices"]
            assert list(drawn_val) == golden["val"]["indices"]
            paths = [Path(record["impath"]).name for record in golden["train"]["data"]]
            assert [Path(path).name for path in train.subset(drawn).names] == paths
            assert [record["label"] for record in golden["train"]["data"]] == list(train.subset(drawn).labels)


@pytest.mark.assets
@pytest.mark.parametrize(
    ("name", "smallest", "largest"),
    [
        ("caltech101", 16, 400),
        ("dtd", 60, 60),
        ("eurosat", 1000, 1500),
        ("oxford_flowers", 20, 129),
        ("oxford_pets", 74, 80),
    ],
)
def test_a_published_split_has_the_counts_of_its_card(name: str, smallest: int, largest: int, assets: Path) -> None:
    path = assets / "coop" / f"split_zhou_{SPLIT_FILES[name]}.json"
    source = SplitFile(name, str(assets / "coop"), str(path))

    card = catalog.card(name)
    per_class = Counter(source.split("train").labels).values()
    assert {split: len(source.split(split)) for split in source.splits} == card["images"]
    assert len(source.class_names) == card["classes"]
    assert (min(per_class), max(per_class)) == (smallest, largest)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == card["split_file"]["sha256"]
    assert path.stat().st_size == card["split_file"]["bytes"]


def test_cliplora_draws_validation_first_from_the_same_generator() -> None:
    rng = random.Random(7)
    val = [rng.sample([i for i, v in enumerate(VAL_LABELS) if v == c], 2) for c in (1, 0, 2)]
    train = [rng.sample([i for i, v in enumerate(LABELS) if v == c], 2) for c in (2, 0, 1)]

    drawn, drawn_val = few_shot_split(LABELS, VAL_LABELS, shots=2, seed=7, protocol="cliplora")

    assert drawn_val == tuple(chain.from_iterable(val))
    assert drawn == tuple(chain.from_iterable(train))
    assert drawn != few_shot_split(LABELS, VAL_LABELS, shots=2, seed=7, protocol="coop")[0]


def test_cliplora_draws_training_and_validation_images_of_imagenet_at_once() -> None:
    labels = [0] * 30 + [1] * 40  # ImageFolder's order
    random.seed(5)
    groups = [random.sample([i for i, v in enumerate(labels) if v == c], 8 + 4) for c in (0, 1)]

    drawn, drawn_val = few_shot_split(labels, None, shots=8, seed=5, protocol="cliplora")

    assert drawn == tuple(i for group in groups for i in group[:8])
    assert drawn_val == tuple(i for group in groups for i in group[8:])


def test_a_class_too_small_for_cliploras_validation_images_gives_what_it_has() -> None:
    drawn, drawn_val = few_shot_split([0] * 5 + [1] * 3, None, 4, 1, "cliplora", "keep")

    assert (len(set(drawn[:4])), len(drawn), len(drawn_val)) == (4, 8, 1)
    assert set(drawn[4:]) <= {5, 6, 7}


def test_official_draws_in_label_order_and_no_validation_images() -> None:
    rng = random.Random(3)
    expected = [rng.sample([i for i, v in enumerate(LABELS) if v == c], 3) for c in (0, 1, 2)]

    drawn, drawn_val = few_shot_split(LABELS, VAL_LABELS, shots=3, seed=3, protocol="official")

    assert drawn == tuple(chain.from_iterable(expected))
    assert drawn_val == ()


@pytest.mark.parametrize("protocol", ["coop", "cliplora"])
def test_at_most_four_validation_images_a_class_are_drawn(protocol: str) -> None:
    labels = [i % 3 for i in range(60)]

    drawn, drawn_val = few_shot_split(labels, labels, 16, 1, protocol)

    assert [sum(labels[i] == c for i in drawn) for c in range(3)] == [16, 16, 16]
    assert [sum(labels[i] == c for i in drawn_val) for c in range(3)] == [4, 4, 4]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("protocol", ["coop", "cliplora", "tip", "lineage", "official"])
def test_a_split_is_a_function_of_the_seed_alone(protocol: str) -> None:
    random.seed(0)
    first = few_shot_split(LABELS, VAL_LABELS, 2, 1, protocol)
    random.seed(5)

    assert few_shot_split(LABELS, VAL_LABELS, 2, 1, protocol) == first
    assert few_shot_split(LABELS, VAL_LABELS, 2, 2, protocol) != first


def test_tip_draws_what_coop_draws_and_keeps_every_validation_image() -> None:
    drawn, drawn_val = few_shot_split(LABELS, VAL_LABELS, shots=2, seed=1, protocol="tip")

    assert drawn == few_shot_split(LABELS, VAL_LABELS, shots=2, seed=1, protocol="coop")[0]
    assert drawn_val == tuple(range(6))


def test_lineage_takes_the_end_of_a_permutation_of_each_class_in_label_order() -> None:
    generator = torch.Generator().manual_seed(4)
    expected = []
    for c in (0, 1, 2):
        indices = torch.tensor([i for i, label in enumerate(LABELS) if label == c])
        expected += indices[torch.randperm(len(indices), generator=generator)[-3:]].tolist()

    drawn, drawn_val = few_shot_split(LABELS, VAL_LABELS, shots=3, seed=4, protocol="lineage")

    assert list(drawn) == expected
    assert drawn_val == ()


def test_lineage_takes_a_share_of_all_images_whatever_their_class() -> None:
    expected = torch.randperm(12, generator=torch.Generator().manual_seed(4))[:6].tolist()

    drawn, drawn_val = few_shot_split(LABELS, VAL_LABELS, 0.5, 4, "lineage")

    assert list(drawn) == expected
    assert drawn_val == ()


def test_no_shots_means_every_image_in_the_order_of_the_set() -> None:
    assert few_shot_split(LABELS, VAL_LABELS, None, 1, "coop") == (tuple(range(12)), tuple(range(6)))
    assert few_shot_split(LABELS, VAL_LABELS, None, 1, "official") == (tuple(range(12)), ())


def test_a_class_with_fewer_images_than_shots_is_an_error_with_its_count() -> None:
    with pytest.raises(InputError, match=r"1 classes have fewer than shots=3 training images: class 1 \(2\); lower"):
        few_shot_split([0, 0, 0, 1, 1], [], 3, 1, "coop")


def test_a_class_without_any_image_is_named() -> None:
    with pytest.raises(InputError, match=r"cat \(1\), emu \(0\)"):
        require_shots([0, 0, 1], 2, {0: "dog", 1: "cat", 2: "emu"})


def test_a_short_class_may_be_kept_by_the_rule_of_its_protocol() -> None:
    labels = [0, 0, 0, 1, 1]

    whole, _ = few_shot_split(labels, [], 3, 1, "coop", "keep")
    repeated, _ = few_shot_split(labels, [], 3, 1, "cliplora", "keep")
    repeated_by_tip, _ = few_shot_split(labels, [], 3, 1, "tip", "keep")

    assert [i for i in whole if labels[i] == 1] == [3, 4]
    assert len([i for i in repeated if labels[i] == 1]) == 3
    assert len([i for i in repeated_by_tip if labels[i] == 1]) == 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"protocol": "copo"}, "unknown split protocol 'copo': did you mean 'coop'"),
        ({"short_classes": "eror"}, "unknown rule for short classes 'eror': did you mean 'error'"),
        ({"shots": 0}, "shots is 0; it must be at least 1"),
        ({"shots": 0.5}, "a share of the images, 0.5, needs split_protocol=lineage, not coop"),
        ({"shots": 1.5, "protocol": "lineage"}, "the share of the training images is 1.5; it must be between 0 and 1"),
    ],
)
def test_a_wrong_setting_is_named_with_the_nearest_legal_one(changed: dict[str, object], message: str) -> None:
    settings: dict[str, object] = {"shots": 1, "seed": 1, "protocol": "coop"}

    with pytest.raises(InputError, match=message):
        few_shot_split(LABELS, VAL_LABELS, **(settings | changed))
