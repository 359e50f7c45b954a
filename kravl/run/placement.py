"""What of a model is adapted and what else trains, found and checked before its weights are loaded."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_type_hints

import torch
from torch import nn

from kravl.adapters.base import Adapter
from kravl.adapters.injection.inject import matching_parameters
from kravl.adapters.injection.sites import Site, select_sites
from kravl.adapters.injection.storage import storable
from kravl.adapters.kra import KRAdapter
from kravl.backbones.classifier import Classifier
from kravl.backbones.structure.presets import KINDS_OF, PARAMETERS, count_sites, select_parameters, select_roles
from kravl.backbones.structure.roles import Role, roles
from kravl.config.instantiate import build, fits, resolve
from kravl.config.schema import CONFIGS, Config
from kravl.runtime.errors import InputError, some_of, unknown
from kravl.runtime.yaml_files import read_yaml

log = logging.getLogger(__name__)
KRA_SCALE = 2  # alpha / rank of a LoRA at KRAdapter's own scale
LISTED = 3
EVERYTHING = "*"
ONE_TOWER = ("vision", "text")


@dataclass(frozen=True)
class Placement:
    """Adapters and where they go.

    Args:
        make_adapter: (out, in) -> adapter; None where no matrix is adapted.
        targets: the names of the sites.
        unfreeze: patterns over the names of parameters that train besides.
        sites: how many of them there are, by tower and kind.
    """

    make_adapter: Any
    targets: list[str]
    unfreeze: list[str]
    sites: dict[str, dict[str, int]]


def free_parameters(encoder: nn.Module, placement: Placement, new: Iterable[nn.Parameter] = ()) -> list[nn.Parameter]:
    """What trains besides adapters: unfrozen parameters, and ``new`` ones."""
    sites = select_sites(encoder, placement.targets)
    free = matching_parameters(encoder, placement.unfreeze, sites)
    return list({id(p): p for p in (*free.values(), *new)}.values())


def check_stored(cfg: Config, encoder: nn.Module, trained: Iterable[nn.Parameter]) -> None:
    """Say how much of ``encoder`` is stored in ``backbone.build.dtype``. Raises InputError where nothing would be."""
    dtype = cfg.backbone.build.get("dtype")
    every, stored = (sum(p.numel() for p in ps) for ps in (encoder.parameters(), storable(encoder, trained)))
    if not stored:
        raise InputError(
            f"backbone.build.dtype={dtype}: {cfg.backbone.name} has no frozen matrix that could be stored in it "
            "(kernels of convolutions, norms and what trains stay as they are); leave it out"
        )
    log.info("%s of %s parameters are stored in %s", f"{stored:,}", f"{every:,}", dtype)


def check_sites(cfg: Config) -> None:
    """Hold ``sites`` and ``targets`` against the method, before any model is built.

    Raises:
        InputError: an adapter that is scaled to nothing, a method without one of its own, which would train another's
            under its name, or all parameters unfrozen, which no choice of matrices restricts.
    """
    given = f"targets={cfg.targets}" if cfg.targets else f"sites={cfg.sites}"
    if not (cfg.targets or cfg.sites) or cfg.head:
        return
    if cfg.optim.trains and cfg.adapter.get("scale") == 0:
        raise InputError("adapter.scale=0: the adapters would change nothing; sites=null trains without any")
    file = CONFIGS / "method" / f"{cfg.method}.yaml"
    if cfg.label == cfg.method and file.is_file() and read_yaml(file).get("sites", given) is None:
        name = resolve(cfg.adapter, Adapter, cfg.plugins).__name__
        raise InputError(
            f"{given}: {cfg.method} adapts no matrix, and would train {name} under its name; leave it out, choose that "
            "method with what this one trains (unfreeze, linear_head, context_tokens), or name the mixture by label="
        )
    two_towers = resolve(cfg.backbone.build, Classifier, cfg.plugins).zero_shot
    if EVERYTHING in cfg.unfreeze and cfg.sites in ONE_TOWER and two_towers:
        raise InputError(
            f"{given} restricts nothing: unfreeze={cfg.unfreeze} trains all parameters; give patterns of one "
            "tower, such as unfreeze=[visual.*]"
        )


def place(cfg: Config, encoder: nn.Module) -> Placement:
    """Where adapters go in ``encoder``, which may lie on the meta device.

    Raises:
        InputError: a preset, pattern or setting of the adapter that does not fit the encoder.
    """
    of_encoder = roles(encoder)
    sites = _chosen_sites(cfg, encoder, of_encoder)
    unfreeze = _parameters(cfg.unfreeze, encoder, sites)
    make_adapter = _constructor(cfg, of_encoder, sites) if sites else None
    known = {role.name: role for role in of_encoder}
    # rows of a fused weight that are not its q, k and v have no role of their own
    parts = {site.name: known.get(site.name, known.get(f"{site.name[:-1]}qkv")) for site in sites}
    if outside := [name for name, role in parts.items() if role is None]:
        log.warning(
            "%d of the adapted matrices are in no tower and will not be trained: %s",
            *(len(outside), some_of(outside, LISTED)),
        )
    counts = count_sites(role for role in parts.values() if role is not None)
    return Placement(make_adapter, list(parts), unfreeze, counts)


def _chosen_sites(cfg: Config, encoder: nn.Module, of_encoder: Sequence[Role]) -> list[Site]:
    own = cfg.backbone.sites
    if cfg.targets:
        targets = list(cfg.targets)
    elif cfg.sites is None:
        return []
    elif cfg.sites in own:
        targets = list(own[cfg.sites])
    else:
        targets = [role.name for role in select_roles(of_encoder, cfg.sites, own)]
    return select_sites(encoder, targets)


def _parameters(chosen: Iterable[str], encoder: nn.Module, sites: Sequence[Site]) -> list[str]:
    """Patterns over parameters, presets among them as the names that they stand for."""
    adapted = {id(site.parameter) for site in sites}
    free = {name for name, parameter in encoder.named_parameters() if id(parameter) not in adapted}
    patterns: list[str] = []
    for pattern in chosen:
        if pattern in PARAMETERS:
            patterns += [name for name in select_parameters(encoder, pattern) if name in free]
        elif pattern.isidentifier() and pattern not in free and get_close_matches(pattern, PARAMETERS):
            raise unknown("preset of parameters", pattern, PARAMETERS)
        else:
            patterns.append(pattern)
    matching_parameters(encoder, patterns, sites)
    return patterns


def _constructor(cfg: Config, of_encoder: Sequence[Role], sites: Sequence[Site]) -> Any:
    """The adapter's constructor, tried on every shape that it will be called with."""
    shapes = list(dict.fromkeys((site.weight.shape[0], site.weight.shape[1]) for site in sites))
    whole = [role.shape for role in of_encoder if role.kind in KINDS_OF["both"] and role.part_of is None]
    settings = _with_comparable_rank(cfg, whole or [(site.weight.shape[0], site.weight.shape[1]) for site in sites])
    make_adapter = build(settings, Adapter, cfg.plugins)
    with torch.random.fork_rng(devices=[]):  # the run's own random numbers are not touched
        counts = {shape: _size(make_adapter(*shape)) for shape in shapes}
    excess = [(count, shape) for shape, count in counts.items() if count > math.prod(shape)]
    if excess:
        count, (out, into) = max(excess)
        log.warning(
            "an adapter has %s trainable parameters for a matrix of %d x %d, which has %s; method=full trains those",
            *(f"{count:,}", out, into, f"{out * into:,}"),
        )
    return make_adapter


