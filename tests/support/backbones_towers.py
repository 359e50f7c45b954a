"""open_clip models of real shape and little width in float64, adapted, and real class names of mixed length."""

from typing import Any

import open_clip
import torch
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor, nn

from kravl.adapters.injection.adapter_set import AdapterSet
from kravl.adapters.injection.inject import inject
from kravl.adapters.kra import KRAdapter

# of Stanford Cars, where a name has up to a dozen words
CARS = (
    "AM General Hummer SUV 2000",
    "Acura TL Sedan 2012",
    "Acura TL Type-S 2008",
    "Chevrolet Silverado 1500 Hybrid Crew Cab 2012",
    "Chevrolet Silverado 1500 Classic Extended Cab 2007",
    "Mercedes-Benz 300-Class Convertible 1993",
    "smart fortwo Convertible 2012",
)
NAMES = (*IMAGENET_CLASSNAMES[::60], *CARS)
TEMPLATES = ("a photo of a {}.", "itap of the {}.")
VISION: dict[str, Any] = {"layers": 3, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
TEXT: dict[str, Any] = {"layers": 3, "width": 32, "heads": 2}


def clip(vision: dict[str, Any] | None = None, text: dict[str, Any] | None = None, custom: bool = False) -> nn.Module:
    """A random CLIP in float64; a CustomTextCLIP, as CoCa's relatives are, if ``custom``."""
    torch.manual_seed(0)
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    return randomised(kind(embed_dim=16, vision_cfg=VISION | (vision or {}), text_cfg=TEXT | (text or {}))).double()


def randomised(model: nn.Module) -> nn.Module:
    """The model with biases, norms and layer scales that are not those of its initialisation."""
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=0.5, std=0.2)
    return model


def adapted(model: nn.Module, targets: tuple[str, ...] = ("*.attn.qkv", "*.mlp.c_*")) -> AdapterSet:
    """KRAdapters with random factors on both towers."""
    adapters = inject(model, KRAdapter, targets)
    for parameter in adapters.parameters():
        nn.init.normal_(parameter, std=0.1)
    return adapters


def prompts() -> Tensor:
    """Tokens (n, 77) of `NAMES` in `TEMPLATES`, one of them twice."""
    texts = [template.format(name) for name in NAMES for template in TEMPLATES]
    return open_clip.get_tokenizer("ViT-B-32")([*texts, texts[3]])


def gradients(features: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """Of a loss in which every feature counts differently."""
    weights = torch.randn(features.shape, dtype=features.dtype, generator=torch.Generator().manual_seed(1))
    total = (features * weights.to(features.device)).sum()
    return list(torch.autograd.grad(total, parameters, allow_unused=True))


def assert_equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    """Up to 1e-12 of the largest entry."""
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert (a - b).abs().max() <= 1e-12 * max(1.0, b.abs().max())
