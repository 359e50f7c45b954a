"""timm's vision transformers with a linear head."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from kravl.backbones.vit import VitClassifier
from kravl.runtime.errors import InputError

TINY = "vit_tiny_patch16_224"
NAMES = ("a", "b", "c")


def classifier(**settings) -> VitClassifier:
    torch.manual_seed(0)
    return VitClassifier(NAMES, (), **{"name": TINY, "pretrained": False, "image_size": 32, **settings})


def test_the_head_starts_without_a_preference():
    model = classifier()

    logits = model(torch.randn(2, 3, 32, 32))

    assert torch.equal(logits, torch.zeros(2, 3))
    assert [p.shape for p in model.head_parameters()] == [(3, 192), (3,)]
    assert not model.zero_shot


def test_a_local_checkpoint_fills_everything_but_the_head(tmp_path):
    torch.manual_seed(1)
    pretrained = timm.create_model(TINY, num_classes=0, img_size=32)
    save_file(pretrained.state_dict(), tmp_path / "weights.safetensors")

    model = classifier(pretrained=str(tmp_path / "weights.safetensors"))

    state = model.encoder().state_dict()
    assert all(torch.equal(state[name], value) for name, value in pretrained.state_dict().items())
    assert model.provenance()["pretrained"] == "weights.safetensors"


def test_positions_of_another_image_size_are_interpolated(tmp_path):
    save_file(timm.create_model(TINY, num_classes=0, img_size=64).state_dict(), tmp_path / "weights.safetensors")
    model = classifier(pretrained=str(tmp_path / "weights.safetensors"), image_size=32)
    assert model.encoder().pos_embed.shape == (1, 5, 192)
    assert model.preprocess.image_size == 32


def test_a_checkpoint_that_lacks_weights_is_refused_rather_than_filled_with_noise(tmp_path):
    state = timm.create_model(TINY, num_classes=0, img_size=32).state_dict()
    save_file({k: v for k, v in state.items() if not k.startswith("blocks.3.")}, tmp_path / "half.safetensors")
    with pytest.raises(InputError, match=r"of another model: it lacks 12 weights, such as 'blocks\.3\.norm1\.weight'"):
        classifier(pretrained=str(tmp_path / "half.safetensors"))


def test_a_checkpoint_of_another_width_is_refused(tmp_path):
    state = timm.create_model("vit_small_patch16_224", num_classes=0, img_size=32).state_dict()
    save_file(state, tmp_path / "small.safetensors")
    with pytest.raises(InputError, match="do not load into 'vit_tiny_patch16_224'"):
        classifier(pretrained=str(tmp_path / "small.safetensors"))


def test_what_cannot_be_had_is_one_line(tmp_path):
    (tmp_path / "torn.safetensors").write_bytes(b"\x00")
    with pytest.raises(InputError, match=r"torn\.safetensors is refused"):
        classifier(pretrained=str(tmp_path / "torn.safetensors"))
    with pytest.raises(InputError, match=r"no checkpoint '/no\.pth'"):
        classifier(pretrained="/no.pth")
    with pytest.raises(InputError, match="did you mean 'vit_tiny_patch16_224'"):
        classifier(name="vit_tiny_patch16_244")


HEADS = {"deit_tiny_distilled_patch16_224": 2, "crossvit_tiny_240": 2, "levit_128s": 2, "samvit_base_patch16": 1}
SIZES = {"deit_tiny_distilled_patch16_224": 32, "samvit_base_patch16": 32}


def test_logits_of_a_head_behind_batch_norm_are_timms():
    model = classifier(name="efficientvit_m0", image_size=None).eval()
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    norm = model.model.head.bn
    with torch.no_grad():
        norm.running_mean.normal_(), norm.weight.uniform_(1, 2), norm.bias.normal_()
        for parameter in model.head_parameters():
            parameter.normal_()

        torch.testing.assert_close(model(images), model.model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_logits_are_the_mean_of_the_heads_as_at_inference_in_timm(name):
    model = classifier(name=name, image_size=SIZES.get(name)).eval()
    size = model.preprocess.image_size
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(model(images), torch.zeros(2, 3))
        for parameter in model.head_parameters():
            parameter.normal_()
        features = model.image_features(images)

        assert features.dim() == 2
        assert len(model._widths) == HEADS[name]
        torch.testing.assert_close(model.logits(features), model.model(images), rtol=1e-4, atol=1e-4)
        assert model.logits(features).abs().min() > 0


def test_every_head_of_several_is_trained():
    model = classifier(name="deit_tiny_distilled_patch16_224").train()
    model(torch.rand(2, 3, 32, 32))[:, 0].sum().backward()
    assert [bool(p.grad.any()) for p in model.head_parameters()] == [True] * 4


def test_models_whose_logits_kravl_cannot_compute_are_one_line():
    with pytest.raises(
        InputError, match=r"'efficientvim_m1' cannot be a backbone: its logits are not the mean of its 4"
    ):
        classifier(name="efficientvim_m1", image_size=None)
    with pytest.raises(InputError, match=r"'deepseek_vit_412m_enc' cannot be a backbone: .*get_classifier"):
        classifier(name="deepseek_vit_412m_enc", image_size=None)


def test_a_size_that_does_not_fit_is_one_line_before_weights_are_looked_at():
    with pytest.raises(InputError, match=r"image_size=224 does not fit 'crossvit_tiny_240': .*; its own size is 240"):
        classifier(name="crossvit_tiny_240", image_size=224, pretrained=True)
    with pytest.raises(InputError, match="image_size=0 does not fit 'test_vit'"):
        classifier(name="test_vit", image_size=0)
    with pytest.raises(InputError, match=r"image_size=100 does not fit 'xcit_.*, and a multiple of its patch, 16, may"):
        classifier(name="xcit_nano_12_p16_224", image_size=100)


def test_a_size_that_is_no_square_and_a_model_of_any_size_work():
    wide = classifier(image_size=[32, 64])
    assert wide(torch.rand(1, 3, 32, 64)).shape == (1, 3)
    assert wide.provenance()["image_size"] == [32, 64]
    convolutional = classifier(name="test_convnext", image_size=96)
    assert convolutional.preprocess.image_size == 96
    assert convolutional(torch.rand(1, 3, 96, 96)).shape == (1, 3)


def test_random_numbers_after_a_model_are_those_after_timms_own():
    torch.manual_seed(0)
    timm.create_model(TINY, num_classes=3, img_size=32)
    expected = torch.rand(1)
    classifier()
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.assets
def test_the_real_vit_loads_with_every_key_and_separates_real_classes(assets):
    model = classifier(
        name="vit_small_patch14_dinov2", pretrained=str(assets / "vit_small_patch14.safetensors"), image_size=126
    )
    assert sum(p.numel() for p in model.encoder().parameters()) == 21_562_755  # at 126 pixels, with a head of three
    assert model.encoder().pos_embed.shape == (1, 82, 384)
    assert model.encoder().blocks[0].attn.qkv.weight.dtype == torch.float32
