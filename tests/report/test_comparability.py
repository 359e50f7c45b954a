"""Runs that look comparable and are not are reported."""

import json
from pathlib import Path
from typing import Any

import pytest
from run_records import accuracies, record, write_run

from kravl.report.groups import comparability_warnings, group_runs
from kravl.report.runs import read_runs, select


def notes(folder: Path) -> list[str]:
    return comparability_warnings(group_runs(read_runs(folder)[0]))


def test_seeds_of_one_method_and_another_method_on_the_same_images_need_no_note(tmp_path: Path) -> None:
    for method in ("kra", "lora"):
        for seed in (1, 2):
            config = {**record()["config"], "seed": seed, "name": f"{method}{seed}", "split_seed": seed}
            split = {"seed": seed, "split_seed": seed, "split_sha256": f"{seed}" * 64}
            write_run(tmp_path / f"{method}{seed}", method=method, config=config, zero_shot=accuracies(0.2), **split)

    assert notes(tmp_path) == []


@pytest.mark.parametrize("method", ["kra", "lora"])
def test_other_images_under_one_split_seed_are_named(tmp_path: Path, method: str) -> None:
    write_run(tmp_path / "a", split_sha256="aa" * 32)
    write_run(tmp_path / "b", split_sha256="bb" * 32, method=method, seed=2)

    kinds = "aaaaaaaaaaaa, bbbbbbbbbbbb"
    expected = f"runs were trained on different images (--where split_sha256=... selects one of {kinds})"
    assert notes(tmp_path) == [f"dtd, shots 16, coop split_seed 1: {expected}"]


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        (
            {"templates": ["{}"]},
            """clip_vitb16 dtd in_domain: runs differ in templates: ["a photo of a {}."] / ["{}"]""",
        ),
        (
            {"split_protocol": "official"},
            'clip_vitb16 dtd in_domain: runs differ in split_protocol: "coop" / "official"',
        ),
        (
            {"versions": {"torch": "2.13.0", "kravl": "0.1.0"}},
            'clip_vitb16 dtd in_domain: runs differ in version of torch: "2.13.0" / "2.15.0"',
        ),
        (
            {"config": {"optim": {"lr": 0.1, "epochs": 10}}},
            "clip_vitb16 dtd in_domain: KRAdapter, shots 16: runs differ in optim.lr: 0.001 / 0.1",
        ),
        (
            {"git_commit": "def"},
            'clip_vitb16 dtd in_domain: runs differ in git_commit: "abc" / "def"',
        ),
        ({"seed": 1}, "clip_vitb16 dtd in_domain: KRAdapter, shots 16: 2 runs have seed 1"),
    ],
)
def test_other_differences_are_named(tmp_path: Path, changes: dict[str, Any], note: str) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", **{"seed": 2, **changes})

    [line] = notes(tmp_path)
    assert line.removesuffix(" selects one)").split(" (--where ")[0] == note


def test_zero_shot_results_that_differ_are_named(tmp_path: Path) -> None:
    write_run(tmp_path / "a", zero_shot=accuracies(0.2))
    write_run(tmp_path / "b", seed=2, zero_shot=accuracies(0.3))

    assert notes(tmp_path) == ["clip_vitb16 dtd in_domain: 2 different zero-shot results"]


@pytest.mark.parametrize(
    "changes",
    [{"git_commit": "d" * 40}, {"split_protocol": "official"}, {"templates": ["{}, or"]}, {"precision": "bf16-mixed"}],
)
def test_the_option_in_a_note_selects_runs_that_need_no_note(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", **{"seed": 2, **changes})
    [note] = notes(tmp_path)

    [key, *_] = note.split("(--where ")[1].split("=...")
    value = changes[key] if isinstance(changes[key], str) else json.dumps(changes[key])
    [run] = select(read_runs(tmp_path)[0], [f"{key}={value}"])

    assert run.record["seed"] == 2
    assert comparability_warnings(group_runs([run])) == []
