"""The peer that is level at few short prompts: CLIP-LoRA's setting by PEFT's LoRA on transformers' CLIPModel."""

from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel

from kravl.adapters.lora import LoRA
from kravl.export.formats.transformers import clip_config, renamed
from kravl.peft.clip_names import open_clip_to_hugging_face


class PeftClip(nn.Module):
    """The weights of an adapted open_clip ``clip`` and its LoRA factors, as a user of PEFT would train them.

    Args:
        adapters: of the sites of ``clip``, q, k and v apart.
        tokens: (classes, 77), each text ended by ``eos``, the largest number.
        trimmed: to the longest text, as tokenizers pad by default; a causal tower's features are the same.
    """

    def __init__(
        self, clip: Any, adapters: Mapping[str, LoRA], tokens: Tensor, bos: int, eos: int, trimmed: bool
    ) -> None:
        super().__init__()
        model = CLIPModel(CLIPConfig(**clip_config(clip, eos, bos))).to(clip.logit_scale)
        base = {name: tensor for name, tensor in clip.state_dict().items() if ".adapters." not in name}
        model.load_state_dict(renamed(base))
        first = next(iter(adapters.values()))
        config = LoraConfig(
            r=first.rank,
            lora_alpha=first.alpha,
            use_rslora=first.rank_stabilised,
            lora_dropout=first.dropout,
            target_modules=["q_proj", "k_proj", "v_proj"],
        )
        self.peft = get_peft_model(model, config).to(clip.logit_scale)
        self.clip = self.peft.get_base_model()
        with torch.no_grad():
            for site, adapter in adapters.items():
                [place] = open_clip_to_hugging_face(site)
                layer = self.clip.get_submodule(place.module)
                layer.lora_A["default"].weight.copy_(adapter.a)
                layer.lora_B["default"].weight.copy_(adapter.b)
        longest = int((tokens == eos).int().argmax(dim=1).max()) + 1
        self.tokens = tokens[:, :longest] if trimmed else tokens

    def encode_text(self) -> Tensor:
        pooled = self.clip.text_model(input_ids=self.tokens).pooler_output
        return F.normalize(self.clip.text_projection(pooled), dim=-1)

    def image_features(self, images: Tensor) -> Tensor:
        pooled = self.clip.vision_model(pixel_values=images).pooler_output
        return F.normalize(self.clip.visual_projection(pooled), dim=-1)