def _with_comparable_rank(cfg: Config, shapes: Sequence[tuple[int, int]]) -> Mapping[str, Any]:
    """The adapter's settings, a rank or alpha that it needs and that is null being that of a comparable LoRA."""
    types = get_type_hints(resolve(cfg.adapter, Adapter, cfg.plugins).__init__)
    needed = [
        key for key in cfg.backbone.lora if key in cfg.adapter and not fits(cfg.adapter[key], types.get(key, Any))
    ]
    missing = [key for key in needed if cfg.adapter[key] is None]
    return {**cfg.adapter, **{key: comparable_lora(shapes)[key] for key in missing}}


def comparable_lora(shapes: Sequence[tuple[int, int]]) -> dict[str, int]:
    """Rank and alpha of a LoRA that has as many parameters as KRAdapter on matrices of these ``shapes`` (out, in)."""
    with torch.device("meta"):
        sizes = {shape: _size(KRAdapter(*shape)) for shape in set(shapes)}
    rank = max(1, round(sum(sizes[shape] for shape in shapes) / sum(out + into for out, into in shapes)))
    return {"rank": rank, "alpha": KRA_SCALE * rank}


def _size(adapter: Adapter) -> int:
    return sum(parameter.numel() for parameter in adapter.parameters() if parameter.requires_grad)
