"""A training loader hands out the same batches however often it is stopped, and whoever decodes them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kravl.data.loading.cache import Cache
from kravl.data.loading.dataset import EvaluationImages, TrainingImages
from kravl.data.loading.resumable import Batch, LoadingSettings, ResumableLoader, evaluation_loader
from kravl.data.loading.samplers import EpochSampler
from kravl.data.loading.transforms import CentreCrop, CropFlip, Normalization, PreprocessLike
from kravl.data.source import Samples
from kravl.data.sources.folder import ImageFolder
from kravl.runtime.errors import InputError


@pytest.fixture
def samples(make_tree: Callable[..., Path]) -> Samples:
    return ImageFolder(str(make_tree("train", {"cat": 5, "dog": 4})), train="train").split("train")


def training_loader(samples: Samples, preprocess: PreprocessLike, num_workers: int = 0) -> ResumableLoader:
    augment = CropFlip(preprocess.image_size, preprocess.interpolation)
    images = TrainingImages(Cache(samples), augment, Normalization(preprocess.mean, preprocess.std))
    return ResumableLoader(images, EpochSampler(9, min_draws=15, seed=1), batch_size=4, num_workers=num_workers)


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(x, y) for a, b in zip(left, right, strict=True) for x, y in zip(a, b, strict=True)
    )


def test_a_batch_has_images_labels_and_their_places_in_the_samples(
    samples: Samples, preprocess: PreprocessLike
) -> None:
    batches = list(training_loader(samples, preprocess))

    assert [len(batch.labels) for batch in batches] == [4, 4, 4, 3]
    assert batches[0].images.shape == (4, 3, 8, 8)
    assert batches[0].images.dtype == torch.float32
    for batch in batches:
        assert batch.labels.tolist() == [samples.labels[i] for i in batch.indices]


def test_an_image_is_augmented_anew_each_time_it_is_drawn(samples: Samples, preprocess: PreprocessLike) -> None:
    loader = training_loader(samples, preprocess)
    views: dict[int, list[Tensor]] = {}
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
                views.setdefault(index, []).append(image)

    assert sorted(views) == list(range(9))
    for seen in views.values():
        assert len(seen) in (2, 3, 4)
        assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_workers_hand_out_the_very_same_batches(samples: Samples, preprocess: PreprocessLike) -> None:
    alone, helped = training_loader(samples, preprocess), training_loader(samples, preprocess, num_workers=2)

    for epoch in range(2):
        for loader in (alone, helped):
            loader.sampler.set_epoch(epoch)
        assert same(list(alone), list(helped))


def test_the_epochs_order_does_not_depend_on_the_global_generator(samples: Samples, preprocess: PreprocessLike) -> None:
    torch.manual_seed(0)
    first = list(training_loader(samples, preprocess))
    state = torch.get_rng_state()
    torch.manual_seed(1)

    assert same(list(training_loader(samples, preprocess)), first)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stopped_epoch_goes_on_with_the_next_batch(
    num_workers: int, samples: Samples, preprocess: PreprocessLike
) -> None:
    whole = training_loader(samples, preprocess)
    whole.sampler.set_epoch(3)
    batches = list(whole)
    stopped = training_loader(samples, preprocess, num_workers)
    stopped.sampler.set_epoch(3)
    iterator = iter(stopped)
    seen = [next(iterator), next(iterator)]
    state = stopped.state_dict()

    resumed = training_loader(samples, preprocess, num_workers)
    resumed.load_state_dict(state)

    assert state == {"epoch": 3, "batches": 2}
    assert resumed.state_dict() == state
    assert same(seen + list(resumed), batches)
    assert len(resumed) == 4
    assert same(list(resumed), batches)  # the epoch after is whole again


def test_a_finished_epoch_goes_on_with_the_next_one(samples: Samples, preprocess: PreprocessLike) -> None:
    loader = training_loader(samples, preprocess)
    list(loader)
    resumed = training_loader(samples, preprocess)

    resumed.load_state_dict(loader.state_dict())

    loader.sampler.set_epoch(1)
    assert same(list(resumed), list(loader))


def test_evaluation_takes_every_image_in_order(samples: Samples, preprocess: PreprocessLike) -> None:
    crop = CentreCrop.of(preprocess)
    normalize = Normalization(preprocess.mean, preprocess.std)
    loader = evaluation_loader(
        EvaluationImages(samples, crop, normalize), LoadingSettings(eval_batch_size=4, num_workers=0)
    )

    batches = list(loader)

    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(9))
    assert torch.cat([batch.labels for batch in batches]).tolist() == list(samples.labels)
    assert torch.equal(batches[2].images, normalize([crop(samples.image(8)).transpose(2, 0, 1)]))
    assert loader.dataset.samples is samples


@pytest.mark.parametrize("name", ["batch_size", "eval_batch_size", "min_batches"])
def test_a_setting_below_its_least_value_is_named(name: str) -> None:
    with pytest.raises(InputError, match=f"loading.{name} is 0; it must be at least 1"):
        LoadingSettings(**{name: 0})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"augmentation": "crop"}, "unknown augmentation 'crop': did you mean 'crop_flip'"),
        ({"transforms": "tensr"}, "unknown data.transforms 'tensr': did you mean 'tensor'"),
    ],
)
def test_an_unknown_choice_is_named_with_the_nearest(setting: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LoadingSettings(**setting)
