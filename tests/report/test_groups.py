"""Runs are read completely or not at all, and grouped over seeds with the right mean and deviation."""

import json
from pathlib import Path
from typing import Any

import pytest
from run_records import accuracies, record, write_run

from kravl.report.groups import Stat, group_runs
from kravl.report.runs import read_runs
from kravl.tracking.run_folder import ZERO_SHOT


def test_a_group_has_mean_and_sample_deviation_over_seeds(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.5, 0.6, 0.7), start=1):
        metrics, rank = accuracies(accuracy), {"mean": 10.0 * seed}
        write_run(tmp_path / f"kra/seed{seed}", seconds=seed, seed=seed, metrics=metrics, effective_rank=rank)

    runs, problems = read_runs(tmp_path)
    [group] = group_runs(runs)

    assert problems == []
    assert (group.setting, group.method, group.shots) == (("clip_vitb16", "dtd", "in_domain"), "kra", 16)
    assert group.stat("test/accuracy") == (pytest.approx(0.6), pytest.approx(0.1), 3)  # ddof 0 would be 0.0816
    assert group.stat("effective_rank") == (20, 10, 3)
    assert group.stat("train_seconds") == (2, 1, 3)
    assert group.stat("trainable_parameters") == (43008, 0, 3)
    assert group.stat("ood_mean") is None


def test_runs_that_started_from_another_are_cells_of_their_own(tmp_path: Path) -> None:
    write_run(tmp_path / "plain", metrics=accuracies(0.5))
    start = {"run": "pretrained/seed1-0a1b2c3d", "adapter": "sha256 0"}
    for seed in (1, 2):
        write_run(tmp_path / f"from/seed{seed}", seed=seed, metrics=accuracies(0.6), init=start)

    groups = group_runs(read_runs(tmp_path)[0])

    assert [(group.method, len(group.runs)) for group in groups] == [("kra", 1), ("kra from pretrained", 2)]


def test_a_single_seed_has_no_deviation(tmp_path: Path) -> None:
    write_run(tmp_path / "a", metrics=accuracies(0.5))

    [group] = group_runs(read_runs(tmp_path)[0])

    assert group.stat("test/accuracy") == Stat(0.5, None, 1)
    assert group.stat("train_seconds") is None


def test_groups_differ_by_backbone_dataset_evaluation_method_and_shots(tmp_path: Path) -> None:
    write_run(tmp_path / "base")
    changes: dict[str, Any] = {"backbone": "vit", "dataset": "pets", "evaluation": "ood", "method": "lora", "shots": 4}
    for key, value in changes.items():
        write_run(tmp_path / key, **{key: value})
    write_run(tmp_path / "seed", seed=2)

    groups = group_runs(read_runs(tmp_path)[0])

    assert sorted(len(group.runs) for group in groups) == [1, 1, 1, 1, 1, 2]


def test_two_data_sets_or_evaluations_of_one_name_are_not_averaged(tmp_path: Path) -> None:
    for place, seed, photos, shift in (
        ("a", 1, "aa", "1"),
        ("b", 1, "bb", "1"),
        ("a", 2, "aa", "1"),
        ("a", 3, "aa", "2"),
    ):
        images = {"data_sha256": photos * 32, "sets_sha256": {"test": place + str(seed), "folder": shift}}
        write_run(tmp_path / f"{place}{seed}{shift}", dataset="photos", seed=seed, **images)
    write_run(tmp_path / "earlier", dataset="photos", seed=4)  # a release that recorded no digests

    groups = {group.setting[1:]: len(group.runs) for group in group_runs(read_runs(tmp_path)[0])}

    (first,) = {evaluation for dataset, evaluation in groups if dataset == "photos (bbbbbbb)"}
    (other,) = {evaluation for _, evaluation in groups} - {first, "in_domain"}
    assert groups == {
        ("photos (aaaaaaa)", first): 2,
        ("photos (bbbbbbb)", first): 1,
        ("photos (aaaaaaa)", other): 1,
        ("photos", "in_domain"): 1,
    }


