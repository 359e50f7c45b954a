"""A run that did less than its settings say is marked, is not taken for a whole one, and is run again."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kravl.config.compose import typed
from kravl.report.runs import leave_out_shortened, read_runs
from kravl.run.train import check, train
from kravl.runtime.errors import InputError
from kravl.tracking.run_folder import RunFolder

DEV_RUN = ["epochs of 1 of 3 batches", "trained 1 of 6 steps", "evaluated 8 of 20 images of test"]


@pytest.mark.parametrize(
    ("settings", "reasons"),
    [
        (["++trainer.fast_dev_run=true"], DEV_RUN),
        (["++trainer.limit_train_batches=2", "optim.epochs=null", "optim.steps=2"], ["epochs of 2 of 3 batches"]),
        (["++trainer.max_time='00:00:00:00'"], ["trained 0 of 6 steps"]),
        (["++trainer.limit_train_batches=1.0", "++trainer.max_time='00:01:00:00'"], []),
        (["++trainer.limit_test_batches=1", "method=linear_probe", "loading.augmentation=none"], DEV_RUN[2:]),
    ],
)
def test_a_shortened_run_says_what_it_lacks(
    tiny_run: Callable[..., Any], settings: list[str], reasons: list[str]
) -> None:
    metrics = train(tiny_run(*settings, "loading.eval_batch_size=8", "alphas=1"))

    assert metrics["shortened"] == reasons


def test_a_shortened_run_is_run_again_and_kept_out_of_a_report(
    tiny_run: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = tiny_run("++trainer.max_time='00:00:00:00'", "alphas=1")
    train(cfg)
    (folder,) = (tmp_path / "runs").glob("*/seed*")
    assert RunFolder(folder).finished
    assert not RunFolder(folder).done
    (folder / "cost.json").write_text("{}")

    with caplog.at_level(logging.INFO):
        train(cfg)

    assert f"{folder} is finished but shortened (trained 0 of 6 steps); run again" in caplog.text
    assert json.loads((folder / "cost.json").read_text())  # of the second
    runs, problems = read_runs(tmp_path)
    whole, lines = leave_out_shortened(runs)
    assert (len(runs), whole, problems) == (1, [], [])
    assert lines == [f"left out {folder}, which is shortened: trained 0 of 6 steps (--shortened takes it in)"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("limit_train_batches=0", r"limit_train_batches=0: it must be a number above 0"),
        ("limit_test_batches=0.0", r"limit_test_batches=0.0: it must be a number above 0"),
        ("overfit_batches=1", "overfit_batches=1 would change the order of images"),
    ],
)
def test_what_would_leave_nothing_is_refused_at_once(tiny_run: Callable[..., Any], setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(typed(tiny_run(f"++trainer.{setting}")))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("++trainer.limit_test_batches=0.1", "test has 3 batches, of which that is none; it must be at least 0.33"),
        ("++trainer.limit_train_batches=0.1", "train has 3 batches, of which that is none"),
    ],
)
def test_a_share_of_no_batch_is_refused_before_training(
    tiny_run: Callable[..., Any], setting: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kravl.run.train.fit", lambda *given: pytest.fail("it trains"))

    with pytest.raises(InputError, match=said):
        train(tiny_run(setting, "loading.eval_batch_size=8", "alphas=1"))
