"""Pictures as a model expects them, from the ``preprocess`` of export.json, with Pillow and numpy alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image


def prepare(pictures: Sequence[Image.Image], preprocess: Mapping[str, Any]) -> np.ndarray:
    """Resized, cropped at the centre and normalised: (n, 3, height, width) in float32."""
    return np.stack([_prepared(picture.convert("RGB"), preprocess) for picture in pictures])


def _prepared(picture: Image.Image, preprocess: Mapping[str, Any]) -> np.ndarray:
    resampling = Image.Resampling[preprocess["interpolation"].upper()]
    resized = picture.resize(_size(picture, preprocess), resampling)
    height, width = _sides(preprocess["image_size"])
    canvas = Image.new("RGB", (max(width, resized.width), max(height, resized.height)), tuple(preprocess["fill"]))
    canvas.paste(resized, ((canvas.width - resized.width) // 2, (canvas.height - resized.height) // 2))
    left, top = round((canvas.width - width) / 2), round((canvas.height - height) / 2)
    pixels = np.asarray(canvas.crop((left, top, left + width, top + height)), dtype=np.float32) / np.float32(255)
    mean, std = (np.array(preprocess[key], dtype=np.float32) for key in ("mean", "std"))
    return ((pixels - mean) / std).transpose(2, 0, 1)


def _size(picture: Image.Image, preprocess: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height that it is resized to."""
    height, width = _sides(preprocess["resize"])
    mode = preprocess["resize_mode"]
    if mode == "squash":
        return width, height
    if mode == "shortest" and height == width:
        short = min(picture.size)
        first, second = (height if side == short else int(height * side / short) for side in picture.size)
        return first, second
    ratios = picture.height / height, picture.width / width
    ratio = max(ratios) if mode == "longest" else min(ratios)
    return max(round(picture.width / ratio), 1), max(round(picture.height / ratio), 1)


def _sides(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width
