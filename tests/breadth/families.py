"""One model of each family: of timm its smallest, of open_clip one with few and narrow blocks, from a folder."""

import json
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import open_clip
import timm
import torch
from breadth.hf_towers import published_configs
from breadth.survey import Row, needs
from safetensors.torch import save_file
from torch import nn

from kravl.backbones import tiny
from kravl.backbones.classifier import Classifier
from kravl.backbones.clip import ClipClassifier
from kravl.backbones.vit import VitClassifier
from kravl.backbones.weights.timm_weights import _probe
from kravl.runtime.errors import InputError

CLASSES = ("cat", "dog", "red fox")
TEMPLATES = ("a photo of a {}.", "art of the {}.")
WIDTH, HEAD, LAYERS, VOCABULARY = 64, 16, 2, 512
PIXELS = (128, 126)  # multiples of 16 and of 14
# smaller trunks of the same file of timm, where a tower of open_clip has one of hundreds of megabytes
TRUNKS = {
    "eva": "eva02_tiny_patch14_224",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "convnext": "test_convnext",
    "vision_transformer": "test_vit3",  # its attention pool is that of SigLIP
    "vision_transformer_relpos": "vit_relpos_small_patch16_224",
    "fastvit": "fastvit_mci0",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vitamin": "vitamin_small_224",
}

# the same model with few blocks or channels, where timm's smallest of a file takes gigabytes in float64
FEWER: dict[str, dict[str, Any]] = {
    "beit_base_patch16_224": {"depth": 2},
    "deepseek_vit_412m": {"depth": 2},
    "gemma4_vit_167m": {"depth": 2},
    "mobilenetv5_base": {"channel_multiplier": 0.25},
    "naflexvit_base_patch16_parfac_gap": {"depth": 2},
    "nasnetalarge": {"num_features": 672},
    "qwen3_vit_88m": {"depth": 2},
    "samvit_base_patch16_224": {"depth": 2, "global_attn_indexes": (1,)},
    "vgg11": {"mlp_ratio": 1 / 16},
}


def smallest(rows: Sequence[Row]) -> dict[str, Row]:
    """Family -> its smallest model that works."""
    found: dict[str, Row] = {}
    for row in rows:
        size = sum(row["parameters"].values())
        known = found.get(row["family"])
        if row["works"] and (known is None or size < sum(known["parameters"].values())):
            found[row["family"]] = row
    return dict(sorted(found.items()))


def build(row: Row, folder: Path) -> Classifier:
    """The model of ``row`` or a small one of its kind, with random weights, as kravl builds it."""
    torch.manual_seed(0)
    if row["library"] == "timm":
        return _randomised(_small_vit(row["name"]))
    if row["name"] == tiny.NAME:  # as small, and pretrained
        return _randomised(ClipClassifier(CLASSES, TEMPLATES, name=tiny.NAME, pretrained=tiny.TAG))
    config = small_config(row["name"])
    _save(config, folder)
    with published_configs(small=True, vocab_size=VOCABULARY):
        name = f"local-dir:{folder}"
        return _randomised(ClipClassifier(CLASSES, TEMPLATES, name=name, pretrained=None))


def _small_vit(name: str) -> VitClassifier:
    """Of few pixels where the model takes them, and of few blocks, so that float64 is no matter of hours."""
    _probe.cache_clear()  # a model of this name and of all its blocks is not this one
    try:
        with patch("timm.create_model", partial(timm.create_model, **FEWER.get(name, {}))):
            for size in PIXELS:
                with suppress(InputError):
                    return VitClassifier(CLASSES, (), name=name, pretrained=False, image_size=size)
            return VitClassifier(CLASSES, (), name=name, pretrained=False)
    finally:
        _probe.cache_clear()


def small_config(name: str) -> dict[str, Any]:
    """The config of a model of open_clip with two narrow blocks in each tower, and everything else as it is."""
    config = deepcopy(open_clip.get_model_config(name))
    config["embed_dim"] = WIDTH
    vision, text = config["vision_cfg"], config["text_cfg"]
    if trunk := vision.get("timm_model_name"):
        module = timm.models._registry._model_to_module[trunk]
        vision["timm_model_name"] = small = TRUNKS[module]
        vision["image_size"] = timm.get_pretrained_cfg(small).input_size[-1]
        if vision.get("timm_proj") in (None, "", "none"):  # the trunk's own features are compared with the text's
            with torch.device("meta"):
                config["embed_dim"] = timm.create_model(small).num_features
    elif isinstance(vision["layers"], list):
        vision |= {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64}
    else:
        vision |= {"layers": LAYERS, "width": WIDTH, "head_width": HEAD, "image_size": 4 * vision["patch_size"]}
    if "hf_model_name" not in text:
        text |= {"layers": LAYERS, "width": WIDTH, "heads": WIDTH // HEAD}
    if multimodal := config.get("multimodal_cfg"):
        multimodal |= {"layers": LAYERS, "width": WIDTH, "heads": WIDTH // HEAD, "dim_head": HEAD}
    return config


def _save(config: dict[str, Any], folder: Path) -> None:
    """A folder as open_clip saves it: random weights, and a tokenizer of the prompts where its own is on the hub."""
    folder.mkdir(parents=True, exist_ok=True)
    if needs(config):
        _write_tokenizer(folder)
        config["text_cfg"].setdefault("hf_tokenizer_name", "its own")
        config["text_cfg"].pop("vocab_size", None)
        if "hf_model_name" not in config["text_cfg"]:
            config["text_cfg"]["vocab_size"] = VOCABULARY
    if "hf_model_name" in config["text_cfg"]:
        config["text_cfg"]["hf_model_pretrained"] = False
    known = {key: value for key, value in config.items() if key != "custom_text"}
    with published_configs(small=True, vocab_size=VOCABULARY):
        model = _kind(config)(**deepcopy(known))
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))


def _kind(config: dict[str, Any]) -> Any:
    if "multimodal_cfg" in config:
        return open_clip.CoCa
    custom = config.get("custom_text") or "hf_model_name" in config["text_cfg"]
    return open_clip.CustomTextCLIP if custom else open_clip.CLIP


def _write_tokenizer(folder: Path) -> None:
    """A tokenizer of transformers whose words are those of the prompts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    prompts = [template.format(name) for template in TEMPLATES for name in CLASSES]
    words = sorted({word for prompt in prompts for word in prompt.replace(".", " .").split()})
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    words_to_ids = {word: i for i, word in enumerate([*special, *words])}
    tokenizer = Tokenizer(models.WordLevel(words_to_ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<s>", words_to_ids["<s>"]), ("</s>", words_to_ids["</s>"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    named = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)


def _randomised(classifier: Classifier) -> Classifier:
    """Norms, biases, layer scales and heads away from where they start: a gate of zero hides what is behind it.

    In float64, in which a comparison tells a wrong formula from rounding.
    """
    with torch.no_grad():
        for parameter in classifier.encoder().parameters():
            if parameter.numel() == max(parameter.shape, default=1):  # a scale of channels may be (channels, 1, 1)
                nn.init.normal_(parameter, mean=0.5, std=0.2)
        for parameter in classifier.head_parameters():
            nn.init.normal_(parameter, std=0.2)
    return classifier.double().eval()
