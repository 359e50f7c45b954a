"""Published numbers are what their sources say, refused where a file is wrong, and beside the runs that they fit."""

import csv
import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from run_records import accuracies, write_run

from kravl.cli.report import main
from kravl.config.schema import CONFIGS
from kravl.data.fewshot import PROTOCOLS
from kravl.report.groups import Group, group_runs
from kravl.report.paper_table import beside_published, overview_table, overviews
from kravl.report.published.compare import published_matches, select_published, with_published
from kravl.report.published.rows import UNSTATED, folder, read_names, read_published
from kravl.report.runs import read_runs
from kravl.report.tables import group_table
from kravl.runtime.errors import InputError

COOP_11 = read_names().means["coop_11"]
CLIP_LORA = {"method": "cliplora", "split_protocol": "cliplora"}


def groups_in(runs: Path) -> list[Group]:
    return with_published(group_runs(read_runs(runs)[0]))


def test_every_shipped_row_has_a_source_and_names_that_kravl_or_the_list_knows() -> None:
    rows = read_published()

    assert all(row.paper and row.place and row.url.startswith("https://") and 0 < row.value <= 1 for row in rows)
    assert {row.error for row in rows if row.read == "figure"} <= {0.2, 0.3, 0.4, UNSTATED}
    assert {row.method for row in rows if row.oracle} == {"tip_adapter", "tip_adapter_f"}
    assert set(PROTOCOLS) <= set(read_names().protocols)
    written = {path.stem for path in (CONFIGS / "method").glob("*.yaml")}
    assert {"cliplora", "full", "lora", "randlora"} <= written & {row.method for row in rows}


def test_harmonic_means_and_means_over_sets_follow_from_the_other_numbers() -> None:
    """A digit that was typed wrongly would break one of them."""
    halves: dict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
    sets: dict[str, dict[str, float]] = defaultdict(dict)
    for row in read_published():
        if row.evaluation == "base_to_new":
            halves[row.method, row.variant, row.paper][row.metric] = 100 * row.value
        if (row.method, row.backbone, row.protocol) == ("cliplora", "clip_vitb16", "cliplora"):
            sets[row.shots][row.dataset] = 100 * row.value

    assert len(halves) == 19
    odd = {method for (method, _, _), values in halves.items() if not _is_harmonic(values)}
    assert odd == {"hpt"}  # which its note says
    assert sorted(map(int, sets)) == [1, 2, 4, 8, 16]
    for of_set in sets.values():
        mean = of_set.pop("coop_11")
        assert sorted(of_set) == sorted(COOP_11)
        assert mean == pytest.approx(fmean(of_set.values()), abs=0.15)


def _is_harmonic(values: dict[str, float]) -> bool:
    base, new = values["test/accuracy"], values["new/accuracy"]
    return values["harmonic_mean"] == pytest.approx(2 * base * new / (base + new), abs=0.011)


