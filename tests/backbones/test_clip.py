"""CLIP as a classifier: open_clip's own numbers, the right activation, and text features when they are needed."""

import json
import logging
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from kravl.adapters.injection.inject import inject
from kravl.adapters.lora import LoRA
from kravl.backbones.clip import ClipClassifier
from kravl.backbones.text.tokens import beyond_context, tokenize
from kravl.backbones.vit import VitClassifier
from kravl.runtime.errors import InputError

NAMES = ("cat", "dog", "red fox")
TEMPLATES = ("a photo of a {}.", "a drawing of a {}.")
CONFIG = Path(__file__).parents[1] / "fixtures/tiny-clip.json"


@pytest.fixture(autouse=True)
def _tiny_clip(tmp_path: Path):
    # also under the name that makes the activation ambiguous, as ViT-B-32 and ViT-B-32-quickgelu are
    folder = tmp_path / "model_configs"
    folder.mkdir()
    config = json.loads(CONFIG.read_text())
    (folder / "tiny-clip.json").write_text(json.dumps(config))
    (folder / "tiny-pair.json").write_text(json.dumps(config))
    (folder / "tiny-pair-quickgelu.json").write_text(json.dumps(config | {"quick_gelu": True}))
    open_clip.add_model_config(folder)


def classifier(**settings) -> ClipClassifier:
    torch.manual_seed(0)
    return ClipClassifier(NAMES, TEMPLATES, **{"name": "tiny-clip", "pretrained": None, **settings})


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_open_clip_tells_of_warnings_and_not_of_every_step(caplog):
    with caplog.at_level(logging.INFO):
        classifier(name="kravl-tiny", pretrained="kravl")
        logging.info("after")

    assert caplog.messages == ["after"]
    with caplog.at_level(logging.INFO):
        classifier()
    assert [m for m in caplog.messages[1:] if "No pretrained weights loaded" not in m] == []


def test_logits_are_those_of_open_clips_own_zero_shot_classifier(images):
    model = classifier().eval()
    tokenizer = open_clip.get_tokenizer("tiny-clip")
    templates = [template.format for template in TEMPLATES]
    weights = open_clip.build_zero_shot_classifier(model.encoder(), tokenizer, NAMES, templates)

    expected = 100 * F.normalize(model.encoder().encode_image(images), dim=-1) @ weights

    with torch.no_grad():
        torch.testing.assert_close(model(images), expected.detach(), rtol=1e-4, atol=1e-4)


OWN = (["a cat purrs.", "a small animal."], ["a dog barks."], ["a red fox.", "red fur", "it has a tail."])


def test_the_feature_of_a_class_is_the_mean_of_its_own_descriptions(images):
    model = ClipClassifier(NAMES, OWN, name="tiny-clip", pretrained=None).eval()
    encoder, tokenizer = model.encoder(), open_clip.get_tokenizer("tiny-clip")

    expected = []
    for prompts in OWN:
        mean = sum(encoder.encode_text(tokenizer([prompt]), normalize=True) for prompt in prompts) / len(prompts)
        expected.append(mean / mean.norm())

    torch.testing.assert_close(model.encode_text(), torch.cat(expected))


TOO_LONG = "a photo of a {}, " + "very " * 80


def test_prompts_beyond_the_context_are_told_or_refused_before_weights_are_loaded(caplog, monkeypatch):
    monkeypatch.setattr(open_clip, "create_model", None)
    with pytest.raises(InputError, match=r"3 of 6 prompts are longer .* 16 tokens; the first is 'a photo of a cat, v"):
        ClipClassifier(NAMES, ["a {}.", TOO_LONG], name="tiny-clip", pretrained=None, long_prompts="error")
    with pytest.raises(InputError, match=r"unknown data\.long_prompts 'cutt': did you mean 'cut'"):
        classifier(long_prompts="cutt")
    assert not [message for message in caplog.messages if "are cut" in message]
    monkeypatch.undo()

    model = ClipClassifier(NAMES, ["a {}.", TOO_LONG], name="tiny-clip", pretrained=None)

    (message,) = [message for message in caplog.messages if "are cut" in message]
    assert message.startswith("3 of 6 prompts are longer than the text tower's context, 16 tokens, and are cut: the")
    expected = open_clip.get_tokenizer("tiny-clip")([t.format(n) for n in NAMES for t in ("a {}.", TOO_LONG)])
    assert torch.equal(model._prompts.tokens, expected)


