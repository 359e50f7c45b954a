"""Base-to-new: half of the classes, relabelled, whose few-shot images are those that a draw from all classes gives."""

from pathlib import Path

import pytest

from kravl.config.schema import Evaluation
from kravl.data.datamodule import FewShotDataModule, FewShotSplit
from kravl.data.fewshot import few_shot_split
from kravl.data.loading.resumable import LoadingSettings
from kravl.data.sources.class_half import ClassHalf, OtherHalf, chosen_classes
from kravl.data.sources.folder import ImageFolder
from kravl.run.sources import evaluation_sources
from kravl.runtime.errors import InputError


@pytest.fixture
def pets(make_tree) -> ImageFolder:
    make_tree("test", dict.fromkeys("abcde", 2))
    root: Path = make_tree("train", dict.fromkeys("abcde", 6))
    return ImageFolder(str(root), train="train", test="test", name="pets")


def test_the_first_half_rounded_up_is_base_and_both_count_from_0(pets: ImageFolder) -> None:
    base, new = ClassHalf(pets, "base"), ClassHalf(pets, "new")

    assert (base.class_names, new.class_names) == (("a", "b", "c"), ("d", "e"))
    assert new.split("test").names == ("d/0.png", "d/1.png", "e/0.png", "e/1.png")
    assert new.split("test").labels == (0, 0, 1, 1)
    assert new.split("test").image(2).tobytes() == pets.split("test").image(8).tobytes()
    assert len({base.identity, new.identity, pets.identity}) == 3


@pytest.mark.parametrize("half", ["base", "new"])
def test_few_shot_images_are_drawn_from_all_classes_and_then_kept(half: str, pets: ImageFolder) -> None:
    train = pets.split("train")
    drawn = train.subset(few_shot_split(train.labels, [], 2, 3, "coop")[0])
    names = ClassHalf(pets, half).class_ids

    data = FewShotDataModule(ClassHalf(pets, half), FewShotSplit(shots=2, split_seed=3), LoadingSettings())

    assert data.train_samples.names == tuple(n for n in drawn.names if n[0] in names)
    assert sorted(set(data.train_samples.labels)) == list(range(len(names)))


def test_the_other_half_is_evaluated_among_its_own_classes(pets: ImageFolder) -> None:
    base = chosen_classes(pets, "base")
    node = {"_target_": "kravl.data.sources.class_half.OtherHalf"}
    sets = evaluation_sources(Evaluation(name="new", sets={"new": node}, classes="own"), base, [])

    data = FewShotDataModule(base, FewShotSplit(shots=1), LoadingSettings(), sets, classes="own")

    assert data.evaluation_classes() == {"test": (0, 1, 2), "new": (3, 4)}
    assert data.further_classes() == [(("d", "e"), pets.templates)]


def test_all_classes_are_the_set_itself(pets: ImageFolder) -> None:
    assert chosen_classes(pets, "all") is pets


def test_a_wrong_choice_is_named(pets: ImageFolder) -> None:
    with pytest.raises(InputError, match=r"unknown data\.classes 'bass': did you mean 'base'"):
        chosen_classes(pets, "bass")
    with pytest.raises(InputError, match=r"pets is trained on all its classes; .* data\.classes=base"):
        OtherHalf(pets)
    with pytest.raises(InputError, match=r"unknown evaluation\.classes 'onw': did you mean 'own'"):
        FewShotDataModule(pets, FewShotSplit(shots=1), LoadingSettings(), classes="onw")
