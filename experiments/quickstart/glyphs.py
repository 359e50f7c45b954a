"""Draw the letters A to Z in the fonts that come with matplotlib: pictures for a first run without any download.

    python experiments/quickstart/glyphs.py data/glyphs

One font family is the training domain, three others are real shifts of design (serif, STIX, Computer Modern).
"""

import argparse
import random
import string
import zlib
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

SIZE = 64  # pixels
FAMILIES = {
    "sans": ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold"),
    "serif": ("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic"),
    "stix": ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic"),
    "computer_modern": ("cmr10", "cmb10", "cmss10", "cmtt10"),
}
SETS = {  # folder: family, pictures a letter
    "train": ("sans", 16),
    "test": ("sans", 10),
    "serif": ("serif", 10),
    "stix": ("stix", 10),
    "computer_modern": ("computer_modern", 10),
}


def draw(letter: str, font: Path, rng: random.Random) -> Image.Image:
    """``letter`` in dark ink on light paper, its size, place and tilt a little at random, RGB of 64 x 64 pixels."""
    paper, ink = (tuple(rng.randint(low, low + 55) for _ in range(3)) for low in (200, 0))
    image = Image.new("RGB", (SIZE, SIZE), paper)
    place = (SIZE / 2 + rng.uniform(-3, 3), SIZE / 2 + rng.uniform(-3, 3))
    ImageDraw.Draw(image).text(place, letter, ink, ImageFont.truetype(font, rng.randint(40, 52)), anchor="mm")
    return image.rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC, fillcolor=paper)


def write(folder: Path) -> None:
    """All sets under ``folder``, the same pictures each time."""
    fonts = Path(matplotlib.get_data_path()) / "fonts/ttf"
    for name, (family, count) in SETS.items():
        for letter in string.ascii_uppercase:
            rng = random.Random(zlib.crc32(f"{name}/{letter}".encode()))
            (folder / name / letter).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                font = fonts / f"{FAMILIES[family][i % len(FAMILIES[family])]}.ttf"
                draw(letter, font, rng).save(folder / name / letter / f"{i:02d}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    write(parser.parse_args().folder)
