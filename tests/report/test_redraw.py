"""Figures of experiments that are drawn anew show the numbers that are kept, and no others."""

import csv
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from kravl.report.tables import TRAIN_SECONDS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def redraw() -> ModuleType:
    spec = importlib.util.spec_from_file_location("redraw", ROOT / "experiments/redraw.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", ["few_shot_tiny/results.csv", "vits14_real_images/report.csv"])
def test_every_number_is_the_one_that_the_experiment_kept(redraw: ModuleType, file: str) -> None:
    with (ROOT / "experiments" / file).open(newline="") as text:
        rows = list(csv.DictReader(text))

    groups = {(*g.setting, g.method, g.amount): g for g in redraw.groups_of(rows, {})}

    for row in rows:
        stat = groups[tuple(row[key] for key in ("backbone", "dataset", "evaluation", "method", "shots"))].stat(
            row["quantity"]
        )
        if row["quantity"] == TRAIN_SECONDS and not row.get("median"):
            assert stat is None  # a mean is not shown as a median
            continue
        assert stat is not None
        assert (stat.mean, stat.n) == (pytest.approx(float(row["mean"]), rel=1e-9, abs=1e-12), int(row["n"]))
        assert stat.std == (pytest.approx(float(row["std"]), rel=1e-6, abs=1e-9) if row["std"] else None)


def test_a_folder_gets_no_files_that_it_has_not(redraw: ModuleType, tmp_path: Path) -> None:
    for name in ("results.csv", "table.md"):
        (tmp_path / name).write_bytes((ROOT / "experiments/matrix_approximation/published" / name).read_bytes())
    (tmp_path / "winners.png").write_bytes(b"old")
    before = (tmp_path / "table.md").read_text()

    redraw.main([tmp_path])

    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "table.md", "winners.png"]
    assert (tmp_path / "winners.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "table.md").read_text() == before
