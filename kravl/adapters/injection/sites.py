"""Where an adapter can go: every weight matrix and every convolution of a backbone, by name.

A fused query-key-value weight is one site, ``<attn>.qkv``, and also three row blocks of it, ``<attn>.q``, ``<attn>.k``
and ``<attn>.v``; a pattern chooses which of the two is adapted. A projection that is a bare parameter is named after
it, such as ``visual.proj``. A convolution is the matrix of its unfolded kernel, (out, in / groups * height * width),
and one site whatever its name: how channels are divided into q, k and v is each model's own. Transposed convolutions,
whose kernel has the input's channels first, are no sites, and neither is a weight that is computed from others
(weight_norm, parametrizations).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from kravl.runtime.errors import InputError, nearest

MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
PROJECTION_ENDINGS = ("proj", "projection", "proj_weight")  # excludes embeddings, which are matrices too


@dataclass(frozen=True)
class Site:
    """Rows ``rows`` of the parameter ``param`` of ``module``, as a matrix of shape (out, in)."""

    name: str
    module: nn.Module
    param: str
    rows: slice

    @property
    def parameter(self) -> nn.Parameter:
        """The full parameter as stored, even where reading it from the module yields the adapted one."""
        parameter = self.module._parameters[self.param]
        assert parameter is not None
        return parameter

    @property
    def weight(self) -> Tensor:
        """The rows of this site, (out, in), without gradient: to be read, since a kernel may need a copy to unfold."""
        return self.parameter.detach()[self.rows].flatten(1)

    def write(self, weight: Tensor) -> None:
        """Overwrite the rows of this site with ``weight`` (out, in), whatever the memory format of the parameter."""
        rows = self.parameter.detach()[self.rows]
        rows.copy_(weight.view(rows.shape))


def find_sites(model: nn.Module) -> Iterator[Site]:
    """All sites of ``model``: nn.Linear, attention weights packed or separate, fused qkv, bare projections, nn.Conv."""
    for name, module in model.named_modules():
        if isinstance(module, MATRICES) and module._parameters.get("weight") is not None:
            if isinstance(module, nn.Linear) and name.split(".")[-1] == "qkv":
                yield from _fused_sites(name.removesuffix("qkv"), module, "weight")
            else:
                yield _full_site(name or "weight", module, "weight")
        for param, tensor in module._parameters.items():
            if tensor is None or tensor.dim() != 2 or not tensor.is_floating_point():
                continue
            prefix = f"{name}." if name else ""
            if param == "in_proj_weight":
                yield from _fused_sites(prefix, module, param)
            elif param.endswith(PROJECTION_ENDINGS):
                yield _full_site(prefix + param, module, param)


def _full_site(name: str, module: nn.Module, param: str) -> Site:
    return Site(name, module, param, slice(0, len(module._parameters[param])))  # type: ignore[arg-type]


def _fused_sites(prefix: str, module: nn.Module, param: str) -> Iterator[Site]:
    fused = _full_site(f"{prefix}qkv", module, param)
    yield fused
    width, remainder = divmod(fused.rows.stop, 3)
    if remainder == 0:
        for i, part in enumerate("qkv"):
            yield Site(f"{prefix}{part}", module, param, slice(i * width, (i + 1) * width))


def select_sites(model: nn.Module, targets: Sequence[str]) -> list[Site]:
    """The sites whose name matches any of the shell-style patterns ``targets``; a shared weight by its first name.

    Raises:
        InputError: a pattern matches nothing, or two selected sites share rows of a weight.
    """
    sites = list(find_sites(model))
    names = dict.fromkeys(site.name for site in sites)
    chosen: set[str] = set()
    for target in targets:
        found = matching(target, names)
        if not found:
            near = nearest(target, names)
            raise InputError(f"target {target!r} matches no weight matrix; the nearest names are {near}")
        chosen.update(found)
    selected: list[Site] = []
    for site in (site for site in sites if site.name in chosen):
        other = next((s for s in selected if s.parameter is site.parameter and _overlap(s.rows, site.rows)), None)
        if other is None:
            selected.append(site)
        elif other.rows != site.rows:
            raise InputError(f"{site.name!r} is adapted twice: on its own and as part of {other.name!r}")
    return selected


def matching(pattern: str, names: Collection[str]) -> list[str]:
    """Those of ``names`` that a shell-style pattern matches; a name itself is found without a look at the others."""
    return [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]


def _overlap(a: slice, b: slice) -> bool:
    return a.start < b.stop and b.start < a.stop
