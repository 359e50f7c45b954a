"""What --try runs on: a random CLIP with ten class names."""

import torch
from transformers import CLIPConfig, CLIPModel


def random_clip() -> tuple[CLIPModel, dict[str, torch.Tensor], list[str]]:
    """Model, tokens of the classes, and their names."""
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 1, "eos_token_id": 15, "pad_token_id": 0, "vocab_size": 16, "max_position_embeddings": 4}
    config = CLIPConfig(
        text_config=tower | ends, vision_config=tower | {"image_size": 16, "patch_size": 4}, projection_dim=16
    )
    tokens = torch.tensor([[1, digit + 2, 15, 0] for digit in range(10)])
    prompts = {"input_ids": tokens, "attention_mask": (tokens != 0).long()}
    return CLIPModel(config), prompts, [str(digit) for digit in range(10)]
