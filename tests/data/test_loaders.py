"""What is cached in memory or in a file changes no bit of a batch."""

import os
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning_fabric.utilities.apply_func import move_data_to_device

from kravl.data.loading.dataset import Crops
from kravl.data.loading.loaders import Loaders
from kravl.data.loading.resumable import Batch, LoadingSettings, require_handles
from kravl.data.loading.transforms import PreprocessLike
from kravl.data.source import Samples
from kravl.data.sources.folder import ImageFolder
from kravl.runtime.errors import InputError

LOADING = LoadingSettings(batch_size=4, eval_batch_size=4, num_workers=0)


@pytest.fixture
def samples(make_tree: Callable[..., Path]) -> Samples:
    return ImageFolder(str(make_tree("train", {"cat": 5, "dog": 4})), train="train").split("train")


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, b) for pair in zip(left, right, strict=True) for a, b in zip(*pair, strict=True)
    )


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_from_the_kept_file_is_that_from_the_images(
    num_workers: int, samples: Samples, preprocess: PreprocessLike, tmp_path: Path
) -> None:
    cached = replace(LOADING, cache_root=str(tmp_path / "cache"), num_workers=num_workers)
    plain, first, later = (
        Loaders(preprocess, loading, samples, {"test": samples}) for loading in (LOADING, cached, cached)
    )
    expected = list(plain.evaluation()["test"])

    first.check()
    for i in range(len(samples)):
        state = (samples.file(i) or Path()).stat()
        # the same size and time, other pixels: whoever reads the image itself would see it
        (samples.file(i) or Path()).write_bytes(b"\0" * state.st_size)
        os.utime(samples.file(i) or "", ns=(state.st_atime_ns, state.st_mtime_ns))

    assert same(list(first.evaluation()["test"]), expected)
    assert same(list(later.evaluation()["test"]), expected)


@pytest.mark.parametrize("loading", [LOADING, replace(LOADING, augmentation="none")])
def test_training_reads_each_image_once_and_before_the_first_batch(
    loading: LoadingSettings, samples: Samples, preprocess: PreprocessLike
) -> None:
    expected = list(Loaders(preprocess, loading, samples, {}).training())
    loaders = Loaders(preprocess, loading, samples, {})

    loaders.check()
    for i in range(len(samples)):
        (samples.file(i) or Path()).unlink()

    assert same(list(loaders.training()), expected)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_arrive_on_the_device_as_they_were_made(
    num_workers: int, samples: Samples, preprocess: PreprocessLike, device: str
) -> None:
    plain, loading = replace(LOADING, transforms="tensor"), replace(LOADING, num_workers=num_workers)
    expected = list(Loaders(preprocess, LOADING, samples, {}).training())
    batches = list(Loaders(preprocess, loading, samples, {}).training())
    crops = list(Loaders(preprocess, replace(plain, num_workers=num_workers), samples, {}).training())

    pinned = torch.cuda.is_available()
    assert all(tensor.is_pinned() == pinned for batch in batches for tensor in batch)
    assert all(view.is_pinned() for batch in crops if isinstance(batch, Crops) for view in batch.views)
    there = [move_data_to_device(batch, device) for batch in batches]
    assert {tensor.device.type for batch in there for tensor in batch} == {device}
    assert same([move_data_to_device(batch, "cpu") for batch in there], expected)


def test_without_augmentation_training_sees_what_evaluation_sees(samples: Samples, preprocess: PreprocessLike) -> None:
    loaders = Loaders(preprocess, replace(LOADING, augmentation="none"), samples, {"test": samples})

    trained = {int(i): x for batch in loaders.training() for i, x in zip(batch.indices, batch.images, strict=True)}
    evaluated = {
        int(i): x for batch in loaders.evaluation()["test"] for i, x in zip(batch.indices, batch.images, strict=True)
    }

    assert sorted(trained) == sorted(evaluated) == list(range(9))
    assert all(torch.equal(trained[i], evaluated[i]) for i in range(9))


def test_transforms_on_tensors_change_training_a_little_and_evaluation_not_at_all(
    samples: Samples, preprocess: PreprocessLike
) -> None:
    exact, fast = (
        Loaders(preprocess, replace(LOADING, transforms=engine), samples, {"test": samples})
        for engine in ("pil", "tensor")
    )

    trained = [loaders.finish(next(iter(loaders.training()))) for loaders in (exact, fast)]

    assert torch.equal(trained[0].indices, trained[1].indices)
    assert not torch.equal(trained[0].images, trained[1].images)
    levels = 255 * 0.3 * (trained[0].images - trained[1].images).abs()  # of a standard deviation of 0.3
    assert levels.mean() < 1
    assert same(list(exact.evaluation()["test"]), list(fast.evaluation()["test"]))


def test_too_few_file_handles_for_workers_are_a_line_and_few_allowed_ones_are_raised(monkeypatch):
    limits = [(64, 100)]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda kind, given: limits.append(given))

    with pytest.raises(InputError, match=r"num_workers=2 may take 106 file handles, and this process may have 100"):
        require_handles(LoadingSettings(num_workers=2))
    require_handles(LoadingSettings(num_workers=1))
    require_handles(LoadingSettings(num_workers=0))

    assert limits == [(64, 100), (85, 100)]
