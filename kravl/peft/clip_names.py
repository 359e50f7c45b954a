"""Names of an open_clip model's weights in a Hugging Face CLIPModel."""

import re
from typing import NamedTuple

from kravl.runtime.errors import InputError

MODULES = {
    "attn.q": "self_attn.q_proj",
    "attn.k": "self_attn.k_proj",
    "attn.v": "self_attn.v_proj",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
PROJECTIONS = {"visual.proj": "visual_projection", "text_projection": "text_projection"}
BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")


class Place(NamedTuple):
    """A module of the other model, which third of the site's rows it holds, and whether its weight is transposed."""

    module: str
    third: int | None = None
    transposed: bool = False


def same_name(site: str) -> list[Place]:
    """The module of the same name: for adapters that go back to the model that they were trained on."""
    return [Place(site)]


def open_clip_to_hugging_face(site: str) -> list[Place]:
    """Where the weights of a site of an open_clip CLIP are in transformers' CLIPModel.

    Raises:
        InputError: a CLIPModel has no such weight.
    """
    if site in PROJECTIONS:
        return [Place(PROJECTIONS[site], transposed=True)]
    match = BLOCK.fullmatch(site)
    if match is None or (match[3] not in MODULES and match[3] != "attn.qkv"):
        raise InputError(f"site {site!r} of an open_clip model has no counterpart in transformers' CLIPModel")
    layer = f"{'vision' if match[1] else 'text'}_model.encoder.layers.{match[2]}"
    if match[3] == "attn.qkv":
        return [Place(f"{layer}.{MODULES[f'attn.{part}']}", third) for third, part in enumerate("qkv")]
    return [Place(f"{layer}.{MODULES[match[3]]}")]
