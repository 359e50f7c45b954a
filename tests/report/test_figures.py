"""Figures are drawn for every shape of results and show what the runs hold."""

import itertools
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from run_records import accuracies, write_run

import kravl.report.figures.accuracies as accuracies_module
from kravl.report.figures.accuracies import draw_comparison
from kravl.report.figures.drawing import Label, spread
from kravl.report.groups import group_runs
from kravl.report.runs import read_runs
from kravl.tracking.methods import known_methods, look, shown
from kravl.tracking.run_folder import ZERO_SHOT


def drawn(folder: Path) -> tuple[Path, Path]:
    png = folder / draw_comparison(group_runs(read_runs(folder)[0]), folder)
    return png, png.with_suffix(".svg")


def ink(png: Path) -> int:
    """Number of pixels that are not white."""
    with Image.open(png) as image:
        return sum(image.convert("L").histogram()[:250])


@pytest.mark.parametrize("shots", [(16,), (1, 4, 16), (4, None), (None,)])
@pytest.mark.parametrize("sketch", [None, 0.25])
def test_a_figure_is_drawn_for_any_shots_with_and_without_other_sets(
    tmp_path: Path, shots: tuple[int | None, ...], sketch: float | None
) -> None:
    for amount in shots:
        for seed in (1, 2):
            metrics, before = accuracies(0.4 + 0.1 * seed, sketch), accuracies(0.3, sketch)
            write_run(tmp_path / f"{amount}-{seed}", shots=amount, seed=seed, metrics=metrics, zero_shot=before)

    png, svg = drawn(tmp_path)

    several = len(shots) > 1
    with Image.open(png) as image:
        assert image.size == ((1425, 1080 if several else 600) if sketch else (825, 600))
    assert ink(png) > 5000
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")


def test_one_number_of_images_is_drawn_set_by_set_and_several_against_each_other(tmp_path: Path) -> None:
    for name, amounts in (("one", (16,)), ("several", (4, 16))):
        for shots in amounts:
            write_run(tmp_path / name / str(shots), shots=shots, metrics=accuracies(0.5, 0.25))

    one, several = (drawn(tmp_path / name)[1].read_text() for name in ("one", "several"))

    assert "<!-- on each set, 16 images per class -->" in one
    assert "<!-- sketch -->" in one
    assert "<!-- images per class -->" in several
    assert "on each set" not in several


def test_points_of_the_wise_ft_line_change_the_figure(tmp_path: Path) -> None:
    for name, points in (("without", []), ("with", [{"alpha": 0.5, "test/accuracy": 0.35, "ood_mean": 0.45}])):
        ends = {"metrics": accuracies(0.5, 0.25), "zero_shot": accuracies(0.3, 0.3)}
        write_run(tmp_path / name / "run", wise_ft=points, **ends)

    without, with_line = (drawn(tmp_path / name)[0] for name in ("without", "with"))

    assert without.read_bytes() != with_line.read_bytes()


def test_the_same_runs_give_the_same_figure(tmp_path: Path) -> None:
    write_run(tmp_path / "run", metrics=accuracies(0.5, 0.25))

    first, second = ([file.read_bytes() for file in drawn(tmp_path)] for _ in range(2))

    assert first == second


def test_a_name_of_any_length_leaves_room_for_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(accuracies_module, "save", lambda figure, path: figures.append(figure))
    for end in ("_a", "_b"):
        write_run(tmp_path / end, method=f"m{'x' * 280}{end}", metrics=accuracies(0.5, 0.25))

    draw_comparison(group_runs(read_runs(tmp_path)[0]), tmp_path)

    [figure] = figures
    assert all(axes.get_window_extent().width > 0.25 * figure.bbox.width for axes in figure.axes)
    labels = {text.get_text() for text in figure.axes[1].texts if isinstance(text, Label)}
    assert len(labels) == 2


