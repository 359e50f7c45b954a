"""The same pictogram in other styles: shifts that do not confuse a person.

Each takes a drawing as RGBA on a transparent ground and a generator, and gives RGB of the same size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from kravl.data.sources.openmoji.font import centred

Render = Callable[[Image.Image, np.random.Generator], Image.Image]

COVERED = 64  # of 255: opacity from which a pixel bounds a silhouette
DARK_GROUND = 18  # of 255: the background of dark mode
ANGLES = (20.0, 60.0)  # degrees of rotation, to either side
FEW_PIXELS = 16  # the side of a picture in low resolution
OCTAVES = (3, 6, 12, 24, 48)  # cells of a texture along one side, coarse to fine


@dataclass(frozen=True)
class Style:
    """How a drawing becomes a picture.

    Args:
        lines_only: start from the outlines instead of the coloured drawing.
    """

    render: Render
    lines_only: bool = False


def on_white(drawing: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The drawing on a white ground."""
    return _on(Image.new("RGB", drawing.size, "white"), drawing)


def black_and_white(drawing: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Grey levels, as a monochrome printer makes them."""
    return on_white(drawing, rng).convert("L").convert("RGB")


def silhouette(drawing: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Black wherever the outer contour encloses, white elsewhere."""
    opacity = np.asarray(drawing.getchannel("A"))
    # one pixel short of the contour, whose soft edge is kept
    inner = Image.fromarray(_enclosed(opacity >= COVERED).astype(np.uint8) * 255).filter(ImageFilter.MinFilter(3))
    return Image.fromarray(255 - np.maximum(opacity, np.asarray(inner))).convert("RGB")


def dark_mode(drawing: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Lightness inverted, hue and chroma kept: white lines on a dark ground."""
    pixels = np.asarray(on_white(drawing, rng), dtype=np.float64)  # (h, w, 3)
    # lightness in HLS is the mean of the largest and the smallest channel; adding one number to all keeps the hue
    inverted = pixels + 255 - pixels.max(axis=2, keepdims=True) - pixels.min(axis=2, keepdims=True)
    lifted = DARK_GROUND + inverted * (255 - DARK_GROUND) / 255
    return Image.fromarray(np.round(lifted).astype(np.uint8))


def textured(drawing: Image.Image, rng: np.random.Generator) -> Image.Image:
    """On a cloudy or grained ground between two random colours of middle lightness."""
    grain = np.zeros((drawing.height, drawing.width))
    stretch = rng.uniform(1, 4, size=2)  # grain along one axis, as of wood
    for octave in OCTAVES:
        rows, columns = (max(2, round(octave / factor)) for factor in stretch)
        cells = Image.fromarray(rng.normal(size=(rows, columns)).astype(np.float32))
        grain += np.asarray(cells.resize(drawing.size, Image.Resampling.BICUBIC)) * octave**-0.5
    share = 1 / (1 + np.exp(-2 * (grain - grain.mean()) / grain.std()))
    one, other = rng.uniform(110, 205, size=(2, 1)) + rng.uniform(-50, 50, size=(2, 3))
    ground = other + share[:, :, None] * (one - other)
    return _on(Image.fromarray(np.round(ground).astype(np.uint8)), drawing)


def rotated(drawing: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turned by 20 to 60 degrees to either side; smaller where it would not fit."""
    angle = rng.uniform(*ANGLES) * rng.choice((-1, 1))
    turned = drawing.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    return on_white(centred(turned, drawing.width), rng)


def low_resolution(drawing: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The size of a browser tab's icon, 16 x 16 pixels, and enlarged again."""
    small = on_white(drawing, rng).resize((FEW_PIXELS, FEW_PIXELS), Image.Resampling.BOX)
    return small.resize(drawing.size, Image.Resampling.BILINEAR)


STYLES = {
    "color": Style(on_white),
    "line_art": Style(on_white, lines_only=True),
    "black_and_white": Style(black_and_white),
    "silhouette": Style(silhouette),
    "dark_mode": Style(dark_mode),
    "textured": Style(textured),
    "rotated": Style(rotated),
    "low_resolution": Style(low_resolution),
}


def _on(ground: Image.Image, drawing: Image.Image) -> Image.Image:
    return Image.alpha_composite(ground.convert("RGBA"), drawing).convert("RGB")


def _enclosed(bound: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels from which no path over free pixels leads to the edge of the picture."""
    bound = np.pad(bound, 1)
    outside = np.zeros_like(bound)
    outside[0] = True
    while True:
        grown = _along_rows(_along_rows(outside, bound).T, bound.T).T
        if np.array_equal(grown, outside):
            return ~outside[1:-1, 1:-1]
        outside = grown


def _along_rows(outside: NDArray[np.bool_], bound: NDArray[np.bool_]) -> NDArray[np.bool_]:
    # whole runs of free pixels at once: a numpy step a pixel would take as many steps as a spiral is long
    run = np.cumsum(bound, axis=1) + np.arange(len(bound))[:, None] * (bound.shape[1] + 1)
    reached = np.bincount(run.ravel(), weights=outside.ravel()) > 0
    return reached[run] & ~bound
