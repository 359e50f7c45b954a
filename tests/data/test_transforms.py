"""Images reach the tower with the very bits of torchvision's transforms on PIL images."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from kravl.data.loading.transforms import INTERPOLATIONS, CentreCrop, Normalization
from kravl.runtime.errors import InputError

RNG = np.random.default_rng(0)
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def photo(width: int, height: int) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [(20, 30), (41, 17), (10, 10), (1, 9)])
def test_evaluation_has_the_bits_of_torchvisions_transforms(size: tuple[int, int], interpolation: str) -> None:
    image = photo(*size)
    mode = InterpolationMode(interpolation)
    resize_crop = [transforms.Resize(10, interpolation=mode), transforms.CenterCrop(8)]
    expected = transforms.Compose([*resize_crop, transforms.ToTensor(), transforms.Normalize(*CLIP)])(image)

    pixels = CentreCrop(size=8, resize=10, interpolation=interpolation)(image)

    assert torch.equal(Normalization(*CLIP)([pixels.transpose(2, 0, 1)])[0], expected)


def test_evaluation_resizes_the_short_side_and_crops_the_centre() -> None:
    image = photo(20, 30)
    resized = image.resize((10, 15), Image.Resampling.BICUBIC)

    pixels = CentreCrop(size=8, resize=10, interpolation="bicubic")(image)

    assert np.array_equal(pixels, np.asarray(resized.crop((1, 4, 9, 12))))  # Pillow's offsets: round((15 - 8) / 2) = 4


@pytest.mark.parametrize("statistics", [CLIP, IMAGENET, ((0.5,) * 3, (0.5,) * 3)])
def test_every_value_of_a_pixel_is_normalised_as_torchvision_does(statistics: tuple[tuple[float, ...], ...]) -> None:
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    expected = transforms.Normalize(*statistics)(transforms.ToTensor()(Image.fromarray(every)))

    batch = Normalization(*statistics)([every.transpose(2, 0, 1), np.ascontiguousarray(every.transpose(2, 0, 1))])

    assert batch.shape == (2, 3, 16, 16)
    assert torch.equal(batch[0], expected)
    assert torch.equal(batch[1], expected)


def test_an_unknown_interpolation_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown interpolation 'bicubc': did you mean 'bicubic'"):
        CentreCrop(8, 9, "bicubc")
