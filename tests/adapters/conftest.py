"""Tiny models with every kind of site, built once and copied for each test."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from kravl.adapters.base import Adapter
from kravl.adapters.injection.adapter_set import AdapterSet
from kravl.adapters.injection.inject import inject

CONFIGS = sorted((Path(__file__).parents[2] / "configs/adapter").glob("*.yaml"))
IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5
TOKENS = torch.randint(1, 99, (3, 8), generator=torch.Generator().manual_seed(0))


@dataclass
class Case:
    """A model, how to run it, the sites to adapt, and one of its blocks with the shape of the block's input."""

    model: nn.Module
    run: Callable[[nn.Module], Tensor]
    targets: list[str]
    block: str
    shape: tuple[int, ...]


def run_clip(model: nn.Module) -> Tensor:
    images, tokens = IMAGES.to(model.logit_scale), TOKENS.to(model.logit_scale.device)
    return torch.cat([model.encode_image(images), model.encode_text(tokens)])


def run_vit(model: nn.Module) -> Tensor:
    return model(IMAGES.to(model.head.bias))


def run_convnext(model: nn.Module) -> Tensor:
    return model(IMAGES.to(model.head.fc.bias))


@pytest.fixture(scope="session")
def built_clip() -> nn.Module:
    torch.manual_seed(0)
    vision = open_clip.CLIPVisionCfg(layers=2, width=32, head_width=8, patch_size=16, image_size=32)
    text = open_clip.CLIPTextCfg(layers=2, width=32, heads=2, vocab_size=100, context_length=8)
    model = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text)
    return randomise_biases(model)


@pytest.fixture(scope="session")
def built_vit() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 5}
    return randomise_biases(timm.models.vision_transformer.VisionTransformer(**sizes))


@pytest.fixture(scope="session")
def built_convnext() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 24), "kernel_sizes": (7, 5, 3, 3), "num_classes": 5}
    model = timm.models.convnext.ConvNeXt(**sizes, conv_mlp=True, ls_init_value=None)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):  # timm's own are so small that nothing but biases reaches the head
            nn.init.kaiming_normal_(module.weight)
    return randomise_biases(model)


def randomise_biases(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.1)
    return model


@pytest.fixture
def clip(built_clip: nn.Module) -> nn.Module:
    return copy.deepcopy(built_clip)


@pytest.fixture
def vit(built_vit: nn.Module) -> nn.Module:
    return copy.deepcopy(built_vit)


@pytest.fixture
def convnext(built_convnext: nn.Module) -> nn.Module:
    return copy.deepcopy(built_convnext)


@pytest.fixture(params=["clip", "vit", "convnext"])
def case(request: pytest.FixtureRequest) -> Case:
    """Packed attention whole and in parts, out_proj, MLP matrices, bare projections; timm's fused qkv; convolutions.

    These are a stem in steps of four, strided, of one position, and depthwise.
    """
    model = request.getfixturevalue(request.param)
    if request.param == "clip":
        vision = ["visual.*.attn.qkv", "visual.*.attn.out_proj", "visual.*.mlp.*", "visual.proj"]
        text = ["transformer.*.attn.q", "transformer.*.attn.v", "text_projection"]
        return Case(model, run_clip, [*vision, *text], "visual.transformer.resblocks.0", (2, 5, 32))
    if request.param == "convnext":
        targets = ["stem.0", "stages.*.downsample.1", "stages.*.conv_dw", "stages.*.mlp.fc?", "head.fc"]
        return Case(model, run_convnext, targets, "stages.0.blocks.0", (2, 8, 6, 5))
    targets = ["blocks.0.attn.qkv", "blocks.1.attn.k", "blocks.*.attn.proj", "blocks.*.mlp.*"]
    return Case(model, run_vit, targets, "blocks.0", (2, 5, 48))


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def config(request: pytest.FixtureRequest) -> dict[str, object]:
    return dict(OmegaConf.load(request.param))


@pytest.fixture
def make_adapter(config: dict[str, object]) -> Callable[..., Adapter]:
    """The adapter of each file in configs/adapter."""
    return instantiate(config)


@pytest.fixture
def perturb() -> Callable[[AdapterSet], None]:
    """Moves all that trains away from its initial values, as training would."""

    def move(adapters: AdapterSet) -> None:
        generator = torch.Generator().manual_seed(1)
        start = [parameter.detach().clone() for parameter in adapters.parameters()]
        with torch.no_grad():
            for parameter in adapters.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(noise.to(parameter), alpha=0.1)
        shrink(adapters, start)

    return move


def shrink(adapters: AdapterSet, start: list[Tensor]) -> None:
    """Moves back towards ``start`` until no update is larger than its weight.

    The same noise makes updates of RandLoRA 78 times as large, and then rounding, in which no two orders of products
    agree, is as much larger in the outputs.
    """
    for _ in range(10):
        if all(delta.norm() <= base.norm() for _, base, delta in adapters.pairs()):
            break
        for parameter, value in zip(adapters.parameters(), start, strict=True):
            parameter.data.lerp_(value, 0.5)


@pytest.fixture
def unadapted() -> Callable[[nn.Module], nn.Module]:
    """Copies a model as `inject` leaves one that nothing adapts: frozen, with kravl's attention in place of torch's.

    An adapted model starts with its bits on every processor. Those of nn.MultiheadAttention it has only where the
    product of a row does not depend on the row's place among the others: torch moves the batch to the second place
    first, and MKL's kernels sum a row at the edge of a block in another order.
    """

    def copied(model: nn.Module) -> nn.Module:
        plain = copy.deepcopy(model)
        inject(plain, None, [])
        return plain

    return copied


@pytest.fixture(autouse=True)
def without_the_fused_inference_kernel() -> Iterator[None]:
    """nn.MultiheadAttention computes by other operations in its inference fast path: no reference for what it does."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)
