"""Fills a Hugging Face cache folder with small random models under the ids that PEFT's tests ask for; no network.

    python tiny_hub.py CACHE      # then run with HF_HOME=CACHE HF_HUB_OFFLINE=1

Shapes are this file's own, of the same architectures as the models of the Hub. Weights are drawn with a large standard
deviation: with the default 0.02 a model of width 32 returns almost the same logits whatever an adapter does, and tests
that ask for a visible difference fail for every method.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 1024,
}
BERT = SMALL | {"max_position_embeddings": 64, "pad_token_id": 0}
LLAMA = SMALL | {"max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GPT = {
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "vocab_size": 1024,
    "n_positions": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": 1024,
    "decoder_start_token_id": 0,
}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": 1024,
    "max_position_embeddings": 128,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
}
OPT = {
    "hidden_size": 32,
    "ffn_dim": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 1024,
    "word_embed_proj_dim": 32,
    "max_position_embeddings": 128,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 2,
}
MODELS = {
    "peft-internal-testing/tiny-random-OPTForCausalLM": ("OPTForCausalLM", "OPTConfig", OPT),
    "hf-internal-testing/tiny-random-OPTForCausalLM": ("OPTForCausalLM", "OPTConfig", OPT),
    "peft-internal-testing/opt-125m": ("OPTForCausalLM", "OPTConfig", OPT | {"num_hidden_layers": 12}),
    "facebook/opt-125m": ("OPTForCausalLM", "OPTConfig", OPT | {"num_hidden_layers": 12}),
    "peft-internal-testing/tiny-random-GPT2LMHeadModel": ("GPT2LMHeadModel", "GPT2Config", GPT),
    "hf-internal-testing/tiny-random-gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT),
    "peft-internal-testing/tiny-random-GPTJForCausalLM": ("GPTJForCausalLM", "GPTJConfig", GPT | {"rotary_dim": 4}),
    "trl-internal-testing/tiny-random-LlamaForCausalLM": ("LlamaForCausalLM", "LlamaConfig", LLAMA),
    "peft-internal-testing/tiny-random-LlamaForCausalLM": ("LlamaForCausalLM", "LlamaConfig", LLAMA),
    "hf-internal-testing/tiny-random-LlamaForCausalLM": ("LlamaForCausalLM", "LlamaConfig", LLAMA),
    "hf-internal-testing/tiny-random-MistralForCausalLM": (
        "MistralForCausalLM",
        "MistralConfig",
        LLAMA | {"num_key_value_heads": 2},
    ),
    "peft-internal-testing/tiny-dummy-qwen2": ("Qwen2ForCausalLM", "Qwen2Config", LLAMA | {"num_key_value_heads": 2}),
    "hf-internal-testing/tiny-random-Gemma3ForCausalLM": (
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        LLAMA | {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 16},
    ),
    "peft-internal-testing/tiny-random-BloomForCausalLM": (
        "BloomForCausalLM",
        "BloomConfig",
        {
            "hidden_size": 32,
            "n_layer": 2,
            "n_head": 4,
            "vocab_size": 1024,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 3,
        },
    ),
    "peft-internal-testing/tiny-random-GPTNeoXForCausalLM": ("GPTNeoXForCausalLM", "GPTNeoXConfig", LLAMA),
    "peft-internal-testing/tiny-random-T5ForConditionalGeneration-calibrated": (
        "T5ForConditionalGeneration",
        "T5Config",
        T5,
    ),
    "peft-internal-testing/tiny-random-T5ForConditionalGeneration": ("T5ForConditionalGeneration", "T5Config", T5),
    "peft-internal-testing/tiny-random-t5": ("T5ForConditionalGeneration", "T5Config", T5),
    "peft-internal-testing/tiny-random-BartForConditionalGeneration": (
        "BartForConditionalGeneration",
        "BartConfig",
        BART,
    ),
    "peft-internal-testing/tiny-random-BertModel": ("BertModel", "BertConfig", BERT),
    "peft-internal-testing/tiny-random-RobertaModel": ("RobertaModel", "RobertaConfig", BERT | {"pad_token_id": 1}),
    "peft-internal-testing/tiny-random-DebertaModel": (
        "DebertaModel",
        "DebertaConfig",
        BERT | {"pos_att_type": ["p2c", "c2p"], "relative_attention": True},
    ),
    "peft-internal-testing/tiny-random-DebertaV2Model": (
        "DebertaV2Model",
        "DebertaV2Config",
        BERT | {"pos_att_type": ["p2c", "c2p"], "relative_attention": True},
    ),
    "peft-internal-testing/tiny-random-BertForSequenceClassification": (
        "BertForSequenceClassification",
        "BertConfig",
        BERT,
    ),
    "peft-internal-testing/tiny-random-RobertaForSequenceClassification": (
        "RobertaForSequenceClassification",
        "RobertaConfig",
        BERT | {"pad_token_id": 1},
    ),
    "trl-internal-testing/tiny-LlamaForSequenceClassification-3.2": (
        "LlamaForSequenceClassification",
        "LlamaConfig",
        LLAMA,
    ),
}
ADAPTERS = {"peft-internal-testing/tiny-opt-lora-revision": "test"}  # only their adapter_config.json is read
REVISION = "0" * 40


def build(cache: Path) -> None:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    for model_id, (model_name, config_name, kwargs) in MODELS.items():
        home = cache / "hub" / ("models--" + model_id.replace("/", "--"))
        if (home / "refs" / "main").exists():
            continue
        torch.manual_seed(0)
        model = getattr(transformers, model_name)(getattr(transformers, config_name)(**kwargs))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 2 and "embed" not in name and "wte" not in name and "wpe" not in name:
                    parameter.normal_(std=0.3)
        model.save_pretrained(home / "snapshots" / REVISION)
        (home / "refs").mkdir(parents=True, exist_ok=True)
        (home / "refs" / "main").write_text(REVISION)
    for adapter_id, branch in ADAPTERS.items():
        from peft import LoraConfig

        home = cache / "hub" / ("models--" + adapter_id.replace("/", "--"))
        LoraConfig(target_modules=["q_proj", "v_proj"]).save_pretrained(str(home / "snapshots" / REVISION))
        (home / "refs").mkdir(parents=True, exist_ok=True)
        for name in ("main", branch):
            (home / "refs" / name).write_text(REVISION)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
