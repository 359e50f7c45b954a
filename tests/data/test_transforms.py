"""Images reach the tower as torchvision makes them, and augmentation is a function of its seed alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from kravl.data.transforms import Preprocess, eval_transform, make_transforms, train_transform, transform_seeded
from kravl.errors import InputError

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8))
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def test_evaluation_resizes_the_short_side_and_crops_the_centre() -> None:
    resized = PHOTO.resize((10, 15), Image.Resampling.BICUBIC)
    pixels = np.asarray(resized.crop((1, 4, 9, 12))) / 255  # Pillow's offsets: round((15 - 8) / 2) = 4
    expected = ((pixels - MEAN) / STD).transpose(2, 0, 1)

    image = eval_transform(size=8, resize=10, mean=MEAN, std=STD, interpolation="bicubic")(PHOTO)

    assert image.dtype == torch.float32
    assert np.abs(image.numpy() - expected).max() < 1e-6


def test_augmentation_is_a_function_of_its_seed() -> None:
    transform = train_transform(8, MEAN, STD, "bicubic")
    torch.manual_seed(0)
    before = torch.get_rng_state()

    images = [transform_seeded(transform, PHOTO, seed) for seed in (1, 2, 1)]

    assert torch.equal(images[0], images[2])
    assert not torch.equal(images[0], images[1])
    assert torch.equal(torch.get_rng_state(), before)


def test_augmentation_crops_and_flips_half_of_the_time() -> None:
    ramp = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (200, 1, 3)))
    transform = train_transform(8, (0, 0, 0), (1, 1, 1), "bilinear")

    images = torch.stack([transform_seeded(transform, ramp, seed) for seed in range(200)])

    slopes = images[:, 0, 0, -1] - images[:, 0, 0, 0]
    assert 70 < int((slopes < 0).sum()) < 130
    assert slopes.abs().min() < 0.4 * slopes.abs().max()


def test_without_augmentation_training_sees_what_evaluation_sees(preprocess: Preprocess) -> None:
    training, evaluation = make_transforms(preprocess, "none")

    assert torch.equal(transform_seeded(training, PHOTO, 1), evaluation(PHOTO))
    assert evaluation(PHOTO).shape == (3, 8, 8)


def test_an_unknown_augmentation_or_interpolation_is_named_with_the_nearest(preprocess: Preprocess) -> None:
    with pytest.raises(InputError, match="unknown augmentation 'crop': did you mean 'crop_flip'"):
        make_transforms(preprocess, "crop")
    with pytest.raises(InputError, match="unknown interpolation 'bicubc': did you mean 'bicubic'"):
        make_transforms(replace(preprocess, interpolation="bicubc"), "crop_flip")
