"""What all figures share: how a method is drawn, labels that never overlap, and files of the same bytes each time."""

import io
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from scipy.optimize import isotonic_regression

from kravl.runtime.files import write_atomic
from kravl.tracking.methods import look, shown

# of `kravl.tracking.methods.MARKERS`
MARKERS = {
    "circle": "o", "square": "s", "diamond": "D", "triangle": "^", "down": "v", "cross": "P", "times": "X",
    "pentagon": "p", "star": "*",
}  # fmt: skip
LARGER = {"star": 1.5, "cross": 1.15, "times": 1.15, "pentagon": 1.2, "diamond": 0.85}  # of the same area to the eye
LEAST = 1e-3  # singular value that is drawn, of the largest
LONGEST_LABEL = 32  # characters
LABEL = 7.5  # points: the size of a label
COLUMN = 17  # points from a panel to its labels
BESIDE = 7  # points from the middle of a label's mark to its text
LINE = 1.3 * LABEL  # points from one label to the next
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "kravl",
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
}


def mark_of(method: str, size: float = 5.0) -> dict[str, Any]:
    """Colour and marker of ``method`` for matplotlib, the marker about ``size`` points wide."""
    seen = look(method)
    return {"color": seen.light, "marker": MARKERS[seen.marker], "ms": size * LARGER.get(seen.marker, 1.0)}


def line_of(method: str) -> dict[str, Any]:
    """The dash of ``method`` for matplotlib."""
    dash = look(method).dash
    return {"ls": (0, tuple(length / 2 for length in dash)) if dash else "-"}


class Place(NamedTuple):
    """The point that a label belongs to, in data coordinates, and the ``method`` that it is drawn as."""

    text: str
    method: str
    x: float
    y: float

    @classmethod
    def of(cls, method: str, x: float, y: float, more: str = "") -> "Place":
        """The label of a ``method``, with ``more`` behind its name."""
        return cls(f"{shortened(shown(method))}{more}", method, x, y)


def shortened(name: str) -> str:
    """Both ends of a ``name`` that would leave a picture no room."""
    return name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL // 2]}…{name[-LONGEST_LABEL // 2 + 1 :]}"


class Label(Annotation):
    """The text of a ``place``, with a line to its point."""

    def __init__(self, place: Place) -> None:
        leader = {"arrowstyle": "-", "color": look(place.method).light, "lw": 0.6, "alpha": 0.7, "shrinkA": BESIDE,
                  "shrinkB": 3, "relpos": (0, 0.5)}  # fmt: skip
        super().__init__(place.text, (place.x, place.y), (1.1, 0.5), "data", "axes fraction", arrowprops=leader,
                         annotation_clip=False, va="center", ha="left", fontsize=LABEL)  # fmt: skip
        self.method = place.method


def label_beside(axes: Axes, places: Sequence[Place]) -> None:
    """A column of labels to the right of ``axes``, each joined to its point; `settle` lays them out."""
    for place in places:
        axes.add_artist(Label(place)).set_clip_on(False)


def settle(figure: Figure) -> None:
    """Lay the columns of `label_beside` out, once all else is drawn: in the order of their points, a line apart."""
    figure.draw_without_rendering()  # the room of each panel is known from here on
    for axes in figure.axes:
        labels = [text for text in axes.texts if isinstance(text, Label)]
        if labels:
            to_share = axes.transData + axes.transAxes.inverted()
            wanted = [float(to_share.transform(label.xy)[1]) for label in labels]
            size = axes.get_window_extent()
            height, width = size.height / figure.dpi * 72, size.width / figure.dpi * 72
            for label, share in zip(labels, spread(wanted, LINE / height), strict=True):
                label.set_position((1 + COLUMN / width, share))
                mark = {**mark_of(label.method, 4), "clip_on": False, "ls": "", "transform": axes.transAxes}
                axes.plot(1 + (COLUMN - BESIDE) / width, share, scalex=False, scaley=False, **mark)


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Positions from 0 to 1 in the order of those ``wanted``, at least ``gap`` apart, as near to them as that allows.

    The sum of squared distances is the least there is. More than there is room for stand at equal steps around 0.5.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    nearest = isotonic_regression([wanted[i] - place * gap for place, i in enumerate(order)]).x
    room = 1 - (len(wanted) - 1) * gap
    low, high = (0.0, room) if room > 0 else (room / 2, room / 2)
    found = {
        i: min(max(float(at), low), high) + place * gap
        for place, (i, at) in enumerate(zip(order, nearest, strict=True))
    }
    return [found[i] for i in range(len(wanted))]


def panel_grid(titles: Sequence[str], fill: Callable[[Axes, int], None], columns: int) -> Figure:
    """A panel per title, filled by ``fill(axes, index)``, at most ``columns`` side by side, and one legend."""
    columns = min(columns, len(titles))
    lines = ceil(len(titles) / columns)
    figure = Figure(figsize=(max(5.0, 3.2 * columns), 2.5 * lines + 0.7), layout="constrained")
    grid = list(figure.subplots(lines, columns, squeeze=False).flat)
    handles: dict[Any, Artist] = {}
    for i, title in enumerate(titles):
        fill(grid[i], i)
        grid[i].set_title(title)
        handles |= {label: handle for handle, label in zip(*grid[i].get_legend_handles_labels(), strict=True)}
    for axes in grid[len(titles) :]:
        axes.set_visible(False)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=max(3, columns))
    return figure


def draw_decay(values: Mapping[str, Sequence[float]], path: Path, methods: Mapping[str, str]) -> None:
    """Plot ``values``: label -> singular values relative to the largest, at equal steps of the smaller dimension.

    Args:
        methods: of the labels, as which they are drawn.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.5, max(4.0, 1.0 + len(values) * LINE / 72)), layout="constrained")
        axes = figure.subplots()
        places = []
        for i, (label, decay) in enumerate(values.items()):
            share = [100 * i / (len(decay) - 1) for i in range(len(decay))]
            method = methods[label]
            every = (i * max(1, len(decay) // 40), max(1, len(decay) // 8))
            axes.plot(share, decay, **mark_of(method, 4), **line_of(method), lw=1.2, markevery=every)
            text = shortened(shown(method) if label == method else label)
            last = max(j for j, value in enumerate(decay) if value >= LEAST or j == 0)
            places.append(Place(text, method, share[last], max(decay[last], LEAST)))
        axes.set_yscale("log")
        axes.set_ylim(bottom=LEAST)
        axes.set_xlim(-2, 101)
        axes.set_yticks([1, 0.1, 0.01, 0.001], ["1", "0.1", "0.01", "0.001"])
        axes.set(xlabel="singular value, % of the smaller dimension", ylabel="relative to the largest")
        axes.set_title("spectrum of the weight update, mean over matrices")
        label_beside(axes, places)
        settle(figure)
        save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write ``figure`` as PNG and SVG to ``path`` with either suffix: the same bytes each time."""
    formats: dict[str, dict[str, Any]] = {".png": {"dpi": 150}, ".svg": {"metadata": {"Date": None}}}
    for suffix, options in formats.items():
        content = io.BytesIO()
        figure.savefig(content, format=suffix[1:], **options)
        write_atomic(path.with_suffix(suffix), content.getvalue())
