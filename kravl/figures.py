"""What methods reach and what it costs out of distribution, one figure per setting; the spectrum of an update."""

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from kravl.aggregate import Group
from kravl.panels import COLOURS, MARKERS, against_in_domain, against_shots, by_set
from kravl.robustness import OOD
from kravl.runtime.files import write_whole

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "kravl",
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
}


def draw(groups: Sequence[Group], folder: Path) -> str:
    """Draw the ``groups`` of one setting into ``folder`` as PNG and SVG; the PNG's file name.

    Left: accuracy against images a class, or that on each set where there is one number of images. Right: the other
    sets against in-domain, where there are others.
    """
    stem = _file_name(groups[0].setting)
    has_ood = any(group.stat(OOD) for group in groups)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.5 if has_ood else 5, 4), layout="constrained")
        panels = figure.subplots(1, 2 if has_ood else 1, squeeze=False)[0]
        amounts = {group.shots for group in groups if group.shots != 0}
        left = by_set if has_ood and len(amounts) == 1 else against_shots
        left(panels[0], groups)
        if has_ood:
            against_in_domain(panels[1], groups)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        figure.suptitle(", ".join(groups[0].setting))
        save(figure, folder / f"{stem}.png")
    return f"{stem}.png"


def _file_name(setting: Sequence[str]) -> str:
    """The parts of a setting as a file's name; where that says less than they do, with a hash."""
    name = re.sub(r"[^\w.-]+", "_", "-".join(setting))
    if all(re.fullmatch(r"[\w.]+", part) for part in setting):
        return name
    return f"{name}-{hashlib.sha256(json.dumps(list(setting)).encode()).hexdigest()[:8]}"


def draw_decay(values: Mapping[str, Sequence[float]], path: Path) -> None:
    """Method -> singular values relative to the largest, at equal steps of the smaller dimension; PNG and SVG."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.5, 4), layout="constrained")
        axes = figure.subplots()
        for (method, decay), colour, marker in zip(values.items(), COLOURS, MARKERS, strict=False):
            share = [100 * i / (len(decay) - 1) for i in range(len(decay))]
            axes.plot(share, decay, label=method, color=colour, marker=marker, markevery=len(decay) // 8)
        axes.set_yscale("log")
        axes.set_ylim(bottom=1e-3)
        axes.set_yticks([1, 0.1, 0.01, 0.001], ["1", "0.1", "0.01", "0.001"])
        axes.set(xlabel="singular value, % of the smaller dimension", ylabel="relative to the largest")
        axes.set_title("spectrum of the weight update, mean over matrices")
        axes.legend()
        save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write ``figure`` as PNG and as SVG, ``path`` with either ending: the same bytes each time."""
    formats: dict[str, dict[str, Any]] = {".png": {"dpi": 150}, ".svg": {"metadata": {"Date": None}}}
    for suffix, options in formats.items():
        drawn = io.BytesIO()
        figure.savefig(drawn, format=suffix[1:], **options)
        write_whole(path.with_suffix(suffix), drawn.getvalue())
