"""Convolutional networks, all of their matrices adapted and trained for two steps, with norms as kravl keeps them."""

import copy
from functools import partial

import open_clip
import pytest
import timm
import torch
from torch import nn

from kravl.adapters.injection.inject import inject
from kravl.adapters.injection.serialization import load_adapters, save_adapters
from kravl.adapters.kra import KRAdapter
from kravl.adapters.lora import LoRA
from kravl.adapters.update_spectra import Diagnosis


def clip_resnet():
    vision = open_clip.CLIPVisionCfg(layers=(1, 1, 1, 1), width=8, image_size=64)
    return open_clip.model._build_vision_tower(16, vision)


MODELS = {
    "ModifiedResNet": clip_resnet,
    "test_resnet": partial(timm.create_model, "test_resnet"),
    "test_convnext": partial(timm.create_model, "test_convnext", ls_init_value=1.0),
    "test_nfnet": partial(timm.create_model, "test_nfnet"),  # standardises its weights
    "test_efficientnet": partial(timm.create_model, "test_efficientnet", pad_type="same"),  # pads its inputs
}
METHODS = {"kra": KRAdapter, "lora": partial(LoRA, rank=4, alpha=4)}


def pretrained(name, images):
    """A model whose output depends on its images, as that of a trained one does: blocks that count, norms that fit."""
    model = MODELS[name]()
    for parameter in model.parameters():
        if not parameter.count_nonzero():
            nn.init.constant_(parameter, 0.3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(images)
    return model.eval()  # as Classifier.train leaves frozen norms


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MODELS)
def test_a_convolutional_network_trains_merges_and_loads(name, method, tmp_path):
    torch.manual_seed(0)
    images = torch.rand(4, 3, 64, 64)
    model = pretrained(name, images)
    norms = {name: buffer.clone() for name, buffer in model.named_buffers()}
    before, fresh = model(images), copy.deepcopy(model)
    adapters, loaded = (inject(each, METHODS[method], ["*"]) for each in (model, fresh))
    assert torch.equal(model(images), before)
    kinds = nn.Conv2d | nn.Linear
    assert len(adapters.adapters) == sum(isinstance(module, kinds) for module in model.modules()) > 10

    optimizer = torch.optim.Adam(adapters.parameters(), lr=0.01)
    for _ in range(2):
        loss = nn.functional.cross_entropy(model(images), torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in adapters.parameters())
        optimizer.step()
    assert all(delta.count_nonzero() > 0 for _, delta in adapters.deltas())
    adapted = model(images)
    assert (adapted - before).norm() > 1e-3 * before.norm()

    save_adapters(adapters, tmp_path / "adapter.safetensors")
    load_adapters(loaded, tmp_path / "adapter.safetensors")
    assert torch.equal(fresh(images), adapted)
    spectra = Diagnosis(adapters).quantities()
    assert all(0 < values["effective_rank"] <= min(d.shape) + 1e-3 for values, (_, d) in _pairs(spectra, adapters))
    with adapters.disable_adapters():
        assert torch.equal(model(images), before)
    adapters.merge_and_unload()
    # equal but for LoRA's factors, which few positions are convolved with one after the other: rounding of float32,
    # 1.2e-7, in sums of up to 600 products and some twenty layers
    torch.testing.assert_close(model(images), adapted, rtol=0, atol=2e-5 * adapted.abs().max().item())
    assert all(torch.equal(buffer, norms[name]) for name, buffer in model.named_buffers())


def _pairs(spectra, adapters):
    return zip(spectra.values(), adapters.deltas(), strict=True)
