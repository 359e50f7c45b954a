"""What a result depends on besides settings: a run that is resumed or found finished with other inputs is told."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from kravl.config.compose import typed
from kravl.report.groups import comparability_warnings, group_runs
from kravl.report.runs import read_runs
from kravl.run import inputs
from kravl.run.build import build_run
from kravl.run.evaluate import evaluate_run
from kravl.run.train import train
from kravl.runtime.errors import InputError

Change = Callable[[Path], None]
TINY = ("data.train=train", "data.test=test", "shots=2", "optim.epochs=3", "loading.batch_size=4", "cache_root=null")


def pictures(root: Path, seed: int = 0, classes: str = "ab", count: int = 3) -> Path:
    """Random pictures of a fixed size in bytes: ``root``/train and test, a folder per class."""
    rng = np.random.default_rng(seed)
    for split in ("train", "test"):
        for name in classes:
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.bmp")  # bytes follow from the size
    return root


def rewrite(path: Path, keep_time: bool = False) -> None:
    """Other pixels in as many bytes."""
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-9] + b"different")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + (0 if keep_time else 10**9)))


def more_images(root: Path) -> None:
    pictures(root / "data", seed=3, count=5)


def other_class(root: Path) -> None:
    for split in ("train", "test"):
        (root / "data" / split / "a").rename(root / "data" / split / "zz")


def other_weights(root: Path) -> None:
    tensors = load_file(root / "vit.safetensors")
    save_file(
        {name: tensor + 1 if name == "pos_embed" else tensor for name, tensor in tensors.items()},
        root / "vit.safetensors",
    )


CHANGES: dict[str, tuple[Change, str]] = {
    "trained pixels": (lambda root: rewrite(root / "data/train/a/0.bmp"), "contents of the images of training: "),
    "evaluated pixels": (lambda root: rewrite(root / "data/test/b/2.bmp"), "contents of the images of test: "),
    "images": (more_images, "images of test: 6, sha256 .* -> 10, sha256"),
    "classes": (other_class, r"classes: 2 \(a, b\), .* -> 2 \(b, zz\)"),
    "prompts": (lambda root: (root / "own.txt").write_text("a drawing of a {}."), "prompts: sha256"),
    "weights": (other_weights, "weights: .* -> "),
}


@pytest.fixture
def command(tiny_run: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """A run on pictures, from weights and with prompts that are files in the temporary folder."""
    pictures(tmp_path / "data")
    (tmp_path / "own.txt").write_text("a photo of a {}.")
    model = build_run(typed(tiny_run())).classifier.encoder()
    kept = {name: tensor for name, tensor in model.state_dict().items() if ".adapters." not in name}
    save_file(
        {name: tensor.contiguous() for name, tensor in kept.items() if "head" not in name}, tmp_path / "vit.safetensors"
    )
    files = (f"data.root={tmp_path}/data", f"data.templates={tmp_path}/own.txt")
    weights = f"backbone.build.pretrained={tmp_path}/vit.safetensors"
    stated = ("mean=[0.5,0.5,0.5]", "std=[0.5,0.5,0.5]", "interpolation=bicubic", "resize_mode=shortest")
    more = [f"++backbone.build.{setting}" for setting in stated]
    return lambda *overrides: tiny_run(*TINY, *files, weights, *more, *overrides)


def test_a_run_is_not_resumed_and_not_found_finished_when_its_inputs_have_changed(
    command: Callable[..., Any], stop: Callable[..., None], tmp_path: Path
) -> None:
    stop(command())
    shutil.copytree(tmp_path / "runs", tmp_path / "whole")
    train(command(f"runs={tmp_path}/whole"))
    inputs_of_run = ("data", "own.txt", "vit.safetensors")
    for name in inputs_of_run:
        copy = shutil.copytree if (tmp_path / name).is_dir() else shutil.copy2
        copy(tmp_path / name, tmp_path / f"{name}.kept")

    for what, (change, field) in CHANGES.items():
        change(tmp_path)
        for runs, told in (("runs", "was started with other inputs"), ("whole", "is finished, with other inputs")):
            with pytest.raises(InputError, match=f"{told}: .*{field}"):
                train(command(f"runs={tmp_path}/{runs}"))
                pytest.fail(f"{what} went unnoticed in {runs}")
        shutil.rmtree(tmp_path / "data")
        shutil.copytree(tmp_path / "data.kept", tmp_path / "data")
        for name in inputs_of_run[1:]:
            shutil.copy2(tmp_path / f"{name}.kept", tmp_path / name)

    rewrite(tmp_path / "data/train/a/0.bmp")
    (folder,) = (tmp_path / "runs").glob("*/seed*")
    metrics = train(command(f"resume={folder}", "force=true"))
    assert [line.partition(":")[0] for line in metrics["accepted"]] == ["contents of the images of training"]


def test_a_copy_of_the_images_is_the_same_images_and_a_hidden_change_is_found_where_contents_are_asked_for(
    command: Callable[..., Any], stop: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stop(command())
    shutil.rmtree(tmp_path / "kept", ignore_errors=True)
    shutil.copytree(tmp_path / "data", tmp_path / "kept", copy_function=shutil.copyfile)  # times are those of now
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "kept").rename(tmp_path / "data")
    metrics = train(command())
    assert metrics["accepted"] == []
    rewrite(tmp_path / "data/test/a/0.bmp", keep_time=True)

    assert train(command()) == metrics  # neither size nor time tells
    with pytest.raises(InputError, match="is finished, with other inputs: contents of the images of test"):
        train(command("check_contents=true"))


def test_precision_and_versions_are_compared_and_another_kravl_is_told(
    command: Callable[..., Any],
    stop: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stop(command())
    versions = inputs.package_versions()
    with monkeypatch.context() as other:
        other.setattr(inputs, "precision_of", lambda settings: "bf16-mixed")
        other.setattr(inputs, "package_versions", lambda: versions | {"torch": "3.0"})
        with pytest.raises(InputError, match=f"precision: 32-true -> bf16-mixed; torch: {versions['torch']} -> 3.0"):
            train(command())

    monkeypatch.setattr(inputs.kravl, "__version__", "9.9.9")
    metrics = train(command())

    assert "resuming with another kravl: version 0.1.0" in caplog.text
    assert len(metrics["accepted"]) == 1
    assert "-> version 9.9.9" in metrics["accepted"][0]


def test_one_relative_path_in_two_folders_is_two_data_sets(
    tiny_run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, place in enumerate(("one", "two")):
        pictures(tmp_path / place / "imgs", seed)
    shutil.copytree(tmp_path / "one", tmp_path / "copy", copy_function=shutil.copyfile)
    cfg = tiny_run(*TINY, "data.root=imgs")
    monkeypatch.chdir(tmp_path / "one")
    metrics = train(cfg)
    (folder,) = (tmp_path / "runs").glob("*/seed*")
    assert inputs.RunFolder(folder).done

    monkeypatch.chdir(tmp_path / "two")
    assert not inputs.RunFolder(folder).done
    with pytest.raises(InputError, match="Give this run a name= of its own, or do it again with overwrite=true"):
        train(cfg)
    monkeypatch.chdir(tmp_path / "copy")
    assert train(cfg) == metrics
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no folder imgs"):
        train(cfg)


def test_a_record_of_an_earlier_release_is_not_compared_and_a_damaged_one_is_one_line(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    metrics = train(command("optim.epochs=1"))
    (file,) = (tmp_path / "runs").glob("*/seed*/inputs.json")
    for text in ("[]", "{", '{"paths": [1]}', '{"paths": {"a": 1}}'):
        file.write_text(text)
        with pytest.raises(InputError, match=r"inputs\.json"):
            train(command("optim.epochs=1"))
    rewrite(tmp_path / "data/train/a/0.bmp")

    file.write_text('{"sets": 3, "drawn": [], "versions": 1, "accepted": 2}')
    assert train(command("optim.epochs=1")) == metrics
    file.unlink()
    assert train(command("optim.epochs=1")) == metrics


def test_two_evaluation_folders_of_one_name_do_not_replace_each_other(
    tiny_run: Callable[..., Any], compose_evaluation: Callable[..., Any], tmp_path: Path
) -> None:
    pictures(tmp_path / "data")
    train(tiny_run(*TINY, f"data.root={tmp_path}/data"))
    (folder,) = (tmp_path / "runs").glob("*/seed*")
    for seed, place in enumerate(("one", "two"), start=5):
        pictures(tmp_path / place / "photos", seed)
    evaluation = [f"run={folder}", "evaluation=folder", "cache_root=null"]
    first = evaluate_run(compose_evaluation(*evaluation, f"evaluation.root={tmp_path}/one/photos/test"))
    again = evaluate_run(compose_evaluation(*evaluation, f"evaluation.root={tmp_path}/one/photos/test"))
    assert first == again

    other = [*evaluation, f"evaluation.root={tmp_path}/two/photos/test"]
    with pytest.raises(InputError, match="has an evaluation test of other images"):
        evaluate_run(compose_evaluation(*other))
    evaluate_run(compose_evaluation(*other, "evaluation.name=two"))
    assert sorted(p.name for p in (folder / "evaluations").glob("*.json")) == ["test.json", "two.json"]


def test_images_that_were_trained_on_are_left_out_of_an_evaluation_of_their_folder(
    tiny_run: Callable[..., Any],
    compose_evaluation: Callable[..., Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = pictures(tmp_path / "data", count=5) / "train"
    train(tiny_run(f"data.root={root}", "data.test=null", "shots=3", "optim.epochs=1", "cache_root=null"))
    (folder,) = (tmp_path / "runs").glob("*/seed*")
    (tmp_path / "link").symlink_to(root)

    cfg = compose_evaluation(
        f"run={folder}", "evaluation=folder", f"evaluation.root={tmp_path}/link", "cache_root=null"
    )
    results = evaluate_run(cfg)

    assert "6 of the 10 images of folder are trained on; they are left out of it" in caplog.text
    assert results["metrics"]["folder/count"] == 4
    assert json.loads((folder / "evaluations/link.json").read_text())["shortened"] == []


def test_images_that_are_trained_on_by_another_name_are_told_in_the_record_and_in_the_report(
    tiny_run: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = pictures(tmp_path / "data")
    shutil.copy(root / "train/a/1.bmp", root / "test/b/again.bmp")

    record = train(tiny_run(f"data.root={root}", *TINY[:2], "shots=3", "optim.epochs=1", "cache_root=null"))

    line = "1 of the 7 images of test are trained on, byte for byte"
    assert record["trained_on"] == [line]
    assert f"{line}: metrics of these are not those of new images" in caplog.text
    (warning,) = (each for each in comparability_warnings(group_runs(read_runs(tmp_path)[0])) if line in each)
    assert warning.endswith("these metrics are not those of new images or classes")


@pytest.mark.parametrize(
    "settings", [("data.train=train", "data.test=train"), ("data.train=null", "data.test=.", "data.root={root}/train")]
)
def test_a_folder_that_is_trained_on_is_not_tested_on_unless_nothing_is_trained(
    settings: tuple[str, ...], tiny_run: Callable[..., Any], tmp_path: Path
) -> None:
    root = pictures(tmp_path / "data")
    given = [f"data.root={root}", *(each.format(root=root) for each in settings), "cache_root=null", "shots=1"]

    with pytest.raises(InputError, match=r"all 6 images to test on, such as .*0\.bmp, are images to train on; name"):
        train(tiny_run(*given))
    assert train(tiny_run(*given, "optim.epochs=0"))["metrics"]["test/count"] == 6
