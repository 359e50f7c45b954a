"""Where in a model a site is, by its name: tower, layer and kind of matrix."""

import re
from typing import NamedTuple


class Place(NamedTuple):
    """``layer`` is None outside of the blocks."""

    tower: str  # image | text
    layer: int | None
    kind: str  # what follows the layer, such as attn.qkv


def place(site: str) -> Place:
    """Of ``visual.transformer.resblocks.3.mlp.c_fc``: image, 3, mlp.c_fc. A model without a text tower is all image."""
    parts = re.split(r"\.(\d+)\.", f".{site}", maxsplit=1)
    text = parts[0].strip(".").split(".")[0] in ("transformer", "text", "text_projection", "token_embedding")
    tower = "text" if text else "image"
    return Place(tower, int(parts[1]), parts[2]) if len(parts) == 3 else Place(tower, None, site)
