"""Small models for the PEFT tests: one layer of each kind, and random transformers."""

from collections.abc import Callable

import torch
from torch import nn


class Attention(nn.Module):
    """An nn.MultiheadAttention that attends a sequence to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(12, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attn(x, x, x)[0]


def base_of(kind: str) -> tuple[nn.Module, torch.Tensor, list[str]]:
    """A model with one layer of a ``kind``, an input for it, and the names to target."""
    from transformers.pytorch_utils import Conv1D

    models: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor], list[str]]] = {
        "wide": (lambda: nn.Sequential(nn.Linear(30, 20)), lambda: torch.randn(4, 5, 30), ["0"]),
        "tall": (lambda: nn.Sequential(nn.Linear(20, 30, bias=False)), lambda: torch.randn(4, 5, 20), ["0"]),
        "row": (lambda: nn.Sequential(nn.Linear(7, 1)), lambda: torch.randn(4, 7), ["0"]),
        "column": (lambda: nn.Sequential(nn.Linear(1, 7)), lambda: torch.randn(4, 1), ["0"]),
        "scalar": (lambda: nn.Sequential(nn.Linear(1, 1)), lambda: torch.randn(4, 1), ["0"]),
        "Conv1D": (lambda: nn.Sequential(Conv1D(20, 30)), lambda: torch.randn(4, 5, 30), ["0"]),
        "conv1d": (lambda: nn.Sequential(nn.Conv1d(4, 6, 3, padding=1)), lambda: torch.randn(4, 4, 9), ["0"]),
        "conv2d": (
            lambda: nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, padding_mode="circular")),
            lambda: torch.randn(4, 4, 9, 9),
            ["0"],
        ),
        "conv3d": (lambda: nn.Sequential(nn.Conv3d(2, 4, 3)), lambda: torch.randn(4, 2, 5, 5, 5), ["0"]),
        "embedding": (lambda: nn.Sequential(nn.Embedding(50, 12)), lambda: torch.randint(50, (4, 6)), ["0"]),
        "small vocabulary": (lambda: nn.Sequential(nn.Embedding(5, 12)), lambda: torch.randint(5, (4, 6)), ["0"]),
        "attention": (Attention, lambda: torch.randn(4, 6, 12), ["attn"]),
        "out_proj": (Attention, lambda: torch.randn(4, 6, 12), ["out_proj"]),
    }
    model, x, targets = models[kind]
    return model(), x(), targets


KINDS = ("wide", "tall", "row", "column", "scalar", "Conv1D", "conv1d", "conv2d", "conv3d", "embedding")
KINDS += ("small vocabulary", "attention", "out_proj")


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=32, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    return GPT2LMHeadModel(config).eval()


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(**sizes, vocab_size=64, num_key_value_heads=2, max_position_embeddings=32, pad_token_id=0)
    return LlamaForCausalLM(config).eval()


def bart() -> nn.Module:
    from transformers import BartConfig, BartForConditionalGeneration

    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 64}
    return BartForConditionalGeneration(BartConfig(**sizes, **heads, max_position_embeddings=32)).eval()