class Words:
    """A tokenizer of words by length, with or without a token that ends a text."""

    def __init__(self, end: list[int], padding: int) -> None:
        self.end, self.padding = end, padding

    def __call__(self, texts: list[str], context_length: int = 5) -> torch.Tensor:
        rows = []
        for text in texts:
            row = [10 + len(word) for word in text.split()][: context_length - len(self.end)] + self.end
            rows.append(row + [self.padding] * (context_length - len(row)))
        return torch.tensor(rows)


@pytest.mark.parametrize("tokenizer", [Words([9], 0), Words([1], 1), Words([], 0), Words([0], 0)])
def test_a_prompt_is_cut_where_its_tokens_and_its_end_do_not_fit(tokenizer):
    texts = ["a bb ccc", "a bb ccc dddd", "a bb ccc dddd eeeee", "a bb ccc dddd eeeee ffffff", ""]
    first_cut = 3 if not tokenizer.end else 2

    assert beyond_context(tokenizer, texts, tokenizer(texts)) == list(range(first_cut, 4))


def test_classes_that_the_text_tower_cannot_tell_apart_are_told(caplog):
    tokenizer = open_clip.get_tokenizer("tiny-clip")
    tokenize(tokenizer, ["crane", "crane"], [["a crane."]] * 2)
    assert not caplog.messages

    tokenize(tokenizer, ["Cat", "dog", "cat"], [["a Cat.", "art"], ["a dog.", "art"], ["art", "a cat."]])
    tokenize(tokenizer, ["a", "b"], [["very " * 80 + "a"], ["very " * 80 + "b"]])
    tokenize(tokenizer, ["crane"] * 2, [["very " * 80 + "a"], ["very " * 80 + "b"]])

    told = [message for message in caplog.messages if "cannot tell them apart" in message]
    assert [message.rpartition(": ")[2] for message in told] == [
        "'Cat' and 'cat'",
        "'a' and 'b'",
        "'crane' and 'crane'",
    ]


def test_classes_of_equal_text_features_are_told_once_whatever_makes_them_equal(caplog):
    prompts = [["a cat."], ["a cat.", "a cat."], ["a dog."]]
    model = ClipClassifier(["once", "twice", "dog"], prompts, name="tiny-clip", pretrained=None).eval()

    for _ in range(2):
        model._text_features = None
        model.prepare()

    told = [message for message in caplog.messages if "equal text features" in message]
    assert told == ["classes with equal text features, which cannot be told apart: 'once' and 'twice'"]


def test_an_image_tower_that_ignores_checkpointing_is_told(tmp_path, caplog):
    config = json.loads(CONFIG.read_text())
    resnet = {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32, "head_width": 64}
    (tmp_path / "tiny-resnet.json").write_text(json.dumps(config | {"vision_cfg": resnet}))
    open_clip.add_model_config(tmp_path / "tiny-resnet.json")

    classifier().checkpoint_blocks()
    assert "checkpointing" not in caplog.text
    classifier(name="tiny-resnet").checkpoint_blocks()

    told = "checkpointing=true: open_clip cannot recompute the image tower of tiny-resnet"
    assert told in caplog.messages


