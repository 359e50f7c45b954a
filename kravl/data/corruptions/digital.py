"""Digital: contrast and elastic transform on pixels (h, w, 3) in [0, 1], pixelation and JPEG on 8-bit images."""

import io

import numpy as np
from PIL import Image

from kravl.data.corruptions.filters import Pixels, gaussian, sample

CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)
# height and sigma of the displacements, largest shift of three points, in pixels; 244 is the published code's number
ELASTIC = tuple(tuple(244 * f for f in c) for c in (
    (2, 0.7, 0.1),
    (2, 0.08, 0.2),
    (0.05, 0.01, 0.02),
    (0.07, 0.01, 0.02),
    (0.12, 0.01, 0.02),
))  # fmt: skip
PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)
JPEG_QUALITY = (25, 18, 15, 10, 7)


def contrast(x: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Each channel drawn towards its mean."""
    mean = x.mean(axis=(0, 1), keepdims=True)
    return (x - mean) * CONTRAST[severity - 1] + mean


def elastic_transform(x: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """A random affine map, then smooth random displacements."""
    height_of, sigma, shift = ELASTIC[severity - 1]
    height, width = x.shape[:2]
    rows, columns = np.meshgrid(np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64), indexing="ij")
    x = sample(x, *_affine(rows, columns, shift, rng), "reflect")
    right, down = (
        height_of * gaussian(rng.uniform(-1, 1, (height, width)), sigma, "symmetric", truncate=3) for _ in range(2)
    )
    return sample(x, rows + down, columns + right, "symmetric")


def _affine(rows: Pixels, columns: Pixels, shift: float, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Where the pixels come from if three corners of the central square move by up to ``shift``."""
    height, width = rows.shape
    reach = min(height, width) // 3
    centre = np.array([width // 2, height // 2])
    before = centre + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    after = before + rng.uniform(-shift, shift, before.shape)
    # x y 1 of the target -> x y of the origin
    back = np.linalg.solve(np.column_stack([after, np.ones(3)]), before)
    origin = columns[..., None] * back[0] + rows[..., None] * back[1] + back[2]
    return origin[..., 1], origin[..., 0]


def pixelate(image: Image.Image, severity: int) -> Image.Image:
    """Shrunk and enlarged again, both by box filters."""
    factor = PIXELATE[severity - 1]
    small = (max(1, int(image.width * factor)), max(1, int(image.height * factor)))
    return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.BOX)


def jpeg_compression(image: Image.Image, severity: int) -> Image.Image:
    """Through a JPEG of low quality."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY[severity - 1])
    with Image.open(buffer) as compressed:
        return compressed.convert("RGB")
