"""Handwritten digits (UCI optdigits, its test set of 13 writers) from the Python package scikit-learn."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from kravl.data import catalog
from kravl.data.images import Opener
from kravl.data.source import Samples, Source
from kravl.runtime.errors import InputError, unknown
from kravl.runtime.shared import Key

PACKAGE = "sklearn"
FILE = "datasets/data/digits.csv.gz"  # one image per line: 64 pixels, row by row, and the digit
FULL = 16  # the value of a pixel that is all ink
TRAIN = 898  # images of the first half, which others wrote than the second
TURN = 20  # degrees of the style `rotated`
STYLES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "ink": lambda image: image,  # white on black, as the set has it
    "inverted": ImageOps.invert,
    "rotated": lambda image: image.resize((64, 64), Image.Resampling.BICUBIC).rotate(TURN, Image.Resampling.BICUBIC),
}


@dataclass(frozen=True)
class DigitOpener(Opener):
    """The images from row ``start`` on in a style, as RGB."""

    start: int
    style: str

    def __call__(self, position: int) -> Image.Image:
        ink = _rows()[self.start + position, :-1].reshape(8, 8)
        drawn = Image.fromarray(np.round(ink * (255 / FULL)).astype(np.uint8))
        return STYLES[self.style](drawn).convert("RGB")

    def identity(self, position: int) -> Key:
        return PACKAGE, self.start + position, self.style


class Digits(Source):
    """Ten classes; the first half is trained on, as in scikit-learn's example of recognising digits.

    Args:
        style: a name of `STYLES`.

    Raises:
        InputError: an unknown style (the nearest is named), or the package scikit-learn is missing.
    """

    def __init__(self, style: str = "ink", templates: str = "single") -> None:
        if style not in STYLES:
            raise unknown("style of digits", style, STYLES)
        _rows()
        self._style = style
        classes = catalog.class_names("digits")
        assert classes is not None
        super().__init__("digits", classes, ("train", "test"), (style,), templates=templates)

    def samples(self, split: str) -> Samples:
        """The images in the order of the file, named by its row."""
        start, end = (0, TRAIN) if split == "train" else (TRAIN, len(_rows()))
        names = tuple(f"digits/{row:04d}" for row in range(start, end))
        return Samples(names, tuple(int(label) for label in _rows()[start:end, -1]), DigitOpener(start, self._style))


@cache
def _rows() -> NDArray[np.uint8]:
    package = importlib.util.find_spec(PACKAGE)  # importing it would take a second and is not needed
    if package is None or package.origin is None:
        raise InputError("data=digits needs the package scikit-learn: pip install 'kravl[quickstart]'")
    return np.loadtxt(Path(package.origin).parent / FILE, delimiter=",", dtype=np.uint8)