def test_further_classes_are_columns_of_their_own_in_evaluation_alone(images):
    others = ["bus", "a red kite"], ["art of a {}."]
    model, alone = classifier(), ClipClassifier(*others, name="tiny-clip", pretrained=None)
    alone.model.load_state_dict(model.model.state_dict())
    trained = model(images)

    model.add_classes(*others)
    model.add_classes(NAMES, TEMPLATES)
    model.eval().prepare()

    atol = 100 * 32 * torch.finfo(torch.float32).eps  # of 100 times a cosine of 32 entries, summed in another order
    with torch.no_grad():
        logits = model(images)
        torch.testing.assert_close(logits[:, : len(NAMES)], trained, rtol=0, atol=atol)
        torch.testing.assert_close(logits[:, len(NAMES) : -len(NAMES)], alone.eval()(images), rtol=0, atol=atol)
        torch.testing.assert_close(logits[:, -len(NAMES) :], trained, rtol=0, atol=atol)
    model.train()
    assert model(images).shape == trained.shape


def test_the_scale_is_fixed_or_the_checkpoints_own(images):
    fixed, learned = classifier().eval(), classifier(logit_scale="learned").eval()

    with torch.no_grad():
        ratio = fixed(images) / learned(images)

    learned_scale = learned.encoder().logit_scale.exp().item()
    torch.testing.assert_close(ratio, torch.full_like(ratio, 100 / learned_scale), rtol=1e-4, atol=0)


@pytest.mark.parametrize("tower, encodings", [("visual", 1), ("transformer", 2)])
def test_text_is_encoded_once_while_it_is_frozen_and_in_every_step_while_it_trains(images, tower, encodings):
    model = classifier()
    inject(model.encoder(), lambda o, i: LoRA(o, i, rank=2, alpha=4), [f"{tower}.*.attn.qkv"])
    calls = []
    model.encoder().ln_final.register_forward_hook(lambda *_: calls.append(1))
    model.train()

    model(images), model(images)

    assert len(calls) == encodings
    assert model.text_trains() == (tower == "transformer")


def test_text_features_kept_for_evaluation_follow_the_weights(images):
    model = classifier()
    adapters = inject(model.encoder(), lambda o, i: LoRA(o, i, rank=2, alpha=4), ["transformer.*.attn.qkv"])
    model.eval()
    with torch.no_grad():
        before = model(images)
        for parameter in adapters.parameters():
            parameter.normal_()
        model.prepare()
        assert not torch.allclose(model(images), before)


def test_frozen_towers_stay_in_eval_mode_and_trained_ones_do_not():
    model = classifier()
    inject(model.encoder(), lambda o, i: LoRA(o, i, rank=2, alpha=4), ["visual.*.attn.qkv"])

    model.train()

    assert model.encoder().visual.transformer.resblocks[0].attn.training
    assert not model.encoder().transformer.training
    assert not model.encoder().ln_final.training
    model.eval()
    assert not any(module.training for module in model.modules())


def test_a_free_head_starts_at_the_text_features(images):
    free = classifier()
    free.free_head()

    (head,) = free.head_parameters()
    assert head.shape == (3, 32)
    with torch.no_grad():
        torch.testing.assert_close(free.eval()(images), classifier().eval()(images))


def save(path: Path, metadata: dict[str, str] | None = None) -> None:
    model = open_clip.create_model("tiny-pair")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path, metadata)


def activation(model: ClipClassifier) -> str:
    return type(model.encoder().visual.transformer.resblocks[0].mlp.gelu).__name__


def test_a_checkpoint_at_a_path_whose_activation_is_unknown_must_say_it(tmp_path):
    save(tmp_path / "weights.safetensors")
    path = str(tmp_path / "weights.safetensors")

    with pytest.raises(InputError, match=r"does not record its activation: pass backbone\.build\.quick_gelu=true"):
        classifier(name="tiny-pair", pretrained=path)

    assert activation(classifier(name="tiny-pair", pretrained=path, quick_gelu=True)) == "QuickGELU"
    assert activation(classifier(name="tiny-pair", pretrained=path, quick_gelu=False)) == "GELU"
    assert activation(classifier(name="tiny-pair-quickgelu", pretrained=path)) == "QuickGELU"
    assert activation(classifier(name="tiny-clip", pretrained=path)) == "GELU"


