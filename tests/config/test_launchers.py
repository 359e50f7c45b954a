"""Hydra's launchers and its search: the shipped files compose, and what can run here does."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tiny_run import TINY, VIT

from kravl.config.compose import check_command_line, typed
from kravl.config.schema import CONFIGS
from kravl.run.build import build_run
from kravl.run.train import check_objective, objective, train
from kravl.runtime.errors import InputError

ROOT = Path(__file__).parents[2]
PLUGINS = {"local": "joblib_launcher", "slurm": "submitit_launcher", "submitit": "submitit_launcher"}


def installed(plugin: str) -> bool:
    try:
        return importlib.util.find_spec(f"hydra_plugins.hydra_{plugin}") is not None
    except ModuleNotFoundError:
        return False


def needs(plugin: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not installed(plugin), reason=f"Hydra's {plugin} is not installed")


def launcher(name: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", [f"hydra/launcher={name}", "runs=/r"], return_hydra_config=True)
    settings = OmegaConf.to_container(cfg.hydra.launcher)
    assert isinstance(settings, dict)
    return {**settings, "env": OmegaConf.to_container(cfg.hydra.job.env_set)}


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(plugin)) for name, plugin in PLUGINS.items()])
def test_a_launcher_composes(name: str) -> None:
    check_command_line([f"hydra/launcher={name}", "seed=1,2"], "train", multirun=True)
    settings = launcher(name)

    if name == "slurm":
        assert settings["_target_"].endswith("SlurmLauncher")
        assert settings["additional_parameters"] == {"requeue": True}
        assert settings["max_num_timeout"] > 0
    else:
        assert settings["env"] == {"OMP_NUM_THREADS": "1"}
    assert settings.get("submitit_folder", "${runs}").startswith("${runs}")


def test_the_launcher_of_a_cluster_of_ray_composes() -> None:
    check_command_line(["hydra/launcher=ray", "seed=1,2"], "train", multirun=True)

    assert launcher("ray")["ray"]["remote"] == {"num_cpus": 4, "num_gpus": 1}


@pytest.mark.parametrize("name", PLUGINS)
def test_without_its_plugin_it_is_said_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    repo = dict(store.repo)
    repo["hydra"] = {**repo["hydra"], "launcher": {"basic.yaml": repo["hydra"]["launcher"]["basic.yaml"]}}
    monkeypatch.setattr(store, "repo", repo)

    with pytest.raises(
        InputError, match=r"hydra/launcher needs a plugin of Hydra: pip install 'kravl\[(local|slurm)\]'"
    ):
        check_command_line([f"hydra/launcher={name}"], "train", multirun=True)


@needs("submitit_launcher")
def test_a_job_of_submitit_trains_a_run(glyphs: Path, tmp_path: Path) -> None:
    plain = [override.removeprefix("++") for override in (*TINY, *VIT)]
    jobs = ["hydra/launcher=submitit", "seed=1", f"data_root={glyphs}", f"runs={tmp_path}/runs", "optim.epochs=1"]

    done = subprocess.run(
        [sys.executable, "train.py", "-m", *plain, *jobs], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / "runs").glob("*/seed1-*/metrics.json"))) == 1
    assert list((tmp_path / "runs/.submitit").rglob("*_log.out"))


@needs("optuna_sweeper")
def test_a_search_runs_its_trials_on_held_out_images(glyphs: Path, tmp_path: Path) -> None:
    plain = [o.removeprefix("++") for o in (*TINY, *VIT) if not o.startswith(("evaluation=", "shots="))]
    search = ["hydra/sweeper=search", "objective=test/accuracy", "evaluation=validation", "hydra.sweeper.n_trials=2",
              f"data_root={glyphs}", f"runs={tmp_path}/runs", "shots=4"]  # fmt: skip

    done = subprocess.run(
        [sys.executable, "train.py", "-m", *plain, *search], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr[-3000:]
    records = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/*/metrics.json")]
    assert len({record["config"]["optim"]["lr"] for record in records}) == 2
    assert {record["evaluation"] for record in records} == {"validation"}
    best = max(record["metrics"]["test/accuracy"] for record in records)
    assert f"Best value: {best}" in done.stdout


def test_a_search_for_test_images_or_for_what_is_not_measured_is_refused_before_it_trains(tiny_run: Any) -> None:
    with pytest.raises(InputError, match="objective=test/accuracy would search on the test images; add evaluation=val"):
        train(tiny_run("objective=test/accuracy"))
    with pytest.raises(InputError, match="unknown objective 'test/acuracy': did you mean 'test/accuracy'"):
        train(tiny_run("objective=test/acuracy", "evaluation=validation"))
    check_objective(None, typed(tiny_run()).evaluation)

    with pytest.raises(InputError, match="unknown objective 'ood_mean'"):  # its only set was left out
        objective("ood_mean", {"metrics": {"test/accuracy": 0.5, "ood_mean": None}})


def test_held_out_images_are_neither_trained_on_nor_of_the_test_set(tiny_run: Any, glyphs: Path) -> None:

    data = build_run(typed(tiny_run("evaluation=validation", "shots=4"))).data
    tested, whole = set(data.test_samples.names), set(data.source.split("train").names)

    assert tested == whole - set(data.train_samples.names)
    assert len(tested) == 4 * 2
    with pytest.raises(InputError, match="needs validation images, or training images that are not drawn"):
        build_run(typed(tiny_run("evaluation=validation", "shots=6")))
    with pytest.raises(InputError, match=r"evaluation.sets must be empty"):
        build_run(typed(tiny_run("evaluation=openmoji_shifts", "data=openmoji", "evaluation.held_out=true")))
