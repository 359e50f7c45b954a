"""Presets of what to adapt and what to train, which mean the same in every encoder: by structure, not by name.

Sites: ``vision``, ``text`` and ``both`` are queries, keys and values (one matrix where they are one weight), the
matrices of the MLPs, and the convolutions of the blocks but depthwise ones, as the lineage of KRAdapter and RandLoRA
adapts CLIP; ``cliplora`` is queries, keys and values apart (Zanella and Ben Ayed, CVPRW 2024); ``all`` adds to ``both``
what else attention has and depthwise convolutions. Of a model with one tower they mean that one.

Parameters: ``norms``, ``biases`` (Ben Zaken et al., ACL 2022), ``last_two_blocks``, of each tower.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch import nn

from kravl.backbones.structure.blocks import IMAGE, TEXT, blocks, is_within, tower_of, towers
from kravl.backbones.structure.roles import KINDS, Role, roles
from kravl.runtime.errors import InputError, unknown

ATTENTION = ("qkv", "q", "k", "v", "qk", "kv")
WHOLE = (*ATTENTION, "mlp", "conv")
KINDS_OF = {
    "vision": WHOLE,
    "text": WHOLE,
    "both": WHOLE,
    "cliplora": ATTENTION,
    "all": (*WHOLE, "out", "attention", "depthwise"),
}
TOWERS_OF = {"vision": (IMAGE,), "text": (TEXT,)}  # the others are of every tower
PARAMETERS = ("norms", "biases", "last_two_blocks")


def select(encoder: nn.Module, preset: str) -> list[str]:
    """The names of the sites of ``preset`` in ``encoder``, which may lie on the meta device.

    Raises:
        InputError: unknown preset, or one that names a tower without such sites.
    """
    return [role.name for role in select_roles(roles(encoder), preset)]


def select_roles(of_encoder: Sequence[Role], preset: str, further: Iterable[str] = ()) -> list[Role]:
    """The roles of the sites of ``preset`` among all ``of_encoder``.

    Args:
        further: presets that could be chosen besides, for the message.

    Raises:
        InputError: as `select`.
    """
    if preset not in KINDS_OF:
        raise unknown("sites preset", preset, [*KINDS_OF, *further])
    present = list(dict.fromkeys(role.tower for role in of_encoder))
    selected = [role for role in of_encoder if role.kind in KINDS_OF[preset]]
    selected = _whole(selected) if preset != "cliplora" else _apart(selected)
    for tower in TOWERS_OF.get(preset, present or (IMAGE,)):
        if not any(role.tower == tower for role in selected):
            raise _nothing_in(tower, preset, of_encoder)
    return [role for role in selected if role.tower in TOWERS_OF.get(preset, present)]


def _whole(selected: Sequence[Role]) -> list[Role]:
    """Without q, k and v that are rows of a site that is selected."""
    return [role for role in selected if role.part_of is None]


def _apart(selected: Sequence[Role]) -> list[Role]:
    """Without fused sites whose q, k and v are sites."""
    divided = {role.part_of for role in selected}
    return [role for role in selected if role.name not in divided]


def _nothing_in(tower: str, preset: str, of_encoder: Sequence[Role]) -> InputError:
    kinds = "queries, keys and values" if preset == "cliplora" else "attention, MLP or convolution"
    within = [role for role in of_encoder if role.tower == tower]
    if not within:
        has = ", ".join(dict.fromkeys(role.tower for role in of_encoder)) or "no"
        return InputError(f"sites={preset}: the model has no {tower} tower, only its {has} tower; choose sites=both")
    others = [name for name in KINDS_OF if name != preset and _fits(name, of_encoder)]
    choices = ", ".join([*others, "targets=[...] by name, such as " + repr(within[0].name)])
    return InputError(
        f"sites={preset}: the {tower} tower has no {kinds}; it is made of {_made_of(within)}; choose {choices}"
    )


def _fits(preset: str, of_encoder: Sequence[Role]) -> bool:
    wanted = TOWERS_OF.get(preset, tuple({role.tower for role in of_encoder}))
    return all(any(role.tower == tower and role.kind in KINDS_OF[preset] for role in of_encoder) for tower in wanted)


def _made_of(within: Sequence[Role]) -> str:
    counts = Counter(role.kind for role in within if role.part_of is None)
    return ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])


def count_sites(selected: Iterable[Role]) -> dict[str, dict[str, int]]:
    """How many sites there are, by tower and kind, as ``{"image": {"qkv": 12, "mlp": 24}}``."""
    counts: dict[str, Counter[str]] = {}
    for role in selected:
        counts.setdefault(role.tower, Counter())[role.kind] += 1
    present = [tower for tower in (IMAGE, TEXT) if tower in counts]
    return {tower: {kind: counts[tower][kind] for kind in KINDS if counts[tower][kind]} for tower in present}


def listed_sites(counts: Mapping[str, Mapping[str, int]]) -> str:
    """What `count_sites` counts, as ``image 36 (qkv 12, mlp 24), text 36 (qkv 12, mlp 24)``."""
    towers_listed = [
        f"{tower} {sum(kinds.values())} ({', '.join(f'{kind} {count}' for kind, count in kinds.items())})"
        for tower, kinds in counts.items()
    ]
    return ", ".join(towers_listed) or "none"


def select_parameters(encoder: nn.Module, preset: str) -> list[str]:
    """The names of the parameters of ``preset`` in ``encoder``, which may lie on the meta device.

    Raises:
        InputError: unknown preset, or an encoder that has none of them.
    """
    if preset not in PARAMETERS:
        raise unknown("preset of parameters", preset, PARAMETERS)
    prefixes = towers(encoder)
    names = [name for name, _ in encoder.named_parameters() if tower_of(name, prefixes)]
    if preset == "biases":
        selected = [name for name in names if name.endswith("bias")]
    elif preset == "norms":
        of_norms = set(_of_norms(encoder))
        selected = [name for name in names if name in of_norms]
    else:
        last = _last_blocks(encoder, prefixes)
        selected = [name for name in names if any(is_within(name, block) for block in last)]
    if not selected:
        raise InputError(f"unfreeze={preset}: {type(encoder).__name__} has none; pass patterns over parameter names")
    return selected


def _of_norms(encoder: nn.Module) -> Iterator[str]:
    """Gains and offsets of LayerNorm, BatchNorm and the like: modules that are named after what they are."""
    for path, module in encoder.named_modules():
        if "Norm" in type(module).__name__:  # timm's may hold their activation too
            yield from (f"{path}.{name}".lstrip(".") for name, _ in module.named_parameters(recurse=False))


def _last_blocks(encoder: nn.Module, prefixes: dict[str, list[str]]) -> list[str]:
    modules = dict(encoder.named_modules())
    of_towers = [
        [b for root in roots if root in modules for b in blocks(modules[root], root)] for roots in prefixes.values()
    ]
    return [block for of_tower in of_towers for block in of_tower[-2:]]
