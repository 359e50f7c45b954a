"""A contact sheet: labelled images of a data set in one picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import matplotlib
from PIL import Image, ImageDraw, ImageFont, ImageOps

from kravl.data.corruptions.source import CORRUPTIONS, Corrupted
from kravl.data.source import Samples, Source
from kravl.runtime.errors import InputError

GAP = 4  # pixels between tiles
TEXT = 13  # pixels
LABEL_WIDTH = 180
SEVERITIES = (1, 2, 3, 4, 5)
Item = TypeVar("Item")
INK, FAINT, PAPER, ALARM = "#222222", "#777777", "white", "#B00020"


class SheetRow(NamedTuple):
    """A labelled row of images; a text in place of an image is the reason why there is none."""

    label: str
    images: Sequence[Image.Image | str]


def class_rows(samples: Samples, class_names: Sequence[str], num_classes: int, num_samples: int) -> list[SheetRow]:
    """``num_classes`` classes and ``num_samples`` images of each, both spread evenly."""
    of_class: dict[int, list[int]] = {label: [] for label in range(len(class_names))}
    for i, label in enumerate(samples.labels):
        of_class[label].append(i)
    return [
        SheetRow(
            f"{class_names[label]} ({len(of_class[label])})",
            [_image(samples, i) for i in spread(of_class[label], num_samples)],
        )
        for label in spread(range(len(class_names)), num_classes)
    ]


def set_rows(sets: Mapping[str, Samples], num_samples: int) -> list[SheetRow]:
    """A row each set, its images spread evenly: in sets of the same images in other styles, the same of them."""
    return [
        SheetRow(name.replace("_", " "), [_image(samples, i) for i in spread(range(len(samples)), num_samples)])
        for name, samples in sets.items()
    ]


def corruption_rows(source: Source, corruption: str, num_samples: int) -> list[SheetRow]:
    """Clean, then severity 1 to 5: every corruption of one test image (``all``), or one of several images.

    Raises:
        InputError: no such corruption (the nearest is named), or a source without test images.
    """
    clean = source.split("test")
    if corruption == "all":
        subset = _Subset(source, clean.subset(spread(range(len(clean)), 1)))
        return [_corrupted(subset, name, 0, name.replace("_", " ")) for name in CORRUPTIONS]
    subset = _Subset(source, clean.subset(spread(range(len(clean)), num_samples)))
    Corrupted(subset, corruption, SEVERITIES[0])
    labels = subset.split("test").labels
    return [_corrupted(subset, corruption, i, source.class_names[label]) for i, label in enumerate(labels)]


class _Subset(Source):
    """Some test images of a source, listed once."""

    def __init__(self, source: Source, chosen: Samples) -> None:
        super().__init__(source.name, source.class_ids, ("test",), source.identity, source.class_names)
        self._chosen = chosen

    def samples(self, split: str) -> Samples:
        return self._chosen


def draw_sheet(title: str, rows: Sequence[SheetRow], columns: Sequence[str], tile: int) -> Image.Image:
    """The sheet: a title, ``columns`` as headings (or none), and each row's images cropped to squares.

    Args:
        tile: side of a square in pixels.
    """
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), TEXT)
    num_columns = max(len(row.images) for row in rows)
    top = 3 * TEXT + (2 * TEXT if columns else 0)
    width = max(LABEL_WIDTH + num_columns * (tile + GAP) + GAP, math.ceil(font.getlength(title)) + 2 * TEXT)
    sheet = Image.new("RGB", (width, top + len(rows) * (tile + GAP)), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((TEXT, TEXT), title, INK, font)
    for column, heading in enumerate(columns):
        middle = LABEL_WIDTH + column * (tile + GAP) + tile / 2
        pen.text((middle, top - TEXT / 2), heading, FAINT, font, anchor="ms")
    for line, row in enumerate(rows):
        y = top + line * (tile + GAP)
        pen.multiline_text(
            (TEXT, y + tile / 2), _wrapped(row.label, font, LABEL_WIDTH - 2 * TEXT), INK, font, anchor="lm"
        )
        for column, image in enumerate(row.images):
            x = LABEL_WIDTH + column * (tile + GAP)
            sheet.paste(_tile(image, tile, font), (x, y))
    return sheet


def _tile(image: Image.Image | str, side: int, font: ImageFont.FreeTypeFont) -> Image.Image:
    """The image cropped to a square, or the beginning of the reason why there is none."""
    if isinstance(image, Image.Image):
        return ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)
    tile = Image.new("RGB", (side, side), PAPER)
    ImageDraw.Draw(tile).multiline_text((GAP, GAP), _wrapped(image, font, side - 2 * GAP), ALARM, font)
    return tile


def _corrupted(source: Source, corruption: str, i: int, label: str) -> SheetRow:
    images: list[Image.Image | str] = [_image(source.split("test"), i)]
    for severity in SEVERITIES:
        try:
            images.append(Corrupted(source, corruption, severity).split("test").image(i))
        except InputError as error:
            images.append(str(error))
    return SheetRow(label, images)


def _image(samples: Samples, i: int) -> Image.Image | str:
    try:
        return samples.image(i)
    except InputError as error:
        return str(error)


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """``count`` evenly spaced ``items``, including the first; all if there are no more."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else list(items)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Lines no wider than ``width`` pixels, broken at spaces, else within a word."""
    lines = [""]
    for word in text.split():
        while font.getlength(word) > width:
            fits = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or font.getlength(word[:n]) <= width)
            lines += [word[:fits]]
            word = word[fits:]
        if font.getlength(f"{lines[-1]} {word}".strip()) <= width:
            lines[-1] = f"{lines[-1]} {word}".strip()
        else:
            lines.append(word)
    return "\n".join(line for line in lines if line)