def test_a_checkpoint_that_records_its_activation_keeps_it(tmp_path):
    save(tmp_path / "weights.safetensors", {"quick_gelu": "true"})

    model = classifier(name="tiny-pair", pretrained=str(tmp_path / "weights.safetensors"))

    assert activation(model) == "QuickGELU"
    assert model.provenance()["quick_gelu"] is True


def test_openai_weights_ask_for_quick_gelu():
    from kravl.backbones.weights.clip_weights import _quick_gelu

    with pytest.raises(InputError, match="contradicts 'openai', trained with quick_gelu=True"):
        _quick_gelu("ViT-B-16", "openai", False)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    save_file({"visual.proj": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"'.*other\.safetensors' do not load into 'tiny-clip'"):
        classifier(pretrained=str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{"])
def test_a_truncated_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "torn.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"torn\.safetensors"):
        classifier(pretrained=str(tmp_path / "torn.safetensors"))


def test_a_pickle_is_not_executed(tmp_path):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"state_dict": Payload()}, tmp_path / "weights.pt")

    with pytest.raises(InputError, match=r"weights\.pt is refused: it is damaged, or a pickle of more than tensors"):
        classifier(pretrained=str(tmp_path / "weights.pt"))
    assert not (tmp_path / "executed").exists()


def test_unknown_models_tags_and_places_name_the_nearest(tmp_path):
    with pytest.raises(InputError, match="unknown open_clip model 'ViT-B16': did you mean 'ViT-B-16'"):
        classifier(name="ViT-B16")
    with pytest.raises(InputError, match="unknown pretrained tag of ViT-B-16 'opneai': did you mean 'openai'"):
        classifier(name="ViT-B-16", pretrained="opneai")
    with pytest.raises(InputError, match="unknown model source 'hub': did you mean 'hf-hub'"):
        classifier(name="hub:org/model")
    with pytest.raises(InputError, match=r"no open_clip_config\.json"):
        classifier(name=f"local-dir:{tmp_path}")
    with pytest.raises(InputError, match="unknown logit_scale 'learnt': did you mean 'learned'"):
        classifier(logit_scale="learnt")


def test_a_folder_that_open_clip_saved_is_a_model(tmp_path, images):
    torch.manual_seed(3)
    model = open_clip.create_model("tiny-pair", force_quick_gelu=True).eval()
    config = {"model_cfg": open_clip.get_model_config("tiny-pair-quickgelu"), "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "open_clip_model.safetensors")

    loaded = classifier(name=f"local-dir:{tmp_path}").eval()

    assert activation(loaded) == "QuickGELU"
    with torch.no_grad():
        assert torch.equal(loaded.encoder().encode_image(images), model.encode_image(images))


def test_preprocessing_is_the_models_own_and_what_is_said_of_a_file_and_is_recorded(tmp_path):
    assert classifier().preprocess.mean == open_clip.OPENAI_DATASET_MEAN
    save(tmp_path / "weights.safetensors")
    said = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear", "resize_mode": "squash"}

    model = classifier(pretrained=str(tmp_path / "weights.safetensors"), **said)

    expected = {"image_size": 32, "resize": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
    expected |= {"interpolation": "bilinear", "resize_mode": "squash", "fill": [0, 0, 0]}
    assert model.preprocess.recorded() == expected == model.provenance()["preprocess"]


def test_what_is_said_against_published_weights_is_refused_before_they_are_loaded():
    with pytest.raises(InputError, match=r"mean=\[0\.5,0\.5,0\.5\] contradicts 'openai' of ViT-L-14, .*\[0\.48145466"):
        classifier(name="ViT-L-14", pretrained="openai", mean=[0.5] * 3)
    with pytest.raises(InputError, match="resize_mode=squash contradicts timm's weights of vit_tiny_patch16_224"):
        VitClassifier(NAMES, (), name="vit_tiny_patch16_224", pretrained=True, resize_mode="squash")
