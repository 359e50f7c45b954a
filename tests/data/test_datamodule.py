"""A run's images: what is drawn, what is evaluated, and what is refused before training starts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kravl.data.corruptions.source import Corrupted
from kravl.data.datamodule import FewShotDataModule, FewShotSplit
from kravl.data.loading.resumable import LoadingSettings
from kravl.data.loading.transforms import PreprocessLike
from kravl.data.sources.domains import Domains
from kravl.data.sources.folder import ImageFolder
from kravl.data.sources.split_file import SplitFile
from kravl.runtime.errors import InputError

LOADING = LoadingSettings(batch_size=4, eval_batch_size=4, num_workers=0, min_batches=3)


@pytest.fixture
def root(make_tree: Callable[..., Path]) -> Path:
    make_tree("train", {"cat": 5, "dog": 6, "emu": 4})
    make_tree("val", {"cat": 2, "dog": 3, "emu": 1})
    make_tree("test", {"cat": 2, "dog": 1, "emu": 2})
    return make_tree("shift", {"dog": 2, "emu": 3})


@pytest.fixture
def source(root: Path) -> ImageFolder:
    return ImageFolder(str(root), train="train", val="val", test="test")


def shift(root: Path) -> ImageFolder:
    return ImageFolder(str(root), train="shift", test="shift", name="shift")


def test_shots_of_each_class_are_drawn_and_the_draw_is_identified(source: ImageFolder) -> None:
    modules = [FewShotDataModule(source, FewShotSplit(3, seed), LOADING) for seed in (1, 1, 2)]

    assert sorted(modules[0].train_samples.labels) == [0] * 3 + [1] * 3 + [2] * 3
    assert sorted(modules[0].val_samples.labels) == [0, 0, 1, 1, 1, 2]
    assert modules[0].split_sha256 == modules[1].split_sha256 == modules[0].train_samples.sha256()
    assert modules[0].split_sha256 != modules[2].split_sha256


def test_a_set_without_validation_images_has_none(make_tree: Callable[..., Path]) -> None:
    root = make_tree("photo", {"cat": 10, "dog": 10})

    data = FewShotDataModule(Domains("pets", str(root), "photo", holdout=5), FewShotSplit(2), LOADING)

    assert len(data.val_samples) == 0
    assert len(data.train_samples) == 4


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_batches_are_of_the_drawn_images_and_as_many_as_asked(
    num_workers: int, source: ImageFolder, preprocess: PreprocessLike
) -> None:
    data = FewShotDataModule(source, FewShotSplit(1), replace(LOADING, num_workers=num_workers))
    data.preprocess = preprocess

    batches = list(data.train_dataloader())

    assert len(batches) == 3
    assert {int(i) for batch in batches for i in batch.indices} == {0, 1, 2}
    for batch in batches:
        assert batch.labels.tolist() == [data.train_samples.labels[i] for i in batch.indices]


def test_the_seed_of_training_is_not_the_seed_of_the_split(source: ImageFolder, preprocess: PreprocessLike) -> None:
    first, second = (
        FewShotDataModule(source, FewShotSplit(2), LoadingSettings(batch_size=4, num_workers=0, seed=s)) for s in (1, 2)
    )
    first.preprocess = second.preprocess = preprocess

    assert first.split_sha256 == second.split_sha256
    assert not torch.equal(next(iter(first.train_dataloader())).images, next(iter(second.train_dataloader())).images)


def test_the_own_test_set_comes_first_and_each_set_has_its_classes(
    source: ImageFolder, root: Path, preprocess: PreprocessLike
) -> None:
    sets = {"shift": shift(root), "noise": Corrupted(source, "gaussian_noise", 1)}
    data = FewShotDataModule(source, FewShotSplit(2), LOADING, sets)
    data.preprocess = preprocess

    loaders = data.evaluation_loaders()

    assert list(loaders) == ["test", "shift", "noise"]
    assert data.evaluation_classes() == {"test": None, "shift": (1, 2), "noise": None}
    assert torch.cat([batch.labels for batch in loaders["shift"]]).tolist() == [0, 0, 1, 1, 1]
    assert torch.cat([batch.labels for batch in loaders["noise"]]).tolist() == [0, 0, 1, 2, 2]
    assert next(iter(loaders["test"])).images.shape == (4, 3, 8, 8)


def test_every_image_that_the_run_will_need_is_checked_and_no_other(
    source: ImageFolder, root: Path, preprocess: PreprocessLike
) -> None:
    data, sound = (FewShotDataModule(source, FewShotSplit(4), LOADING, {"shift": shift(root)}) for _ in range(2))
    data.preprocess = sound.preprocess = preprocess
    sound.check()
    unused = set(source.split("train").names) - set(data.train_samples.names)
    for path in ("train/" + sorted(unused)[0], "train/" + data.train_samples.names[0], "shift/emu/2.png"):
        (root / path).write_bytes(b"")

    with pytest.raises(InputError) as error:
        data.check()

    lines = str(error.value).splitlines()
    assert lines[0] == f"2 of {12 + 5 + 5} images cannot be used:"
    assert f"train: cannot read {root}/train/{data.train_samples.names[0]}: " in lines[1]
    assert f"shift: cannot read {root}/shift/emu/2.png: " in lines[2]


def test_a_class_with_fewer_images_than_shots_is_named_or_kept(source: ImageFolder) -> None:
    with pytest.raises(InputError, match=r"2 classes have fewer than shots=6 training images: cat \(5\), emu \(4\)"):
        FewShotDataModule(source, FewShotSplit(6), LOADING)

    data = FewShotDataModule(source, FewShotSplit(6, short_classes="keep"), LOADING)
    assert [data.train_samples.labels.count(c) for c in range(3)] == [5, 6, 4]


def test_a_class_that_occurs_only_in_the_test_list_is_named(tmp_path: Path) -> None:
    split = tmp_path / "split.json"
    split.write_text('{"train": [["a.png", 0, "cat"]], "val": [], "test": [["b.png", 1, "hot_dog"]]}')
    source = SplitFile("mine", str(tmp_path), str(split))

    with pytest.raises(InputError, match=r"1 classes have fewer than shots=1 training images: hot dog \(0\)"):
        FewShotDataModule(source, FewShotSplit(1), LOADING)


def test_an_evaluation_set_with_a_class_that_is_not_trained_is_refused(
    source: ImageFolder, make_tree: Callable[..., Path]
) -> None:
    root = make_tree("other", {"cat": 1, "emus": 1})
    other = ImageFolder(str(root), train="other", test="other", name="other")

    with pytest.raises(InputError, match="other: 1 classes are not among the trained ones: 'emus', nearest 'emu'"):
        FewShotDataModule(source, FewShotSplit(1), LOADING, {"other": other})


def test_the_name_of_the_own_test_set_is_taken(source: ImageFolder, root: Path) -> None:
    with pytest.raises(InputError, match="an evaluation set cannot be named 'test'"):
        FewShotDataModule(source, FewShotSplit(1), LOADING, {"test": shift(root)})


def test_batches_before_the_backbone_is_known_are_a_wrong_order(source: ImageFolder) -> None:
    with pytest.raises(RuntimeError, match="set preprocess"):
        FewShotDataModule(source, FewShotSplit(1), LOADING).train_dataloader()
