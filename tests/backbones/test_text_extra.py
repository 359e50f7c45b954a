"""Text towers and tokenizers of Hugging Face: an extra of kravl, asked for before anything is loaded."""

import open_clip
import pytest
from huggingface_hub import constants

from kravl.backbones.clip import ClipClassifier
from kravl.backbones.text import tokens
from kravl.runtime.errors import InputError

NEEDS = [
    name
    for name in open_clip.list_models()
    if {"hf_model_name", "hf_tokenizer_name"} & open_clip.get_model_config(name)["text_cfg"].keys()
]


@pytest.fixture
def without_transformers(monkeypatch):
    monkeypatch.setattr(tokens, "find_spec", lambda name: None)
    monkeypatch.setattr(open_clip, "create_model", None)


@pytest.mark.parametrize("name", NEEDS[::6])
def test_a_model_that_needs_transformers_says_what_to_install(name: str, without_transformers) -> None:
    parts = r"text tower( and tokenizer)?|tokenizer"
    with pytest.raises(
        InputError, match=rf"^'{name}' takes its ({parts}) from transformers.*pip install 'kravl\[text\]'$"
    ):
        ClipClassifier(["cat"], ["a {}."], name=name, pretrained=None)
    with pytest.raises(InputError, match=r"pip install 'kravl\[text\]'$"):
        ClipClassifier.skeleton(1, {"name": name, "pretrained": None})


def test_other_models_need_nothing_further(without_transformers) -> None:
    assert len(NEEDS) == 49
    for name in open_clip.list_models():
        if name not in NEEDS:
            tokens.require_text(name)


def test_files_of_the_hub_are_asked_for_before_anything_is_loaded(monkeypatch) -> None:
    monkeypatch.setattr(tokens, "find_spec", lambda name: name)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(open_clip, "create_model", None)
    missing = "is not in the local cache and cannot be downloaded: HF_HUB_OFFLINE is set; connect to the network once"
    with pytest.raises(InputError, match=rf"tokenizer of 'ViT-B-16-SigLIP' \(timm/ViT-B-16-SigLIP\) {missing}$"):
        ClipClassifier(["cat"], ["a {}."], name="ViT-B-16-SigLIP", pretrained=None)
    with pytest.raises(InputError, match=rf"text tower of 'roberta-ViT-B-32' \(roberta-base\) {missing}$"):
        ClipClassifier(["cat"], ["a {}."], name="roberta-ViT-B-32", pretrained=None)


@pytest.mark.parametrize("error", [ImportError("No module named 'sentencepiece'"), OSError("no such\nfile")])
def test_a_tokenizer_that_does_not_load_is_one_line(error: Exception, monkeypatch) -> None:
    def fails(name: str) -> None:
        raise error

    monkeypatch.setattr(open_clip, "get_tokenizer", fails)
    with pytest.raises(InputError, match=r"^the tokenizer of 'x' cannot be loaded: .*pip install 'kravl\[text\]'$"):
        tokens.tokenizer_of("x")
