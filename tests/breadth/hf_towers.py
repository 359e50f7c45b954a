"""The text towers of Hugging Face that open_clip's names ask for, without a network: their published config.json.

https://huggingface.co/<name>/blob/main/config.json; what is not here has transformers' default for its architecture.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

ROBERTA = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
POSITIONS = {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1}
MT5 = {"vocab_size": 250112, "d_kv": 64, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
NLLB = {"d_model": 1024, "vocab_size": 256206, "encoder_attention_heads": 16, "decoder_attention_heads": 16}
NLLB |= {"encoder_layerdrop": 0.0}  # not the published 0.05: what a pass leaves out at random has no gradient
NLLB |= {"max_position_embeddings": 1024, "scale_embedding": True, "activation_function": "relu"}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "roberta-base": ("roberta", {**ROBERTA, **POSITIONS, "vocab_size": 50265}),
    "xlm-roberta-base": ("xlm-roberta", {**ROBERTA, **POSITIONS, "vocab_size": 250002}),
    "xlm-roberta-large": ("xlm-roberta", {**LARGE, **POSITIONS, "vocab_size": 250002}),
    "google/mt5-base": ("mt5", {**MT5, "d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12}),
    "google/mt5-xl": ("mt5", {**MT5, "d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_heads": 32}),
    "facebook/nllb-200-distilled-600M": (
        "m2m_100",
        {**NLLB, "encoder_layers": 12, "decoder_layers": 12, "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096},
    ),
    "facebook/nllb-200-distilled-1.3B": (
        "m2m_100",
        {**NLLB, "encoder_layers": 24, "decoder_layers": 24, "encoder_ffn_dim": 8192, "decoder_ffn_dim": 8192},
    ),
}
# the same architectures with two narrow blocks, for what is computed with real numbers
SMALL: dict[str, dict[str, Any]] = {
    "roberta": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
    "mt5": {"d_model": 64, "d_ff": 128, "d_kv": 16, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4},
    "m2m_100": {
        **{"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128},
        **{"encoder_attention_heads": 4, "decoder_attention_heads": 4},
    },
}
SMALL["xlm-roberta"] = SMALL["roberta"]


@contextmanager
def published_configs(small: bool = False, vocab_size: int | None = None) -> Iterator[None]:
    """Within the block transformers knows these configs without asking the hub; ``small`` ones of the same kind.

    Where it is not installed, open_clip says so of the models that need it.
    """
    if find_spec("transformers") is None:
        yield
        return
    from transformers import AutoConfig

    original = AutoConfig.from_pretrained

    def known(name: Any, *arguments: Any, **settings: Any) -> Any:
        if str(name) not in CONFIGS:
            return original(name, *arguments, **settings)
        kind, values = CONFIGS[str(name)]
        values = {**values, **(SMALL[kind] if small else {})}
        if vocab_size is not None:
            values["vocab_size"] = vocab_size
        return AutoConfig.for_model(kind, **values)

    there = patch("kravl.backbones.text.tokens.require_hub_file", lambda *_: None)
    with there, patch("open_clip.hf_model.AutoConfig.from_pretrained", known):
        yield


@contextmanager
def without_values() -> Iterator[None]:
    """`published_configs`, and towers run on the meta device: no shortcut of transformers looks at a mask's values."""
    if find_spec("transformers") is None:
        yield
        return
    with (
        published_configs(),
        patch("transformers.masking_utils._ignore_bidirectional_mask_sdpa", lambda *_, **__: False),
    ):
        yield
