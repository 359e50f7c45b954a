"""Figures are drawn for every shape of results and show what the runs hold."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image
from run_records import accuracies, write_run

from kravl.report.figures.accuracies import draw_comparison
from kravl.report.groups import group_runs
from kravl.report.runs import read_runs


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

    with Image.open(png) as image:
        assert image.size == ((1425, 600) if sketch else (750, 600))
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


def test_names_that_would_be_paths_or_formulas_are_drawn_as_they_are(tmp_path: Path) -> None:
    write_run(tmp_path / "run", backbone="hf-hub:org/repo", method="$kra_{$", metrics=accuracies(0.5))

    png, _ = drawn(tmp_path)

    # a hash, because other names would give the same letters
    assert re.fullmatch(r"hf-hub_org_repo-dtd-in_domain-[0-9a-f]{8}\.png", png.name)
    assert ink(png) > 5000


def test_many_methods_are_drawn(tmp_path: Path) -> None:
    for i in range(9):
        write_run(tmp_path / str(i), method=f"m{i}", metrics=accuracies(0.5 + i / 100, 0.25))

    assert ink(drawn(tmp_path)[0]) > 5000
