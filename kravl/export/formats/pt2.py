"""A program of ``torch.export`` (https://docs.pytorch.org/docs/stable/export.html): images to logits, any batch."""

from pathlib import Path

import torch
from torch import nn

from kravl.export.pictures import copy_pictures, example_images, without_fast_path
from kravl.export.plain import PlainModel
from kravl.runtime.errors import InputError, first_line

HOLDS_HEADS = True
TOLERANCE = 1e-5
MOST = 2**16  # images in a batch


def write(model: PlainModel, folder: Path) -> list[str]:
    """classifier.pt2 with the classes baked in."""
    copy_pictures(folder)
    with without_fast_path(), torch.no_grad():
        program = exported(model.classifier(), example_images(model), model.run.cfg.backbone.name)
    torch.export.save(program, folder / "classifier.pt2")
    return ["pt2 holds one program, the classifier: no text tower, no tokenizer"] if model.is_clip else []


def exported(module: nn.Module, example: torch.Tensor, name: str) -> torch.export.ExportedProgram:
    """The program of ``module`` for batches of any size. Raises InputError where torch cannot trace it."""
    batch = torch.export.Dim("batch", min=1, max=MOST)
    try:
        return torch.export.export(module.eval(), (example,), dynamic_shapes=({0: batch},))
    except (RuntimeError, ValueError, AttributeError) as error:  # torch's own errors of tracing derive from these
        raise InputError(f"torch.export cannot trace {name}: {first_line(error)}") from error
