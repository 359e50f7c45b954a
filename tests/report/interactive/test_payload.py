"""The numbers behind the page's charts are those of the groups, and stay small for thousands of runs."""

import json
from pathlib import Path
from typing import Any

import pytest
from kept_files import CLASSES, write_grid, write_kept
from run_records import accuracies, record, write_run

from kravl.report.groups import group_runs
from kravl.report.interactive.payload import payload
from kravl.report.interactive.run_files import RunFiles
from kravl.report.runs import FinishedRun, read_runs


def drawn(folder: Path) -> tuple[dict[str, Any], list[str]]:
    files = RunFiles()
    return payload(group_runs(read_runs(folder)[0]), files), files.problems


def group(data: dict[str, Any], method: str, shots: str, setting: int = 0) -> dict[str, Any]:
    [match] = [g for g in data["settings"][setting]["groups"] if (g["method"], g["shots"]) == (method, shots)]
    return match


def test_a_group_has_statistics_curves_and_what_its_runs_kept(tmp_path: Path) -> None:
    write_grid(tmp_path)

    data, problems = drawn(tmp_path)

    assert problems == []
    lora = group(data, "lora", "4")
    assert lora["stats"]["test/accuracy"] == [pytest.approx(0.535), pytest.approx(0.00707, abs=1e-5), 2]
    assert lora["stats"]["test/ece"] == [0.05, 0, 2]
    assert lora["recall"] == [1.0, 1.0, 1.0]
    assert group(data, "kra", "4")["recall"] == [1.0, 0.5, 1.0]  # takes a dog for a cat
    assert lora["reliability"]["test"] == [[4, 0.3, 0.5], [8, 0.9, 0.75]]
    assert lora["curve"] == [[1, 3.0], [2, 2.0], [3, 1.0]]
    assert [point[0] for point in lora["wise"]] == [0, 0.5, 1]
    zero_shot = group(data, "zero-shot", "0")
    assert (zero_shot["recall"], zero_shot["curve"]) == ([0.5, 0.5, 0.5], [])
    [setting] = data["settings"]
    assert setting["classes"] == list(CLASSES)
    assert setting["line"]["points"] == 3


def test_several_data_sets_have_a_mean_seed_by_seed_of_what_is_on_all_of_them(tmp_path: Path) -> None:
    for dataset, values in (("dtd", (0.2, 0.6)), ("pets", (0.4, 0.2))):
        for seed, value in enumerate(values, start=1):
            given = {"dataset": dataset, "seed": seed, "zero_shot": accuracies(value / 2, 0.2)}
            write_run(tmp_path / dataset / str(seed), metrics=accuracies(value, 0.2), **given)
    write_run(tmp_path / "dtd/only", method="lora", metrics=accuracies(0.9, 0.2))

    data, _ = drawn(tmp_path)

    assert [each["name"][1] for each in data["settings"]] == ["dtd", "pets", "mean over data sets (2)"]
    mean = data["settings"][2]
    assert [each["method"] for each in mean["groups"]] == ["zero-shot", "kra"]
    # 0.3 and 0.4, seed by seed
    assert group(data, "kra", "16", setting=2)["stats"]["test/accuracy"] == pytest.approx([0.35, 0.0707107, 2])


BROKEN = {
    "half a file": '{"schema": 1, "evalu',
    "no object": "[1, 2]",
    "other counts": '{"evaluation": "e", "class_names": ["a"], "images": [1, 2], "hits": {}, "reliability": {}}',
    "no numbers": '{"evaluation": "e", "class_names": ["a"], "images": ["<b>"], "hits": {}, "reliability": {}}',
    "impossible": '{"evaluation": "e", "class_names": [], "images": [], "hits": {}, '
    '"reliability": {"adapted": {"test": [[1, 7, 0.5]]}}}',
    "null": "null",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_a_line_and_the_rest_is_drawn(tmp_path: Path, text: str) -> None:
    write_grid(tmp_path, methods=("kra",), shots=(4,))
    (tmp_path / "0-4-1/details.json").write_text(text)
    (tmp_path / "0-4-2/curve.json").write_text('{"step": [1, 2], "loss": ["<script>", 2]}')

    data, problems = drawn(tmp_path)

    assert sorted(line.split(": ")[0] for line in problems) == [
        f"left out {tmp_path}/0-4-1/details.json",
        f"left out {tmp_path}/0-4-2/curve.json",
    ]
    kra = group(data, "kra", "4")
    assert kra["reliability"]["test"] == [[2, 0.3, 0.5], [4, 0.9, 0.75]]  # of the other seed alone
    assert kra["curve"] == [[1, 3.0], [2, 2.0], [3, 1.0]]


def test_details_of_another_evaluation_are_not_taken_for_this_one(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_kept(tmp_path / "a", {"adapted": [0] * 6}, evaluation="shifts")

    data, problems = drawn(tmp_path)

    assert problems == []
    assert group(data, "kra", "16")["reliability"] == {}


def test_runs_that_kept_nothing_are_drawn_without_it(tmp_path: Path) -> None:
    write_run(tmp_path / "a", metrics=accuracies(0.5))

    data, problems = drawn(tmp_path)

    assert problems == []
    kra = group(data, "kra", "16")
    assert (kra["reliability"], kra["recall"], kra["curve"], kra["beyond"]) == ({}, [], [], None)


def test_two_thousand_runs_are_a_megabyte_at_most() -> None:
    metrics = accuracies(0.5, 0.4)
    runs = [
        FinishedRun(Path("nowhere"), record(seed=s, dataset=f"set{d}", method=f"m{m}", shots=n, metrics=metrics), {})
        for s in range(1, 6) for d in range(10) for m in range(8) for n in (1, 2, 4, 8, 16)
    ]  # fmt: skip

    data = payload(group_runs(runs), RunFiles())

    assert len(runs) == 2000
    assert sum(len(setting["groups"]) for setting in data["settings"]) == 440  # 400 and the mean over sets
    assert len(json.dumps(data)) < 1_000_000
