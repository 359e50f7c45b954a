"""What runs of one process share changes no bit of any of them, whatever was trained before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest

from kravl.config.compose import as_written
from kravl.evaluation import wise_ft
from kravl.run.train import train
from kravl.runtime.files import json_object, read_text
from kravl.runtime.shared import sharing
from kravl.study.pool import Worker
from kravl.tracking.run_folder import folder_of

KRAVL_TINY = ("backbone=kravl_tiny", "alphas=3", "optim.lr=1e-3", "optim.epochs=1")
RANDOM = (*KRAVL_TINY, "backbone.build.pretrained=null")
RESNET = ("backbone.build.name=test_resnet", "backbone.build.image_size=null", "sites=null", "unfreeze=[*]",
          "train_statistics=true", "alphas=1")  # fmt: skip
FILES = ("adapter.safetensors", "predictions.csv", "spectra.safetensors", "curve.json")
OWN = ("config", "git_commit")  # of the record: the folder of runs, and whether a file is changed while this runs
CELLS: dict[str, tuple[tuple[str, ...], tuple[str, ...] | None]] = {
    "full": (("method=full",), KRAVL_TINY),
    "lora": (("method=lora",), KRAVL_TINY),
    "lora again": (("method=lora", "label=again"), KRAVL_TINY),
    "probe": (("method=linear_probe",), KRAVL_TINY),
    "probe of fewer": (("method=linear_probe", "shots=2"), KRAVL_TINY),
    "another precision": (("method=lora", "trainer.precision=64-true"), KRAVL_TINY),
    "other prompts": (("method=lora", "data.templates=['a scan of {}', 'the letter {}']"), KRAVL_TINY),
    "statistics": (RESNET, None),
    "statistics again": ((*RESNET, "label=again"), None),
    "random": (("method=kra",), RANDOM),
    "random, another seed": (("method=kra", "seed=2"), RANDOM),
    "lora at last": (("method=lora", "label=last", "seed=2"), KRAVL_TINY),
}


def trained(worker: Worker, cfg: Any, name: str) -> Path:
    folder = folder_of(cfg.runs, cfg.name, cfg.seed, as_written(cfg))
    folder.mkdir(parents=True)
    worker.submit(folder, cfg)
    assert worker.result().status == "done", (name, (folder / "log.txt").read_text())
    return folder


def outcome(folder: Path) -> dict[str, Any]:
    """All numbers of a run, and its files."""
    record = json_object(read_text(folder / "metrics.json"), "metrics.json")
    numbers = {key: value for key, value in record.items() if key not in OWN}
    return numbers | {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()}


@pytest.mark.long
def test_cells_of_one_process_are_those_alone(tiny_run: Callable[..., Any], tmp_path: Path) -> None:
    def composed(name: str, place: str) -> Any:
        overrides, backbone = CELLS[name]
        given = {} if backbone is None else {"backbone": backbone}
        return tiny_run(*overrides, f"runs={tmp_path}/{place}", **given)

    together = Worker(1, None, 2**30)
    folders = {name: trained(together, composed(name, "together"), name) for name in CELLS}
    together.close()
    for name, folder in folders.items():
        alone = Worker(1, None, 0)
        assert outcome(folder) == outcome(trained(alone, composed(name, "alone"), name)), name
        alone.close()
    assert {"adapter.safetensors", "predictions.csv"} <= outcome(folders["lora"]).keys()


def test_what_runs_have_in_common_is_computed_once(
    tiny_run: Callable[..., Any], glyphs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, evaluated = [], []
    create, predict = open_clip.create_model, wise_ft.predict
    monkeypatch.setattr(open_clip, "create_model", lambda *a, **k: loaded.append(a) or create(*a, **k))
    monkeypatch.setattr(wise_ft, "predict", lambda *a: evaluated.append(a) or predict(*a))
    settings = ("method=lora", "alphas=2", "optim.epochs=1", "spectrum_every=0")

    with sharing(2**30):
        for shots in (1, 2):
            train(tiny_run(*settings, f"shots={shots}", backbone=KRAVL_TINY))
    assert (len(loaded), len(evaluated)) == (1, 3)
    train(tiny_run(*settings, "shots=3", backbone=KRAVL_TINY))
    assert (len(loaded), len(evaluated)) == (2, 5)
