"""Figures of experiments whose runs are not kept, drawn anew from the numbers that are, in today's names and colours.

    python experiments/redraw.py experiments/few_shot_tiny experiments/matrix_approximation/small

A folder has a results.csv or report.csv of `kravl report`, whose page.html, if there is one, has the curves of WiSE-FT
too; or a results.csv of `kravl approximate`. Files that are in the folder already are replaced, no others are written.
What takes more than these numbers, such as spectra, takes the experiment's own command.
"""

import csv
import json
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kravl.analysis.approximation.figures import draw_errors
from kravl.analysis.approximation.summary import ERROR, FitSummary, error_table
from kravl.report.figures.accuracies import draw_comparison
from kravl.report.groups import Group, Setting
from kravl.report.interactive.page import page_text
from kravl.report.interactive.payload import looks
from kravl.report.runs import FinishedRun
from kravl.report.tables import TRAIN_SECONDS, by_setting, markdown_rows
from kravl.tracking.run_folder import ZERO_SHOT

DATA = re.compile(r'(?<=<script type="application/json" id="data">).*?(?=</script>)', re.DOTALL)
QUESTION = re.compile(r"<header>.*?</button>\s*<p>(?!\d+ runs)(.*?)</p>", re.DOTALL)
COSTS = (TRAIN_SECONDS, "peak_memory_bytes", "evaluation_seconds")
OWN = ("trainable_parameters", "effective_rank")
Rows = Sequence[Mapping[str, str]]
Key = tuple[Setting, str, str]


def values_of(row: Mapping[str, str]) -> list[float]:
    """Numbers with the mean, sample deviation and count of the ``row``; seconds are their median, if it is known."""
    mean, count = float(row["mean"]), int(row["n"])
    if row["quantity"] == TRAIN_SECONDS:
        return [float(row["median"])] * count if row.get("median") else []
    offset = float(row["std"] or 0) * ((count - 1) / 2) ** 0.5
    return [mean - offset, mean + offset, *[mean] * (count - 2)] if count > 1 else [mean]


def groups_of(rows: Rows, curves: Mapping[Key, list[list[float]]]) -> list[Group]:
    """The groups of a report's CSV, of runs made up to have its numbers."""
    members: dict[Key, dict[str, list[float]]] = defaultdict(dict)
    for row in rows:
        key = Setting(row["backbone"], row["dataset"], row["evaluation"]), row["method"], row["shots"]
        members[key][row["quantity"]] = values_of(row)
    return [_group(key, columns, curves.get(key, [])) for key, columns in members.items()]


def _group(key: Key, columns: Mapping[str, list[float]], curve: list[list[float]]) -> Group:
    setting, method, amount = key
    points = [{"alpha": a, "test/accuracy": x, "ood_mean": y} for a, x, y in curve if 0 < a < 1]
    runs = []
    for i in range(max(map(len, columns.values()))):
        of_run = {name: values[i] for name, values in columns.items() if i < len(values)}
        record = {
            "metrics": {name: value for name, value in of_run.items() if name not in (*COSTS, *OWN)},
            "trainable_parameters": of_run.get("trainable_parameters"),
            "effective_rank": {"mean": of_run.get("effective_rank")},
            "seed": i + 1, "split_protocol": "", "zero_shot": None, "wise_ft": points, "config": {},
        }  # fmt: skip
        runs.append(FinishedRun(Path(), record, {name: of_run[name] for name in COSTS if name in of_run}))
    shots = None if amount == "all" else float(amount) if "." in amount else int(amount)
    return Group(setting, method, shots, tuple(runs))


def redraw_report(folder: Path, rows: Rows, out: Path) -> None:
    """The figures of a report, and its page."""
    page = folder / "page.html"
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    data: dict[str, Any] = json.loads(found[0]) if (found := DATA.search(old)) else {"settings": []}
    curves = {(Setting(*s["name"]), g["method"], g["shots"]): g["wise"] for s in data["settings"] for g in s["groups"]}
    groups = groups_of(rows, curves)
    for _, members in by_setting(groups):
        draw_comparison(list(members), out)
    if found:
        data |= looks({group.method for group in groups})
        question = said[1] if (said := QUESTION.search(old)) else ""
        runs = sum(len(group.runs) for group in groups if group.method != ZERO_SHOT)
        (out / "page.html").write_text(page_text(data, groups, notes=[], runs=runs, question=question))


def redraw_fits(folder: Path, rows: Rows, out: Path) -> None:
    """The figures of fits, but for spectra, and their table."""
    fits = []
    for row in rows:
        means = {name: float(text) for name, text in row.items() if f"{name}_std" in row and text}
        deviations = {name: float(row[f"{name}_std"] or 0) for name in means}
        budget = float(row["budget"]) if row["budget"] else None
        summary = FitSummary(row["target"], row["method"], budget, int(row["parameters"]), int(row["n"]), means,
                             deviations, (), ())  # fmt: skip
        fits.append(summary)
    draw_errors(fits, out)
    (out / "table.md").write_text("\n".join(markdown_rows(error_table(fits))) + "\n")


def main(folders: Sequence[Path]) -> None:
    """Redraw each of the ``folders``."""
    for folder in folders:
        source = next(path for name in ("results.csv", "report.csv") if (path := folder / name).exists())
        with source.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        draw: Callable[[Path, Rows, Path], None] = redraw_fits if ERROR in rows[0] else redraw_report
        with tempfile.TemporaryDirectory() as made:
            draw(folder, rows, Path(made))
            for path in sorted(Path(made).iterdir()):
                if (folder / path.name).exists():
                    (folder / path.name).write_bytes(path.read_bytes())
                    print(folder / path.name)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
