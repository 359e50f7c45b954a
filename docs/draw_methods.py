"""What each kind of adapter adds to a weight: a random draw of every one at one number of parameters, as pictures.

    python docs/draw_methods.py

Writes methods_KIND.png beside this file, seconds on one core. Each panel is the update of a square matrix, real
adapters of kravl with random numbers added to what they train; below it stand its singular values.
"""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from kravl.adapters.base import Adapter
from kravl.adapters.rank import effective_rank
from kravl.analysis.approximation.budget import count, spend, unit
from kravl.config.instantiate import build
from kravl.config.schema import CONFIGS
from kravl.report.figures.drawing import STYLE
from kravl.runtime.yaml_files import read_yaml
from kravl.tracking.methods import look, shown

SIDE = 64  # rows and columns of the matrix: KRAdapter trains a quarter of its entries
ENDS = 97  # percentile of the absolute entries at which colours end
KINDS: Mapping[str, tuple[str, ...]] = {
    "products": ("kra", "lora", "kra_lora", "sinlora", "gralora", "miss"),
    "entrywise": ("krona", "lokr", "loha", "abba", "hira", "full"),
    "fixed": ("shira", "c3a", "fourierft", "waveft", "randlora", "vera"),
}
OTHERS = "weights"  # what multiplies the weight, and whatever is in none of the kinds
SAME = ("pissa", "randlora_vl")  # the formula of another, from another start


def update(name: str, weight: Tensor) -> tuple[Tensor, int]:
    """What an adapter of ``configs/adapter`` with random numbers adds to ``weight``, and how many numbers it trains."""
    torch.manual_seed(1)
    make = build(read_yaml(CONFIGS / f"adapter/{name}.yaml"), Adapter)
    shape = tuple(weight.shape)
    make, parameters = spend(name, make, shape, unit(shape)) if name != "full" else (make, count(make, shape))
    adapter = make(*shape)
    with torch.no_grad():
        adapter.attach(weight)
        for parameter in adapter.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter)
        return adapter.update(weight).detach(), parameters


def kinds() -> dict[str, list[str]]:
    """Every file of ``configs/adapter`` under its kind."""
    files = sorted(path.stem for path in (CONFIGS / "adapter").glob("*.yaml"))
    known = {name for names in KINDS.values() for name in names}
    return {kind: list(names) for kind, names in KINDS.items()} | {
        OTHERS: [f for f in files if f not in {*known, *SAME}]
    }


def draw(names: list[str], path: Path) -> None:
    """A column for each of the adapters ``names``."""
    weight = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0)) / SIDE**0.5
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(1.7 * len(names), 2.9), layout="constrained")
        panels = figure.subplots(2, len(names), height_ratios=[1.7, 1], squeeze=False)
        for (above, below), name in zip(panels.T, names, strict=True):
            added, parameters = update(name, weight)
            ends = max(float(added.abs().flatten().quantile(ENDS / 100)), 1e-9)
            above.imshow(added, cmap="RdBu", vmin=-ends, vmax=ends, interpolation="nearest")
            above.set(xticks=[], yticks=[])
            above.set_title(f"{shown(name)}\n{parameters:,} numbers", fontsize=8)
            values = torch.linalg.svdvals(added.double())
            below.fill_between(range(1, SIDE + 1), values / values[0], color=look(name).light, step="mid", lw=0)
            below.set(xlim=(0.5, SIDE + 0.5), ylim=(0, 1.03), yticks=[0, 1], xticks=[1, SIDE // 2, SIDE])
            below.tick_params(labelsize=7)
            below.set_xlabel(f"effective rank {effective_rank(added):.0f}", fontsize=8)
        panels[1][0].set_ylabel("singular\nvalues", fontsize=8)
        figure.savefig(path, dpi=130)


def main() -> None:
    """Draw every kind."""
    for kind, names in kinds().items():
        draw(names, Path(__file__).with_name(f"methods_{kind}.png"))


if __name__ == "__main__":
    main()