def test_names_that_would_be_paths_or_formulas_are_drawn_as_they_are(tmp_path: Path) -> None:
    write_run(tmp_path / "run", backbone="hf-hub:org/repo", method="$kra_{$", metrics=accuracies(0.5))

    png, _ = drawn(tmp_path)

    # a hash, because other names would give the same letters
    assert re.fullmatch(r"hf-hub_org_repo-dtd-in_domain-[0-9a-f]{8}\.png", png.name)
    assert ink(png) > 5000


@pytest.mark.parametrize("shots", [(16,), (1, 4, 16)])
@pytest.mark.parametrize("count", [3, 25])
def test_no_two_labels_overlap_however_near_their_points_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shots: tuple[int, ...], count: int
) -> None:
    methods = sorted(known_methods() - {ZERO_SHOT})[:count]
    for method, amount in itertools.product(methods, shots):
        metrics = accuracies(0.5 + len(method) / 1000, 0.25)
        write_run(tmp_path / f"{method}{amount}", method=method, shots=amount, metrics=metrics)
    figures: list[Figure] = []
    monkeypatch.setattr(accuracies_module, "save", lambda figure, path: figures.append(figure))

    draw_comparison(group_runs(read_runs(tmp_path)[0]), tmp_path)

    [figure] = figures
    figure.draw_without_rendering()
    columns = [[text for text in axes.texts if isinstance(text, Label)] for axes in figure.axes]
    labels = [label for column in columns for label in column]
    assert sorted({label.get_text() for label in labels}) == sorted(map(shown, methods))
    boxes = [Text.get_window_extent(label) for label in labels]  # without the line to its point
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert all(figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)


def test_a_method_is_drawn_alike_whatever_else_is_in_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(accuracies_module, "save", lambda figure, path: figures.append(figure))
    for others in ((), ("abba", "full", "a_method_of_mine")):
        for method in ("kra", *others):
            place = tmp_path / str(len(others))
            write_run(place / method, method=method, metrics=accuracies(0.4 + len(method) / 100, 0.25))
        draw_comparison(group_runs(read_runs(place)[0]), place)

    for figure in figures:
        [mark] = [
            line
            for line in figure.axes[1].lines
            if line.get_xdata()[0] == pytest.approx(43) and line.get_marker() == "o"
        ]
        assert (mark.get_color(), mark.get_marker()) == (look("kra").light, "o")


def test_a_curve_of_wise_ft_is_a_mean_over_seeds_and_ends_in_its_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, accuracy in ((1, 0.5), (2, 0.7)):
        ends = {"metrics": accuracies(accuracy, 0.25), "zero_shot": accuracies(0.3, 0.3)}
        halfway = [{"alpha": 0.5, "test/accuracy": accuracy - 0.1, "ood_mean": 0.4}]
        write_run(tmp_path / str(seed), seed=seed, wise_ft=halfway, **ends)
    figures: list[Figure] = []
    monkeypatch.setattr(accuracies_module, "save", lambda figure, path: figures.append(figure))

    draw_comparison(group_runs(read_runs(tmp_path)[0]), tmp_path)

    lines = [line.get_xydata().tolist() for line in figures[0].axes[1].lines]
    [curve] = [line for line in lines if len(line) > 2]
    assert curve == pytest.approx(np.array([[30, 30], [50, 40], [60, 25]]))
    marks = [line[0] for line in lines if len(line) == 1]
    assert pytest.approx(curve[0]) in marks
    assert pytest.approx(curve[-1]) in marks


def test_positions_keep_their_order_and_move_as_little_as_they_can() -> None:
    assert spread([0.2, 0.8], 0.1) == pytest.approx([0.2, 0.8])
    assert spread([0.5, 0.5, 0.9], 0.1) == pytest.approx([0.45, 0.55, 0.9])
    assert spread([1.2, 0.0, 0.99], 0.1) == pytest.approx([1.0, 0.0, 0.9])
    assert spread([0.3] * 3, 0.6) == pytest.approx([-0.1, 0.5, 1.1])