FILE = """source: {paper: A paper, place: table 1, url: "https://example.org/a"}
tables:
  - common: {method: coop, backbone: clip_vitb16, protocol: coop, shots: 16, read: table}
    columns: {metric: [test/accuracy, new/accuracy]}
    rows:
      evaluation:
        base_to_new: [82.69, 63.22]
"""


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("method: coop", "metod: coop", r"line 3, tables.1.common.metod: unknown key 'metod': did you mean 'method'\?"),
        ("method: coop", "method: cooop", r"line 3, tables.1.common.method: unknown method 'cooop'.*'coop'\?"),
        (
            "clip_vitb16",
            "clip_vitb61",
            r"common.backbone: unknown backbone 'clip_vitb61': did you mean 'clip_vitb16'\?",
        ),
        ("shots: 16", "shots: sixteen", "common.shots: 'sixteen' is not a whole number, all or unstated"),
        ("protocol: coop", "protocol: cop", r"common.protocol: unknown protocol 'cop': did you mean 'coop'\?"),
        ("new/acc", "nev/acc", r"line 4, tables.1.columns.metric.2: unknown metric 'nev/accuracy'.*'new/accuracy'\?"),
        ("[82.69, 63.22]", "[82.69]", "line 7, tables.1.rows.evaluation.base_to_new: 1 numbers for 2 columns"),
        ("82.69", "0.8269", "line 7.*0.8269 is no accuracy in percent"),
        ("read: table", "read: figure", "error is what reading off a figure adds"),
        ("read: table", "read: table, error: 0.2", "error is what reading off a figure adds"),
        ("read: table", "read: table, metric: ood_mean", "line 7.*metric is in common, too"),
        ("base_to_new:", "base_to_knew:", r"line 7.*unknown evaluation 'base_to_knew': did you mean 'base_to_new'\?"),
        ("paper: A paper, ", "", "line 1, source: no paper"),
        ("protocol: coop, ", "", "no protocol, neither in common nor along the rows and columns"),
        ("    rows:", "    row:", r"line 5, tables.1.row: unknown key 'row': did you mean 'rows'\?"),
    ],
)
def test_a_wrong_file_is_named_with_line_key_and_nearest(tmp_path: Path, old: str, new: str, line: str) -> None:
    (tmp_path / "names.yaml").write_bytes((folder() / "names.yaml").read_bytes())
    file = FILE.replace("shots: 16", "shots: 16, set: coop_11")
    (tmp_path / "a.yaml").write_text(file)
    assert [row.value for row in read_published(tmp_path)] == [0.8269, 0.6322]

    read_published.cache_clear()
    (tmp_path / "a.yaml").write_text(file.replace(old, new))
    with pytest.raises(InputError, match=line) as raised:
        read_published(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path / 'a.yaml'}, line ")
    assert "\n" not in str(raised.value)


def test_the_same_number_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "names.yaml").write_bytes((folder() / "names.yaml").read_bytes())
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(FILE.replace("shots: 16", "shots: 16, set: dtd"))

    with pytest.raises(InputError, match=r"b\.yaml, line 7.*the same number as in .*a\.yaml: coop, clip_vitb16, dtd"):
        read_published(tmp_path)


def test_a_run_stands_beside_the_row_of_its_method_backbone_set_shots_and_protocol(tmp_path: Path) -> None:
    for seed, accuracy in ((1, 0.70), (2, 0.72)):
        write_run(tmp_path / str(seed), seed=seed, metrics=accuracies(accuracy), **CLIP_LORA)

    header, row = group_table(groups_in(tmp_path))

    cells = dict(zip(header, row, strict=True))
    assert (cells["test"], cells["published"], cells["gap"]) == ("71.0 ± 1.4", "~71.9", "-0.9")
    [match] = published_matches(groups_in(tmp_path))
    assert match.gap == pytest.approx(0.71 - 0.719)


@pytest.mark.parametrize(
    "change",
    [
        {"split_protocol": "coop"}, {"shots": 3}, {"backbone": "clip_vitb32"}, {"method": "lora"}, {"dataset": "sub"},
        {"config": {"data": {"classes": "base"}}},
        {"evaluation": "validation", "config": {"evaluation": {"name": "validation", "held_out": True}}},
    ],
)  # fmt: skip
def test_a_run_of_anything_else_does_not(tmp_path: Path, change: dict[str, Any]) -> None:
    write_run(tmp_path / "a", **{**CLIP_LORA, **change})

    assert published_matches(groups_in(tmp_path)) == []


def test_a_prompt_that_the_number_depends_on_must_be_the_runs(tmp_path: Path) -> None:
    zero_shot = {"dataset": "oxford_flowers", "zero_shot": accuracies(0.68)}
    write_run(tmp_path / "plain", **zero_shot)
    write_run(tmp_path / "other", templates=["{}"], **zero_shot, backbone="clip_rn50")

    assert [(m.row.value, m.row.template) for m in published_matches(groups_in(tmp_path))] == [
        (0.674, "a photo of a {}.")
    ]


