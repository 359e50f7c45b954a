"""The visual projection of a CLIP, where it is a matrix of its own that a head can train in its place."""

from typing import Any

from torch import nn

from kravl.runtime.errors import InputError


def visual_projection(model: Any, name: str) -> nn.Parameter:
    """The projection (width, d) of an open_clip ``model``, which may lie on the meta device.

    Args:
        name: what errors call it.

    Raises:
        InputError: there is none, as in a ResNet, or it is part of another layer.
    """
    projection = getattr(getattr(model, "visual", None), "proj", None)
    if not isinstance(projection, nn.Parameter):
        raise InputError(
            f"{name} has no visual projection that is a matrix of its own, which this head trains; choose a vision "
            "transformer of CLIP, or method=rla, which adapts the features behind it"
        )
    return projection
