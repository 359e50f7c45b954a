"""PEFT's layers with the very factors of ours, so that both compute the same numbers."""

from collections.abc import Callable
from typing import Any

import torch
from peft import (
    C3AConfig,
    DeloraConfig,
    FourierFTConfig,
    GraloraConfig,
    HiraConfig,
    HRAConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    MissConfig,
    OFTConfig,
    PeftConfig,
    PsoftConfig,
    RandLoraConfig,
    RoadConfig,
    ShiraConfig,
    WaveFTConfig,
    get_peft_model,
)
from torch import Tensor, nn

from kravl.adapters.base import Adapter
from kravl.adapters.bat import Bat
from kravl.adapters.c3a import C3A
from kravl.adapters.delora import DeLoRA
from kravl.adapters.fourierft import FourierFT
from kravl.adapters.gralora import GraLoRA
from kravl.adapters.hira import HiRA
from kravl.adapters.hra import HRA
from kravl.adapters.loha import LoHa
from kravl.adapters.lokr import LoKr
from kravl.adapters.lora import LoRA
from kravl.adapters.miss import MiSS
from kravl.adapters.oft import OFT
from kravl.adapters.pissa import PiSSA
from kravl.adapters.psoft import PSOFT
from kravl.adapters.randlora import RandLoRA
from kravl.adapters.road import RoAd
from kravl.adapters.shira import SHiRA
from kravl.adapters.waveft import WaveFT

NAME = "default"  # of PEFT's adapter


@torch.no_grad()
def peft_lora(base: nn.Linear, ours: LoRA) -> nn.Module:
    layer = _layer(base, LoraConfig(r=ours.rank, lora_alpha=ours.alpha, use_rslora=ours.rank_stabilised))
    return _copied(layer, {"lora_A": ours.a, "lora_B": ours.b})


@torch.no_grad()
def peft_conv_lora(base: nn.Conv2d, ours: LoRA) -> nn.Module:
    layer = _layer(base, LoraConfig(r=ours.rank, lora_alpha=ours.alpha))
    return _copied(layer, {"lora_A": ours.a.view(-1, *base.weight.shape[1:]), "lora_B": ours.b[..., None, None]})


@torch.no_grad()
def peft_randlora(base: nn.Linear, ours: RandLoRA) -> nn.Module:
    """It pairs bases in another order, and for square weights its update is the transpose of ours."""
    layer = _layer(base, RandLoraConfig(r=ours.rank, randlora_alpha=ours.alpha))
    num, rank = ours.lam.shape
    layer.randlora_lambda[NAME].copy_(ours.lam.T)
    layer.randlora_gamma[NAME].copy_(ours.gamma)
    layer.randlora_A[NAME].copy_(ours.bases_a.unsqueeze(1))
    paired = ours.bases_b.unflatten(1, (num, rank)).transpose(1, 2).flatten(1)
    layer.randlora_B[NAME].copy_(paired.unflatten(1, (num, rank)))
    return layer


