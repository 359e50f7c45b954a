"""kravl-tiny is an open_clip model like any other, with weights that are at hand."""

import tempfile
from pathlib import Path

import open_clip
import pytest
import torch
from omegaconf import OmegaConf
from safetensors import safe_open
from torch.nn import functional as F

from kravl.adapters.injection.inject import inject
from kravl.adapters.kra import KRAdapter
from kravl.backbones import tiny
from kravl.backbones.clip import ClipClassifier
from kravl.backbones.structure.presets import KINDS_OF, select, select_parameters
from kravl.data import catalog
from kravl.runtime.errors import InputError

NAMES = ("bird", "musical instrument", "happy face")
TEMPLATES = ("a drawing of a {}.", "an icon of a {}.")


@pytest.fixture(autouse=True)
def _open_clip_does_not_know_it(monkeypatch):
    # registering lasts as long as the process, and another test may have been first
    known = {name: config for name, config in open_clip.factory._MODEL_CONFIGS.items() if name != tiny.NAME}
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", known)
    monkeypatch.delitem(open_clip.pretrained._PRETRAINED, tiny.NAME, raising=False)


def classifier(**settings) -> ClipClassifier:
    torch.manual_seed(0)
    return ClipClassifier(NAMES, TEMPLATES, **{"name": "kravl-tiny", "pretrained": None, **settings}).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_the_classifier_needs_no_registering_and_scores_as_plain_open_clip(images):
    actual = classifier(pretrained="kravl")

    plain = open_clip.create_model("kravl-tiny", pretrained=str(tiny.WEIGHTS)).eval()
    tokenizer = open_clip.get_tokenizer("kravl-tiny")
    weights = open_clip.build_zero_shot_classifier(plain, tokenizer, NAMES, [t.format for t in TEMPLATES])
    with torch.no_grad():
        assert torch.equal(actual.encoder().encode_image(images), plain.encode_image(images))
        expected = 100 * F.normalize(plain.encode_image(images), dim=-1) @ weights
        torch.testing.assert_close(actual(images), expected, rtol=1e-4, atol=1e-4)


def test_open_clip_takes_the_tag_as_it_takes_the_file():
    tiny.register()

    by_tag = open_clip.create_model("kravl-tiny", pretrained="kravl").state_dict()
    by_file = open_clip.create_model("kravl-tiny", pretrained=str(tiny.WEIGHTS)).state_dict()

    assert by_tag.keys() == by_file.keys()
    assert all(torch.equal(by_tag[name], by_file[name]) for name in by_tag)
    assert open_clip.list_pretrained_tags_by_model("kravl-tiny") == ["kravl"]


def test_the_weights_are_small_halves_of_finite_numbers_and_say_their_activation():
    with safe_open(tiny.WEIGHTS, framework="pt") as file:
        tensors = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118 - no mapping
        metadata = file.metadata()

    assert {tensor.dtype for tensor in tensors} == {torch.float16}
    assert all(tensor.isfinite().all() for tensor in tensors)
    assert metadata["quick_gelu"] == "false"
    assert sum(path.stat().st_size for path in tiny.FOLDER.iterdir()) < 12e6


def test_registering_again_changes_nothing_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tiny.register()
    before = list(open_clip.factory._MODEL_CONFIG_PATHS)

    tiny.register()

    assert before == open_clip.factory._MODEL_CONFIG_PATHS
    assert not list(tmp_path.iterdir())


def test_it_stays_known_in_another_folder_and_after_another_model_was_added(tmp_path, monkeypatch):
    tiny.register()
    monkeypatch.chdir(tmp_path)
    open_clip.add_model_config(Path(__file__).parents[1] / "fixtures/tiny-clip.json")

    assert open_clip.get_tokenizer("kravl-tiny").vocab_size == 3514
    assert open_clip.create_model("kravl-tiny").context_length == 24


def test_the_last_token_is_the_highest_number_where_open_clip_pools():
    tiny.register()
    tokenizer = open_clip.get_tokenizer("kravl-tiny")

    tokens = tokenizer("a drawing of a bird.")

    config = open_clip.get_model_config("kravl-tiny")["text_cfg"]
    assert tokenizer.vocab_size == config["vocab_size"]
    assert tokens.shape == (1, config["context_length"])
    assert tokens.max() == tokenizer.eot_token_id == config["vocab_size"] - 1


def test_no_class_of_openmoji_is_cut_off_in_any_shipped_template():
    tiny.register()
    tokenizer = open_clip.get_tokenizer("kravl-tiny")
    templates = {t for folder in catalog.folder().iterdir() for t in catalog.templates(folder.name, "single")}
    classes = OmegaConf.load(catalog.folder() / "openmoji/classes.yaml")

    for prompt in (template.format(name) for name in classes for template in templates):
        assert len(tokenizer.encode(prompt)) <= tokenizer.context_length - 2, prompt


@pytest.mark.parametrize("preset", KINDS_OF)
def test_adapters_go_on_every_preset_and_begin_at_the_pretrained_model(preset, images):
    model = classifier()
    with torch.no_grad():
        before = model(images)

    assert list(inject(model.encoder(), KRAdapter, select(model.encoder(), preset)).parameters())

    with torch.no_grad():
        model.prepare()
        torch.testing.assert_close(model(images), before, rtol=1e-4, atol=1e-4)


def test_the_last_two_blocks_are_the_last_of_both_towers():
    model = classifier().encoder()
    parts = [name.split(".resblocks.") for name in select_parameters(model, "last_two_blocks")]
    blocks = {f"{tower}.{place.partition('.')[0]}" for tower, place in parts}

    assert blocks == {"visual.transformer.3", "visual.transformer.4", "transformer.0", "transformer.1"}


def test_wrong_names_tags_and_activations_name_the_right_ones():
    with pytest.raises(InputError, match="unknown open_clip model 'kravl_tiny': did you mean 'kravl-tiny'"):
        classifier(name="kravl_tiny")
    with pytest.raises(InputError, match=r"tag of kravl-tiny 'kravel': did you mean 'kravl'\? \(kravl\); nor is it a"):
        classifier(pretrained="kravel")
    with pytest.raises(InputError, match="unknown pretrained tag of ViT-B-32 'kravl'"):
        classifier(name="ViT-B-32", pretrained="kravl")
    with pytest.raises(InputError, match="contradicts 'kravl', trained with quick_gelu=False"):
        classifier(pretrained="kravl", quick_gelu=True)
