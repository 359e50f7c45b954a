"""Letters drawn in the fonts of matplotlib: small pictures that every machine has, with a real shift of design."""

import random
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

SIZE = 64  # pixels
SETS = {"train": ("DejaVuSans", 6), "test": ("DejaVuSans", 5), "serif": ("DejaVuSerif", 4)}  # font, pictures a letter


def write(folder: Path, letters: str) -> None:
    """``folder``/<set>/<letter>/<number>.png, the same pictures each time."""
    fonts = Path(matplotlib.get_data_path()) / "fonts/ttf"
    for name, (font, count) in SETS.items():
        for letter in letters:
            rng = random.Random(f"{name}{letter}")
            (folder / name / letter).mkdir(parents=True)
            for i in range(count):
                _draw(letter, fonts / f"{font}.ttf", rng).save(folder / name / letter / f"{i}.png")


def _draw(letter: str, font: Path, rng: random.Random) -> Image.Image:
    """``letter`` in dark ink on light paper, its size, place and tilt a little at random, RGB of 64 x 64 pixels."""
    paper, ink = (tuple(rng.randint(low, low + 55) for _ in range(3)) for low in (200, 0))
    image = Image.new("RGB", (SIZE, SIZE), paper)
    place = (SIZE / 2 + rng.uniform(-3, 3), SIZE / 2 + rng.uniform(-3, 3))
    ImageDraw.Draw(image).text(place, letter, ink, ImageFont.truetype(font, rng.randint(40, 52)), anchor="mm")
    return image.rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC, fillcolor=paper)
