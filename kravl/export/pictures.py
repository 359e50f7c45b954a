"""What formats without a library of transforms take along: pictures.py, and an example to trace a model with."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from kravl.data.loading.transforms import height_width
from kravl.export.plain import PlainModel

PICTURES = "pictures.py"


def copy_pictures(folder: Path) -> None:
    """Put the module that prepares pictures beside load.py, which runs it."""
    shutil.copyfile(Path(__file__).parent / "loaders" / PICTURES, folder / PICTURES)


def example_images(model: PlainModel) -> Tensor:
    """Two images: one would be traced as a constant."""
    return torch.zeros(2, 3, *height_width(model.run.classifier.preprocess.image_size))


@contextmanager
def without_fast_path() -> Iterator[None]:
    """Within the block attention is traced as its operations, not as one that other runtimes lack."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