@torch.no_grad()
def peft_shira(base: nn.Linear, ours: SHiRA) -> nn.Module:
    """Its number of values is a multiple of out + in."""
    config = ShiraConfig(r=len(ours.values) // sum(ours.shape), random_seed=ours.seed)
    layer = _copied(_layer(base, config), {"shira_weight": ours.values})
    layer.set_scale(NAME, ours.scale)
    rows, columns = layer.shira_indices[NAME]
    assert torch.equal(rows * ours.in_features + columns, ours.positions.int())  # of one seed
    return layer


@torch.no_grad()
def peft_hira(base: nn.Linear, ours: HiRA) -> nn.Module:
    return _copied(_layer(base, HiraConfig(r=len(ours.a))), {"hira_A": ours.a, "hira_B": ours.b})


@torch.no_grad()
def peft_loha(base: nn.Linear, ours: LoHa) -> nn.Module:
    layer = _layer(base, LoHaConfig(r=len(ours.a1), alpha=ours.scale * len(ours.a1)))
    return _copied(layer, {"hada_w1_a": ours.b1, "hada_w1_b": ours.a1, "hada_w2_a": ours.b2, "hada_w2_b": ours.a2})


@torch.no_grad()
def peft_c3a(base: nn.Linear, ours: C3A) -> nn.Module:
    """It computes in single precision."""
    return _copied(_layer(base, C3AConfig(block_size=ours.kernel.shape[2])), {"c3a_kernel": ours.kernel})


@torch.no_grad()
def peft_fourierft(base: nn.Linear, ours: FourierFT) -> nn.Module:
    """It rounds coefficients to single precision, and draws positions that it does not sort."""
    config = FourierFTConfig(n_frequency=len(ours.coefficients), scaling=ours.scale, random_loc_seed=ours.seed)
    layer = _layer(base, config)
    layer.fourierft_spectrum[NAME].copy_(_unsorted(ours.coefficients, layer.indices[NAME], ours))
    return layer


@torch.no_grad()
def peft_waveft(base: nn.Linear, ours: WaveFT) -> nn.Module:
    config = WaveFTConfig(n_frequency=len(ours.coefficients), scaling=ours.scale, random_loc_seed=ours.seed)
    layer = _layer(base, config)
    layer.waveft_spectrum[NAME].copy_(_unsorted(ours.coefficients, layer.waveft_indices[NAME], ours))
    return layer


@torch.no_grad()
def peft_pissa(base: nn.Linear, ours: PiSSA) -> nn.Module:
    """Its start is rounded to single precision: the residual of the weight is made from ours."""
    rank, weight = len(ours.a), base.weight.clone()
    config = LoraConfig(r=rank, lora_alpha=ours.scale * rank, init_lora_weights="pissa")
    layer = _layer(base.float(), config).to(weight.dtype)
    residual = weight - ours.scale * ours.start_b @ ours.start_a
    torch.testing.assert_close(layer.base_layer.weight, residual, rtol=1e-3, atol=1e-4)
    layer.base_layer.weight.copy_(residual)
    return _copied(layer, {"lora_A": ours.start_a + ours.a, "lora_B": ours.start_b + ours.b})


@torch.no_grad()
def peft_gralora(base: nn.Linear, ours: GraLoRA) -> nn.Module:
    grid, rank, _ = ours.a.shape
    layer = _layer(base, GraloraConfig(r=rank, alpha=ours.scale * rank, gralora_k=grid, hybrid_r=0))
    return _copied(layer, {"gralora_A": ours.a.mT, "gralora_B": ours.b.mT})


@torch.no_grad()
def peft_delora(base: nn.Linear, ours: DeLoRA) -> nn.Module:
    layer = _layer(base, DeloraConfig(r=len(ours.a), delora_lambda=ours.boundary))
    return _copied(layer, {"delora_A": ours.a, "delora_B": ours.b, "delora_lambda": ours.strength})


@torch.no_grad()
def peft_miss(base: nn.Linear, ours: MiSS) -> nn.Module:
    return _copied(_layer(base, MissConfig(r=ours.d.shape[1])), {"miss_block": ours.d.T})


@torch.no_grad()
def peft_bat(base: nn.Linear, ours: Bat) -> nn.Module:
    return _copied(_layer(base, MissConfig(r=ours.d.shape[1], init_weights="bat")), {"miss_block": ours.d})


@torch.no_grad()
def peft_lokr(base: nn.Linear, ours: LoKr) -> nn.Module:
    rank = ours.rank or max(ours.shape)  # from half of the longer side on, it takes the full second factor
    layer = _layer(base, LoKrConfig(r=rank, alpha=ours.scale * rank, decompose_factor=len(ours.w1)))
    if ours.rank is None:
        return _copied(layer, {"lokr_w1": ours.w1, "lokr_w2": ours.w2})
    return _copied(layer, {"lokr_w1": ours.w1, "lokr_w2_a": ours.b, "lokr_w2_b": ours.a})


@torch.no_grad()
def peft_oft(base: nn.Linear, ours: OFT) -> nn.Module:
    config = OFTConfig(
        r=0, oft_block_size=ours.side, use_cayley_neumann=True, num_cayley_neumann_terms=ours.terms, bias="none"
    )
    layer = _layer(base, config)
    layer.oft_R[NAME].weight.copy_(ours.triangles)
    return layer


@torch.no_grad()
def peft_hra(base: nn.Linear, ours: HRA) -> nn.Module:
    return _copied(_layer(base, HRAConfig(r=len(ours.u))), {"hra_u": ours.u.T})


@torch.no_grad()
def peft_road(base: nn.Linear, ours: RoAd) -> nn.Module:
    """It rotates the bias as well: it is dropped, here and in what this is compared with."""
    config = RoadConfig(variant=f"road_{ours.variant}", group_size=2 * ours.grid[2])
    layer = _layer(nn.Linear(base.in_features, base.out_features, bias=False).to(base.weight), config)
    layer.base_layer.weight.copy_(base.weight)
    layer.base_layer.requires_grad_(False)
    groups = ours.theta.view(len(ours.theta), -1, 2 * ours.grid[2]).transpose(0, 1) if ours.variant == 4 else ours.theta
    lengths = (
        ours.alpha.view(len(ours.alpha), -1, 2 * ours.grid[2]).transpose(0, 1) if ours.variant == 4 else ours.alpha
    )
    return _copied(layer, {"road_theta": groups.reshape(-1), "road_alpha": lengths.reshape(-1)})


@torch.no_grad()
def peft_psoft(base: nn.Linear, ours: PSOFT) -> nn.Module:
    """Its directions are rounded to single precision, and of either sign: it gets ours."""
    rank, weight = ours.inner, base.weight.clone()
    layer = _layer(base.float(), PsoftConfig(r=rank, psoft_alpha=rank)).to(weight.dtype)
    layer.base_layer.weight.copy_(weight)
    product = layer._psoft_B_cache[NAME] @ layer._psoft_A_cache[NAME]
    torch.testing.assert_close(product.to(weight.dtype), ours.left @ ours.right, rtol=1e-3, atol=1e-4)
    layer._set_psoft_ab_cache_buffers(NAME, ours.right, ours.left)
    rotation = layer.psoft_R[NAME]
    for held, value in (
        (rotation.weight, ours.triangle),
        (rotation.vector_b, ours.beta),
        (rotation.vector_a, ours.alpha),
    ):
        held.copy_(value)
    return layer


# ours -> PEFT's layer of the same update
PEFT: dict[type[Adapter], Callable[[nn.Linear, Any], nn.Module]] = {
    LoRA: peft_lora,
    RandLoRA: peft_randlora,
    SHiRA: peft_shira,
    HiRA: peft_hira,
    LoHa: peft_loha,
    C3A: peft_c3a,
    FourierFT: peft_fourierft,
    WaveFT: peft_waveft,
    PiSSA: peft_pissa,
    GraLoRA: peft_gralora,
    DeLoRA: peft_delora,
    MiSS: peft_miss,
    Bat: peft_bat,
    LoKr: peft_lokr,
    OFT: peft_oft,
    HRA: peft_hra,
    RoAd: peft_road,
    PSOFT: peft_psoft,
}


def _layer(base: nn.Module, config: PeftConfig) -> nn.Module:
    config.target_modules = {"0"}
    return get_peft_model(nn.Sequential(base), config).base_model.model[0]


def _copied(layer: nn.Module, values: dict[str, Tensor]) -> nn.Module:
    for name, value in values.items():
        held = getattr(layer, name)[NAME]
        (held.weight if isinstance(held, nn.Module) else held).copy_(value)
    return layer


def _unsorted(values: Tensor, indices: Tensor, ours: Adapter) -> Tensor:
    """``values`` at ascending positions in the order of PEFT's ``indices`` (rows, columns)."""
    order = (indices[0] * ours.in_features + indices[1]).argsort()
    result = torch.empty_like(values)
    result[order] = values
    return result
