"""Test images and what was predicted of them as one picture, for trackers without tables of pictures."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageOps

from kravl.tracking.trackers.tracker import Sample

SIDE = 128  # pixels of a thumbnail
TEXT = 26  # of two lines below it
COLUMNS = 8
LETTERS = 20  # that fit
RIGHT, WRONG, PAPER = "black", "red", "white"


def contact_sheet(rows: Sequence[Sample]) -> Image.Image:
    """Thumbnails in rows of eight, below each its class and, in red where it is another, what was predicted."""
    columns = max(1, min(COLUMNS, len(rows)))
    size = (columns * SIDE, max(1, -(-len(rows) // columns)) * (SIDE + TEXT))
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, (image, label, predicted, probability) in enumerate(rows):
        x, y = place % columns * SIDE, place // columns * (SIDE + TEXT)
        sheet.paste(ImageOps.contain(image.convert("RGB"), (SIDE, SIDE)), (x, y))
        draw.text((x + 2, y + SIDE), label[:LETTERS], RIGHT)
        said = f"{predicted[: LETTERS - 5]} {probability:.2f}"
        draw.text((x + 2, y + SIDE + TEXT // 2), said, RIGHT if predicted == label else WRONG)
    return sheet