def test_rows_are_in_order_of_method_and_number_of_shots(tmp_path: Path) -> None:
    for method, shots in [("lora", 16), ("kra", None), ("kra", 16), ("kra", 4)]:
        write_run(tmp_path / f"{method}{shots}", method=method, shots=shots, zero_shot=accuracies(0.25))

    groups = group_runs(read_runs(tmp_path)[0])

    expected = [(ZERO_SHOT, "0"), ("kra", "4"), ("kra", "16"), ("kra", "all"), ("lora", "16")]
    assert [(group.method, group.amount) for group in groups] == expected


def test_zero_shot_results_that_all_runs_carry_count_once(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path / str(seed), seconds=9, seed=seed, zero_shot=accuracies(0.25))

    zero_shot = group_runs(read_runs(tmp_path)[0])[0]

    assert zero_shot.method == ZERO_SHOT
    assert zero_shot.stat("test/accuracy") == Stat(0.25, None, 1)
    assert zero_shot.stat("trainable_parameters") == Stat(0, None, 1)
    assert (zero_shot.stat("train_seconds"), zero_shot.stat("effective_rank")) == (None, None)


def test_a_later_evaluation_is_a_run_of_that_evaluation_and_replaces_an_earlier_one(tmp_path: Path) -> None:
    later = write_run(tmp_path / "run", seconds=9, metrics=accuracies(0.5)).parent / "evaluations"
    later.mkdir()
    again = {"evaluation": "in_domain", "metrics": accuracies(0.5), "zero_shot": None, "wise_ft": [{"alpha": 0.5}]}
    other = {"evaluation": "ood", "metrics": accuracies(0.5, 0.25), "zero_shot": None, "wise_ft": []}
    for each in (again, other):
        (later / f"{each['evaluation']}.json").write_text(json.dumps(each))

    in_domain, ood = group_runs(read_runs(tmp_path)[0])

    assert len(in_domain.runs) == 1
    assert in_domain.runs[0].record["wise_ft"] == [{"alpha": 0.5}]
    assert (ood.setting.evaluation, ood.stat("ood_mean")) == ("ood", Stat(0.25, None, 1))
    assert ood.stat("train_seconds") == Stat(9, None, 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (json.dumps(record())[:-20], "line 1 column"),
        ("", "Expecting value"),
        ("[1]", "not a JSON object"),
        (json.dumps(record(schema=2)), "schema 2, not 1"),
        (json.dumps(record(metrics=[1], seed="x")), "missing or invalid: seed, metrics"),
        (json.dumps({key: value for key, value in record().items() if key != "templates"}), "or invalid: templates"),
    ],
)
def test_a_file_that_cannot_be_used_is_skipped_and_named(tmp_path: Path, text: str, reason: str) -> None:
    write_run(tmp_path / "good")
    bad = write_run(tmp_path / "bad")
    bad.write_text(text)

    runs, [problem] = read_runs(tmp_path)

    assert [run.folder.name for run in runs] == ["good"]
    assert problem.startswith(f"skipped {bad}: ")
    assert reason in problem


def test_a_half_written_cost_is_skipped_and_the_run_is_kept(tmp_path: Path) -> None:
    cost = write_run(tmp_path / "run", seconds=9).with_name("cost.json")
    cost.write_text(cost.read_text()[:10])

    [run], [problem] = read_runs(tmp_path)

    assert "train_seconds" not in run.values
    assert str(cost) in problem


def test_a_file_that_is_not_text_is_skipped_and_named(tmp_path: Path) -> None:
    bad = write_run(tmp_path / "bad")
    bad.write_bytes(b"\xff\xfe\x00")

    runs, [problem] = read_runs(tmp_path)

    assert runs == []
    assert str(bad) in problem
