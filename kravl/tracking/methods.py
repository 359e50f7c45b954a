"""How a method is shown, wherever it is: its name as papers write it, its colour, marker and dash (datasets/methods).

None of them depends on what else a picture or a table holds.
"""

import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from kravl.runtime.errors import InputError, unknown
from kravl.runtime.files import shipped
from kravl.runtime.yaml_files import read_yaml

# On a light ground and on a dark one. Seven of Okabe and Ito's (https://jfly.uni-koeln.de/color/) and three more: no
# two are nearer to each other than two of theirs, with full colour vision and with protanopia and deuteranopia as
# Machado et al. simulate them (2009, https://doi.org/10.1109/TVCG.2009.113).
COLOURS: Mapping[str, tuple[str, str]] = {
    "blue": ("#0072b2", "#3d9be0"),
    "vermilion": ("#d55e00", "#ee7733"),
    "green": ("#009e73", "#00b086"),
    "purple": ("#cc79a7", "#e39cc4"),
    "orange": ("#e69f00", "#ffc54d"),
    "sky": ("#56b4e9", "#a5dcff"),
    "black": ("#1b1f24", "#f2f4f7"),
    "wine": ("#882255", "#a83268"),
    "indigo": ("#332288", "#7a6ff0"),
    "brown": ("#6f4e37", "#97714f"),
    "grey": ("#6e7781", "#97a1ac"),
}
MARKERS = ("circle", "square", "diamond", "triangle", "down", "cross", "times", "pentagon", "star")
# lengths of dashes and gaps of a line, by what a method trains
DASHES: Mapping[str, tuple[float, ...]] = {
    "adapter": (),
    "full": (12, 3),
    "head": (6, 3),
    "parameters": (9, 3, 2, 3),
    "prompt": (2, 2),
}
ONLY_ZERO_SHOT = ("grey", "star")
KEYS = ("name", "family", "colour", "marker")


class Look(NamedTuple):
    """``name`` for people; ``colour`` of COLOURS, ``marker`` of MARKERS, and the ``dash`` of its family."""

    name: str
    colour: str
    marker: str
    dash: tuple[float, ...]

    @property
    def light(self) -> str:
        """The colour on a light ground, in hexadecimal digits."""
        return COLOURS[self.colour][0]


@cache
def look(method: str) -> Look:
    """Of its file in ``datasets/methods``; what is not there follows from the letters of ``method``.

    A label without a file has a colour and marker that no file has.

    Raises:
        InputError: the file has an unknown key or value, with the nearest.
    """
    given = _given(method) if method in known_methods() else {}
    looks = (pair for pair in _drawn(method) if pair[:2] not in _taken())
    colour, marker, dash = next(looks, ("black", "circle", 0))
    name = given.get("name") or (f"{method} (a label)" if method in _names_in_files() else method)
    return Look(
        name,
        given.get("colour", colour),
        given.get("marker", marker),
        DASHES[given["family"]] if "family" in given else list(DASHES.values())[dash],
    )


def shown(method: str) -> str:
    """The name of ``method`` for people: ``tip_adapter_f`` is Tip-Adapter-F; one without a file keeps its own."""
    return look(method).name


@cache
def known_methods() -> frozenset[str]:
    """Those with a file."""
    return frozenset(path.stem for path in _folder().glob("*.yaml"))


def _drawn(method: str) -> Iterator[tuple[str, str, int]]:
    """Colours, markers and dashes in an order that the letters of ``method`` decide."""
    colours, markers = ([name for name in all_ if name not in ONLY_ZERO_SHOT] for all_ in (COLOURS, MARKERS))
    for turn in range(1000):
        digest = hashlib.sha256(f"{turn} {method}".encode("utf-8", "surrogateescape")).digest()
        yield colours[digest[0] % len(colours)], markers[digest[1] % len(markers)], digest[2] % len(DASHES)


@cache
def _taken() -> frozenset[tuple[str | None, str | None]]:
    return frozenset((given.get("colour"), given.get("marker")) for given in map(_given, known_methods()))


@cache
def _names_in_files() -> frozenset[str]:
    return frozenset(name for method in known_methods() if (name := _given(method).get("name")) and name != method)


def _folder() -> Path:
    return shipped("datasets") / "methods"


@cache
def _given(method: str) -> dict[str, str]:
    path = _folder() / f"{method}.yaml"
    content = {key: str(value) for key, value in read_yaml(path).items()}
    legal = {"family": DASHES, "colour": COLOURS, "marker": MARKERS}
    for key, value in content.items():
        if key not in KEYS:
            raise InputError(f"{path}: {unknown('key', key, KEYS)}")
        if key in legal and value not in legal[key]:
            raise InputError(f"{path}: {unknown(key, value, legal[key])}")
    return content
