"""The line of effective robustness goes through its points, and is left out where there are too few."""

from pathlib import Path

import pytest
from run_records import accuracies, write_run

from kravl.report.groups import Group, group_runs
from kravl.report.robustness import curve_notes, effective_robustness, expit, logit, robustness_line, wise_ft_line
from kravl.report.runs import read_runs


def groups(folder: Path) -> list[Group]:
    return group_runs(read_runs(folder)[0])


def test_logit_and_expit_undo_each_other() -> None:
    assert logit(0.5) == 0
    assert expit(logit(0.8)) == pytest.approx(0.8)


def test_points_on_a_line_in_logits_give_that_line(tmp_path: Path) -> None:
    for shots, accuracy in ((1, 0.4), (4, 0.6), (16, 0.8)):
        out = expit(0.9 * logit(accuracy) - 0.5)
        write_run(tmp_path / str(shots), method="linear_probe", shots=shots, metrics=accuracies(accuracy, out))
    write_run(tmp_path / "kra", metrics=accuracies(0.7, expit(0.9 * logit(0.7) - 0.5) + 0.03))

    members = groups(tmp_path)
    line = robustness_line(members)

    assert line is not None
    assert (line.slope, line.intercept, line.correlation) == pytest.approx((0.9, -0.5, 1.0))
    assert line.points == 3
    beyond = {group.method: effective_robustness(line, group) for group in members}
    assert beyond["kra"] == pytest.approx(0.03)
    assert beyond["linear_probe"] == pytest.approx(0)


@pytest.mark.parametrize("values", [[0.4, 0.6], [0.5, 0.5, 0.5], [0.0, 0.6, 1.0]], ids=str)
def test_too_few_different_points_give_no_line(tmp_path: Path, values: list[float]) -> None:
    for i, accuracy in enumerate(values):
        metrics = {"test/accuracy": accuracy, "ood_mean": 0.5 * accuracy + 0.1, "harmonic_mean": None}
        write_run(tmp_path / str(i), method="linear_probe", shots=i + 1, metrics=metrics)
    write_run(tmp_path / "kra", metrics=accuracies(0.7, 0.6))  # not a baseline

    assert robustness_line(groups(tmp_path)) is None


def test_the_wise_ft_line_goes_from_zero_shot_through_the_points_to_the_adapted_model(tmp_path: Path) -> None:
    points = [{"alpha": 0.5, **accuracies(0.5, 0.45)}]
    for seed, accuracy in ((1, 0.6), (2, 0.8)):
        ends = {"zero_shot": accuracies(0.3, 0.4), "metrics": accuracies(accuracy, 0.3)}
        write_run(tmp_path / str(seed), seed=seed, wise_ft=points, **ends)

    write_run(tmp_path / "lora", method="lora", wise_ft=points, zero_shot=None, metrics=accuracies(0.6, 0.5))
    members = groups(tmp_path)

    lines = {group.method: wise_ft_line(group, members) for group in members}

    assert lines["kra"] == [(0.0, 0.3, 0.4), (0.5, 0.5, 0.45), (1.0, pytest.approx(0.7), pytest.approx(0.3))]
    assert curve_notes(members) == []
    assert lines["lora"] == [(0.0, 0.3, 0.4), (0.5, 0.5, 0.45), (1.0, 0.6, 0.5)]
    assert lines["zero-shot"] == []


def test_a_curve_that_some_seeds_have_alone_is_left_out_with_a_line(tmp_path: Path) -> None:
    ends = {"zero_shot": accuracies(0.3, 0.4), "metrics": accuracies(0.6, 0.3)}
    write_run(tmp_path / "1", seed=1, wise_ft=[{"alpha": 0.5, **accuracies(0.5, 0.45)}], **ends)
    write_run(tmp_path / "2", seed=2, **ends)
    members = groups(tmp_path)

    assert [wise_ft_line(group, members) for group in members] == [[], []]
    [line] = curve_notes(members)
    assert line.startswith(
        "clip_vitb16 dtd in_domain: KRAdapter, shots 16: WiSE-FT's curve is left out, as 1 of 2 runs"
    )
