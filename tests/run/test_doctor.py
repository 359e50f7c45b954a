"""`kravl doctor`: each planted fault is found before a run begins, and what is estimated is what a run has."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import full_disk
from huggingface_hub import constants
from tiny_run import TINY, VIT

from kravl.backbones.weights.timm_weights import untrained_vit
from kravl.cli.doctor import main
from kravl.config.compose import as_written, typed
from kravl.run.build import build_run, make_data
from kravl.run.doctor.checklist import Checklist
from kravl.run.doctor.estimate import estimate
from kravl.run.doctor.machine import check_keys
from kravl.run.doctor.skeleton import Skeleton
from kravl.run.sources import list_sources
from kravl.runtime.lock import Lock
from kravl.tracking.run_folder import folder_of

Place = Callable[[Path], Any]


@pytest.fixture
def diagnosed(glyphs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str]]]:
    """Status and lines of `kravl doctor` for a small run on a copy of the glyphs, with further settings."""
    shutil.copytree(glyphs, tmp_path / "data", dirs_exist_ok=True)

    def run(*settings: str) -> tuple[int, list[str]]:
        base = [*TINY, *VIT, f"data_root={tmp_path}/data", f"runs={tmp_path}/runs", "cache_root=null"]
        status = main([*base, *settings])
        return status, capsys.readouterr().out.splitlines()

    return run


@contextmanager
def nothing(folder: Path) -> Iterator[None]:
    yield


def damaged_image(folder: Path) -> Any:
    file = next((folder / "data/glyphs/train").rglob("*.png"))
    file.write_bytes(file.read_bytes()[:60])
    return nothing(folder)


def one_class(folder: Path) -> Any:
    shutil.copytree(folder / "data/glyphs/train/A", folder / "one/train/A")
    shutil.copytree(folder / "data/glyphs/test/A", folder / "one/test/A")
    return nothing(folder)


def damaged_weights(folder: Path) -> Any:
    (folder / "w.safetensors").write_bytes(b"\x10" + bytes(40))
    return nothing(folder)


def file_for_folder(folder: Path) -> Any:
    (folder / "file").write_text("")
    return nothing(folder)


@contextmanager
def offline(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        yield


NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
# those that can be planted together are: one must not hide the other
FAULTS: dict[str, Any] = {
    "a misspelt setting": (nothing, ["shotz=3"], [r"error +settings +unknown key 'shotz': did you mean 'shots'"]),
    "images, folder, sites, key": (
        lambda folder: (damaged_image(folder), file_for_folder(folder))[1],
        [
            *("evaluation=folder", "evaluation.root=/nowhere", "tracking=wandb", "targets=[blocks.*.attn.qkw]"),
            "runs={}/file/runs",
        ],
        [
            r"error +folder +.*root=/nowhere: no folder /nowhere",
            r"error +images +1 of \d+ images cannot be used: train: .*\.png",
            r"warning +weights +.* starts from random weights",
            r"error +adapters +target 'blocks\.\*\.attn\.qkw' matches no weight matrix",
            r"error +folder +the run folder .*file/runs.* cannot be written: Not a directory",
            r"warning +W&B +logs offline: WANDB_MODE=offline",
        ],
    ),
    "no images, other weights": (
        damaged_weights,
        ["data.root=/nowhere", "backbone.build.pretrained={}/w.safetensors"],
        [r"error +data +folder: root=/nowhere: no folder", r"error +weights +.*w\.safetensors is refused"],
    ),
    "too few images, weights that cannot be had": (
        offline,
        ["shots=1000", "backbone.build.name=vit_tiny_patch16_224.augreg_in21k", "backbone.build.pretrained=true"],
        [
            r"error +data +.*1000",
            r"error +weights +.*not in the local cache and cannot be downloaded: HF_HUB_OFFLINE is set",
        ],
    ),
    "one class, contradicting settings": (
        one_class,
        ["data.root={}/one/train", "data.test={}/one/test", "fraction=0.5"],
        [
            r"error +data +folder has one class, 'A'",
            r"error +settings +shots=6 and fraction=0.5 are both given",
        ],
    ),
    "tested on what is trained on, a small disk": (
        lambda _: full_disk(1000),
        ["data.test={}/data/glyphs/train"],
        [
            r"warning +data +\d+ of the \d+ images of test are trained on",
            r"error +disk +a checkpoint has .*`ulimit -f` allows files of 1\.0 kB",
        ],
    ),
    "no GPU": pytest.param(nothing, ["trainer.accelerator=gpu"], [r"error +settings +trainer.*"], marks=NO_GPU),
}


@pytest.mark.parametrize(("plant", "settings", "expected"), FAULTS.values(), ids=FAULTS)
def test_each_planted_fault_is_found(
    plant: Place, settings: list[str], expected: list[str], diagnosed: Any, tmp_path: Path
) -> None:
    with plant(tmp_path), pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        status, lines = diagnosed(*(setting.format(tmp_path) for setting in settings))

    for pattern in expected:
        assert len([line for line in lines if re.match(pattern, line)]) == 1, (pattern, lines)
    assert status == any(line.startswith("error") for line in lines)
    assert not (tmp_path / "runs").exists()


def test_a_folder_in_use_and_a_finished_run_are_told(
    diagnosed: Any, tiny_run: Any, tmp_path: Path, glyphs: Path
) -> None:
    cfg = tiny_run(f"data_root={tmp_path}/data", "cache_root=null")
    path = folder_of(cfg.runs, cfg.name, cfg.seed, as_written(cfg))
    lock = Lock(path)
    status, lines = diagnosed()
    lock.release()
    assert status == 1
    assert any(line.startswith(f"error    folder     {path} is in use") for line in lines)

    (path / "metrics.json").write_text("{}")
    status, lines = diagnosed()
    assert status == 0
    assert any(line.startswith(f"warning  folder     {path} is finished: the command skips it") for line in lines)


def test_without_a_fault_nothing_is_wrong_and_with_measure_real_steps_are_timed(diagnosed: Any, tmp_path: Path) -> None:
    status, lines = diagnosed("--measure")

    assert status == 0
    (line,) = [line for line in lines if line.startswith("ok       time")]
    found = re.search(r"about \d+ s: 6 steps, 20 images evaluated; ([\d.e-]+) s a step, ([\d.e-]+) s an", line)
    assert found and all(0 < float(number) < 60 for number in found.groups()), line
    assert not (tmp_path / "runs").exists()
    assert lines[-1] == "no errors, 1 warning"  # random weights


CLIP = ("backbone=kravl_tiny",)


@pytest.mark.parametrize(
    ("method", "backbone"),
    [
        *((method, VIT) for method in ("kra", "full", "linear_probe")),
        *((method, CLIP) for method in ("cliplora", "linear_probe", "zeroshot")),
        ("coop", (*CLIP, "context_tokens=4")),
        ("2sfs", (*CLIP, "optim.steps=6")),
        ("lora", (*VIT, "+backbone.build.dtype=bf16")),
    ],
)
def test_what_is_estimated_is_what_the_run_has(method: str, backbone: tuple[str, ...], tiny_run: Any) -> None:
    cfg = typed(tiny_run(f"method={method}", "optim.steps_per_shot=null", backbone=backbone))
    sources = list_sources(cfg)

    guessed = estimate(cfg, make_data(cfg, sources))
    run = build_run(cfg, sources)

    assert guessed is not None
    assert guessed.trainable == run.adapters.num_trainable()
    assert guessed.sites == run.sites
    stored = [p for p in run.classifier.encoder().parameters() if p.dtype == torch.bfloat16]
    assert guessed.halved == sum(p.numel() for p in stored) and bool(stored) == (
        "+backbone.build.dtype=bf16" in backbone
    )
    assert guessed.tower_trains == (cfg.optim.trains and not run.classifier.features_are_fixed())
    assert guessed.steps == (6 if cfg.optim.trains else 0)
    assert (guessed.prompts is not None) == (cfg.optim.trains and getattr(run.classifier, "text_trains", bool)())


def test_trackers_are_told_with_the_server_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "trackio" else object())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    for tracking in ("csv", ["csv", "mlflow"], ["csv", "trackio"]):
        check_keys(Checklist(lambda finding: lines.append(f"{finding.level} {finding.what}: {finding.text}")), tracking)

    told = [line for line in lines if "hub" not in line]
    assert told == [
        "ok tracking: csv: no key is needed",
        "warning MLflow: http://127.0.0.1:9 does not answer: a database in the run's folder takes its place",
        "error tracking: tracking=trackio needs the package trackio: pip install 'kravl[trackio]'",
    ]


def test_what_two_checks_find_is_told_once() -> None:
    checks = Checklist()
    for what in ("settings", "tracking"):
        checks.add("error", what, "tracking=mlflow needs the package mlflow")
        checks.add("ok", what, "fine")

    assert [finding.level for finding in checks.findings] == ["error", "ok", "ok"]


def test_a_run_in_stages_costs_what_each_of_them_trains(tiny_run: Any) -> None:
    def guessed(method: str, steps: int) -> Any:
        settings = (f"method={method}", "optim.steps_per_shot=null", f"optim.steps={steps}", "data.templates=single")
        cfg = typed(tiny_run(*settings, backbone=CLIP))
        return estimate(cfg, make_data(cfg, list_sources(cfg)))

    staged, norms, weights = guessed("2sfs", 10), guessed("layernorm", 6), guessed("linear_probe", 4)
    evaluated = staged.evaluated * staged.image.operations
    assert staged.trainable == norms.trainable + weights.trainable
    assert (staged.steps, staged.tower_steps, staged.prompt_steps) == (10, 6, 6)
    assert staged.operations == norms.operations + weights.operations - evaluated


def test_a_head_on_features_trains_no_weight_and_encodes_each_image_once(diagnosed: Any) -> None:
    status, lines = diagnosed("method=ncm", "head.views=3", "loading.augmentation=crop_flip")

    assert status == 0
    assert any(re.fullmatch(r"ok +head +ncm: a head on features; of [\d,]+ parameters none trains", x) for x in lines)
    (line,) = [line for line in lines if line.startswith("ok       time")]
    assert "92 images encoded once, and the fit of a head" in line
    assert diagnosed("method=ncm", "--measure")[0] == 0
    status, lines = diagnosed("method=ncm", "alphas=3")
    assert status == 1
    assert any(re.match(r"error +settings +alphas has 0.5, and NearestClassMean does not start", x) for x in lines), (
        lines
    )


def test_operations_are_those_of_a_vision_transformer() -> None:
    width, depth, patches = 192, 12, 4
    tokens = patches + 1
    block = 2 * tokens * width * (3 + 1 + 4 + 4) * width + 2 * 2 * tokens**2 * width
    embedding = 2 * patches * width * 3 * 16**2

    work = Skeleton(untrained_vit("vit_tiny_patch16_224", False, 4, 32), 32).image([])

    assert work is not None
    assert (work.operations, work.kept, work.width) == (depth * block + embedding, 0, width)
