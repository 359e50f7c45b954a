"""Each style does to a pictogram what its name says, and no more."""

import numpy as np
import pytest
from PIL import Image

from kravl.data.sources.openmoji.source import Pictograms

EVERY_CLASS = range(0, 275, 3)  # positions in the test split: some pictures of every class
SOME = range(0, 275, 27)


def pixels(style: str, position: int) -> np.ndarray:
    return np.asarray(Pictograms(style, size=64).split("test").image(position)).astype(float)


@pytest.mark.parametrize("position", SOME)
def test_line_art_has_no_colour_and_keeps_every_line(position: int) -> None:
    lines, colour = pixels("line_art", position), pixels("color", position)

    assert np.ptp(lines, axis=2).max() == 0
    assert np.all(lines[..., 0] >= colour.min(axis=2) - 8)
    assert lines.min() < 60
    assert lines.mean() >= colour.mean() - 1


def test_line_art_leaves_the_fill_of_a_face_white() -> None:
    face = pixels("line_art", 0)

    assert tuple(face[15, 32]) == (255, 255, 255)


@pytest.mark.parametrize("position", SOME)
def test_black_and_white_is_the_luminance(position: int) -> None:
    expected = pixels("color", position) @ [0.299, 0.587, 0.114]  # ITU-R BT.601

    grey = pixels("black_and_white", position)

    assert np.abs(grey - expected[..., None]).max() <= 1


@pytest.mark.parametrize("position", SOME)
def test_a_silhouette_is_black_wherever_there_is_ink_and_has_no_hole(position: int) -> None:
    shape, colour = pixels("silhouette", position), pixels("color", position)

    assert np.all(shape.max(axis=2)[colour.max(axis=2) < 20] < 40)
    assert ((shape > 60) & (shape < 200)).mean() < 0.1
    assert shape.mean() <= colour.mean()


def test_a_silhouette_hides_what_is_inside_of_the_contour() -> None:
    happy, unhappy = (pixels("silhouette", Pictograms().split("test").labels.index(label)) for label in (0, 1))

    assert np.abs(happy - unhappy).mean() < 8  # of 255: discs of one size, by half a pixel elsewhere
    assert happy[16:48, 16:48].max() == unhappy[16:48, 16:48].max() == 0


@pytest.mark.parametrize("position", SOME)
def test_dark_mode_inverts_lightness_and_keeps_hue(position: int) -> None:
    dark, colour = (pixels(style, position) for style in ("dark_mode", "color"))

    def lightness(x: np.ndarray) -> np.ndarray:
        return (x.max(axis=2) + x.min(axis=2)) / 2

    assert tuple(dark[0, 0]) == (18, 18, 18)
    assert np.abs(lightness(dark) - (18 + (255 - lightness(colour)) * 237 / 255)).max() <= 1
    # hue and chroma are the distances of the channels from the smallest one
    hue, expected = (x - x.min(axis=2, keepdims=True) for x in (dark, colour))
    assert np.abs(hue - expected * 237 / 255).max() <= 1


def test_a_texture_is_around_the_drawing_alone_and_differs_by_picture() -> None:
    first, colour = pixels("textured", 0), pixels("color", 0)

    assert np.array_equal(first[20:44, 20:44], colour[20:44, 20:44])
    assert first[:5].std(axis=(0, 1)).max() > 3
    assert not np.array_equal(first[:5], pixels("textured", 1)[:5])


def test_a_rotated_drawing_is_turned_by_20_to_60_degrees_and_whole() -> None:
    samples = Pictograms("rotated", size=64).split("test")
    arrow = samples.names.index("27A1")

    for i in EVERY_CLASS:
        border = np.asarray(samples.image(i)).astype(int)
        edge = np.concatenate([border[0], border[-1], border[:, 0], border[:, -1]])
        assert (edge.min(axis=1) < 128).sum() <= 4  # a tip may touch the edge, a cut would show as a run
    rows, columns = np.nonzero(pixels("rotated", arrow).max(axis=2) < 100)
    direction = np.linalg.eigh(np.cov(columns, rows))[1][:, -1]
    angle = np.degrees(np.arctan2(abs(direction[1]), abs(direction[0])))
    assert 18 <= angle <= 62


def test_low_resolution_is_what_sixteen_pixels_hold() -> None:
    blurred = Pictograms("low_resolution", size=64).split("test").image(5)
    sharp = Pictograms("color", size=64).split("test").image(5)

    held = sharp.resize((16, 16), Image.Resampling.BOX).resize((64, 64), Image.Resampling.BILINEAR)
    assert np.array_equal(np.asarray(blurred), np.asarray(held))
    assert not np.array_equal(np.asarray(blurred), np.asarray(sharp))
