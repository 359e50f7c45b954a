"""What a method is called and how it looks does not depend on what else there is."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kravl.runtime.errors import InputError
from kravl.runtime.files import shipped
from kravl.runtime.yaml_files import read_yaml
from kravl.tracking import methods
from kravl.tracking.methods import COLOURS, known_methods, look, shown

FIELD = list(read_yaml(shipped("experiments/studies") / "field_tiny.yaml")["methods"])
FIRST = (
    "kra",
    "lora",
    "full",
    "taskres",
    "zs_lp",
    "tip_adapter_f",
    "clip_adapter",
    "coop",
    "lp_plus_plus",
    "linear_probe",
)
# of linear light, for those who see no red or no green (Machado et al. 2009, severity 1)
SEEN = {
    "all colours": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
OKABE_ITO = 17.8  # between the two of theirs that are nearest to each other, in units of CIELAB


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In place of datasets/methods."""
    monkeypatch.setattr(methods, "_folder", lambda: tmp_path)
    cached = (look, known_methods, methods._names_in_files, methods._taken, methods._given)
    for each in cached:
        each.cache_clear()
    yield tmp_path
    for each in cached:
        each.cache_clear()


def test_every_method_of_kravl_has_a_name_and_a_look_of_its_own() -> None:
    files = {path.stem for path in (shipped("configs") / "method").glob("*.yaml")} - {"custom"}
    assert files <= known_methods()
    assert (shown("kra"), shown("tip_adapter_f"), shown("lp_plus_plus")) == ("KRAdapter", "Tip-Adapter-F", "LP++")
    looks = [look(method) for method in known_methods()]
    assert len({each.name.lower() for each in looks}) == len(looks)
    assert len({(each.colour, each.marker) for each in looks}) == len(looks)


def test_a_label_without_a_file_looks_like_no_method() -> None:
    taken = {(look(method).colour, look(method).marker) for method in known_methods()}

    labels = [look(f"kra_{number}") for number in range(200)]

    assert not {(label.colour, label.marker) for label in labels} & taken
    assert len({(label.colour, label.marker) for label in labels}) > 20


def test_methods_of_one_picture_are_told_apart() -> None:
    assert len({look(method).colour for method in FIRST}) == len(FIRST)
    by_colour = [[look(m) for m in FIELD if look(m).colour == colour] for colour in COLOURS]
    assert max(map(len, by_colour)) <= 2


def test_colours_are_as_far_apart_as_okabe_and_itos_for_all_kinds_of_colour_vision() -> None:
    for ground, (one, other) in itertools.product((0, 1), itertools.combinations(set(COLOURS) - {"grey"}, 2)):
        colours = [_linear(COLOURS[name][ground]) for name in (one, other)]
        for matrix in SEEN.values():
            first, second = (_lab(np.array(matrix) @ colour) for colour in colours)
            assert np.linalg.norm(first - second) > OKABE_ITO, (one, other)


def _linear(colour: str) -> np.ndarray:
    share = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = matrix @ np.clip(linear, 0, 1) / np.array([0.95047, 1, 1.08883])
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_another_file_changes_no_other_method(folder: Path) -> None:
    (folder / "mine.yaml").write_text("name: My Method\ncolour: wine\n")
    names = ("mine", "kra", "lora_r4", "../x")
    before = [look(name) for name in names]

    for each in (look, known_methods, methods._names_in_files, methods._taken, methods._given):
        each.cache_clear()
    for name in ("abba", "lora_r8"):
        (folder / f"{name}.yaml").write_text(f"name: The {name}\nfamily: head\ncolour: blue\nmarker: circle\n")

    assert [look(name) for name in names] == before
    assert (before[0].name, before[0].colour) == ("My Method", "wine")
    assert [each.name for each in before[1:]] == ["kra", "lora_r4", "../x"]
    assert all(each.colour != "grey" and each.marker != "star" for each in before)
    assert shown("My Method") == "My Method (a label)"  # not the same as the method of that name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nmae: x", "unknown key 'nmae': did you mean 'name'"),
        ("colour: bleu", "unknown colour 'bleu': did you mean 'blue'"),
        ("marker: sqare", "unknown marker 'sqare': did you mean 'square'"),
        ("family: heads", "unknown family 'heads': did you mean 'head'"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(folder: Path, text: str, message: str) -> None:
    (folder / "mine.yaml").write_text(text)

    with pytest.raises(InputError, match=message) as raised:
        look("mine")

    assert str(folder / "mine.yaml") in str(raised.value)
