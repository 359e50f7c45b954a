"""What kravl 0.1.0 wrote at 2e3b7d2, when its modules lay flat, is evaluated and resumed to the same numbers."""

import json
import logging
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from kravl.config.instantiate import MOVED, resolve
from kravl.config.schema import CONFIGS
from kravl.data.source import Source
from kravl.run.evaluate import evaluate_run
from kravl.run.train import train

pytestmark = pytest.mark.long

WRITTEN = Path(__file__).parents[1] / "fixtures/written_by_2e3b7d2"
SETTINGS = (
    "experiment=quickstart_kra", "shots=2", "data.source.size=32", "evaluation=in_domain", "loading.min_batches=1",
    "loading.augmentation=crop_flip",
    "loading.batch_size=20", "optim.epochs=null", "optim.steps=8", "optim.steps_per_shot=null", "checkpoint_every=2",
    "++evaluation.sets.silhouette={_target_: kravl.data.sources.openmoji.source.Pictograms, style: silhouette, "
    "size: 32}", "spectrum_every=0", "targets=[visual.*.0.mlp.c_fc]", "trainer.accelerator=cpu",
    "trainer.precision=32-true", "tracking=none", "alphas=1", "cache_root=null", "loading.num_workers=0",
    "data_root=data",
)  # fmt: skip
PICTURE = 1 / 275  # of accuracy: another processor's rounding may turn a tie


def composed(config: str, *overrides: str) -> Any:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose(config, overrides=list(overrides))


def copied(kind: str, folder: Path) -> Path:
    """The one run of ``kind`` below ``folder``."""
    shutil.copytree(WRITTEN / kind, folder)
    (run,) = folder.glob("*/*")
    return run


def same(metrics: dict[str, float], expected: dict[str, float]) -> bool:
    assert metrics.keys() == expected.keys()
    loose = {key: 2 * PICTURE if not key.endswith("/loss") else 1e-4 for key in metrics}
    return all(metrics[key] == pytest.approx(expected[key], rel=1e-3, abs=loose[key]) for key in metrics)


def recorded(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())


def test_a_finished_run_is_evaluated_to_the_numbers_that_it_recorded(tmp_path: Path) -> None:
    run = copied("finished", tmp_path / "runs")
    sets = composed("train", *SETTINGS).evaluation
    cfg = composed("evaluate", f"run={run}", "evaluation=in_domain", "alphas=1", "cache_root=null")
    cfg.evaluation = sets

    assert same(evaluate_run(cfg)["metrics"], recorded(run)["metrics"])


def test_its_command_is_not_run_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = copied("finished", tmp_path / "runs")

    with caplog.at_level(logging.INFO):
        metrics = train(composed("train", *SETTINGS, f"runs={tmp_path}/runs"))

    assert metrics == recorded(run)
    assert f"{run} is finished; skipped" in caplog.text


def test_an_unfinished_run_is_resumed_in_mid_epoch_and_ends_in_the_numbers_of_the_whole_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = copied("killed", tmp_path / "runs")

    with caplog.at_level(logging.INFO):
        metrics = train(composed("train", *SETTINGS, f"runs={tmp_path}/runs"))

    assert f"{run / 'checkpoints/step=4.ckpt'}" in caplog.text
    (whole,) = (WRITTEN / "finished").glob("*/*")
    assert same(metrics["metrics"], recorded(whole)["metrics"])


def test_a_class_is_found_where_it_was() -> None:
    node = {"_target_": "kravl.data.openmoji.Pictograms"}

    assert resolve(node, Source).__module__ == "kravl.data.sources.openmoji.source"
    assert all(find_spec(module) for module in MOVED.values())