def test_means_over_eleven_sets_are_compared_and_harmonic_means_as_papers_compute_them(tmp_path: Path) -> None:
    bases, news = [0.6 + 0.03 * i for i in range(11)], [0.9 - 0.04 * i for i in range(11)]
    for name, base, new in zip(COOP_11, bases, news, strict=True):
        metrics = accuracies(base, new)
        metrics["new/accuracy"] = metrics.pop("sketch/accuracy")
        settings = {"method": "coop", "evaluation": "base_to_new", "config": {"data": {"classes": "base"}}}
        write_run(tmp_path / name, dataset=name, metrics=metrics, **settings)
    groups = groups_in(tmp_path)

    matches = published_matches(groups)

    base, new = fmean(bases), fmean(news)
    ours = {"test/accuracy": base, "new/accuracy": new, "harmonic_mean": 2 * base * new / (base + new)}
    published = {"test/accuracy": 0.8269, "new/accuracy": 0.6322, "harmonic_mean": 0.7166}
    assert {m.row.metric: m.gap for m in matches} == pytest.approx({key: ours[key] - published[key] for key in ours})
    assert {m.dataset for m in matches} == {"coop_11"}
    tables = {o.metric: overview_table(o) for o in beside_published(overviews(groups), matches)}
    cells = dict(zip(*tables["new/accuracy"], strict=True))
    assert (cells["published"], cells["gap"]) == ("63.22", f"{100 * (new - 0.6322):+.1f}")
    assert "published" not in tables["harmonic_mean"][0]  # its cell is a mean of harmonic means
    assert not [m for m in published_matches(groups[1:]) if m.dataset == "coop_11"]  # ten sets are not eleven


def test_every_file_of_a_report_has_the_numbers_the_gap_and_the_oracle(tmp_path: Path) -> None:
    run = {"method": "tip_adapter_f", "split_protocol": "cliplora", "dataset": "imagenet"}
    write_run(tmp_path / "a", metrics=accuracies(0.72), **run)
    write_run(tmp_path / "b", metrics=accuracies(0.5), dataset="imagenet")

    assert main([str(tmp_path), "--no-figures"]) == 0

    texts = {kind: (tmp_path / f"report/report.{kind}").read_text() for kind in ("md", "tex", "csv", "json")}
    texts["html"] = (tmp_path / "report/index.html").read_text()
    assert "## Beside published numbers" in texts["md"]
    assert "| 72.0 | ~73.4 oracle | -1.4 |" in texts["md"]
    assert r"\textasciitilde{}73.4 oracle & -1.4" in texts["tex"]
    table = csv.DictReader(texts["csv"].splitlines())
    rows = {row["method"]: row for row in table if row["quantity"] == "test/accuracy"}
    assert float(rows["tip_adapter_f"]["gap"]) == pytest.approx(-0.014)
    assert rows["tip_adapter_f"]["oracle"] == "True"
    assert rows["kra"]["published"] == rows["kra"]["gap"] == ""
    [row] = json.loads(texts["json"])["published"]
    assert (row["value"], row["oracle"], row["url"]) == (0.734, True, "https://github.com/MaxZanella/CLIP-LoRA")
    for part in (
        "Published, %",
        "Gap, points",
        "~73.4 oracle",
        "-1.4",
        "few_shot.png (figure ± 0.2)",
        "read off a figure",
    ):
        assert part in texts["html"]


def test_published_rows_are_printed_without_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--published", "TPT"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    start = "TPT clip_vitb16 imagenet 0 imagenet_a/accuracy, imagenet_ood coop 54.77 each method's own"
    assert [line.startswith(start) for line in lines].count(True) == 1

    assert len(select_published("")) == len(read_published())
    assert {row.backbone for row in select_published("clip_rn*")} == {"clip_rn50"}
    with pytest.raises(InputError, match=r"no published row is of 'promptscr'; the nearest names are promptsrc"):
        select_published("promptscr")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [([], "name the folder of the runs"), (["runs", "--published"], "without runs; leave out 'runs'")],
)
def test_what_the_command_cannot_mean_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert line in capsys.readouterr().err
