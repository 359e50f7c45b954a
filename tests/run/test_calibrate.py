"""A temperature: the best of the likelihood, fitted on validation images alone, used wherever probabilities are."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kravl import FewShotModel
from kravl.cli.main import main
from kravl.demo.comparison import Comparison
from kravl.evaluation.temperature import fit_temperature, nll_and_ece
from kravl.run.finished.restore import load_run
from kravl.run.prediction.scorer import Scorer
from kravl.run.train import train
from kravl.runtime.errors import InputError
from kravl.tracking.run_folder import RunFolder

VALIDATION = ("split_protocol=coop", "data.val=../serif")


def test_the_temperature_of_two_classes_is_the_one_in_closed_form():
    """All logits (a, 0) with a share q of class 0: sigmoid(a / T) = q has the largest likelihood."""
    a, right, count = 9.0, 15, 20
    logits, labels = torch.tensor([[a, 0.0]] * count), torch.tensor([0] * right + [1] * (count - right))

    temperature = fit_temperature(logits, labels)

    share = right / count
    assert temperature == pytest.approx(a / log(share / (1 - share)), rel=1e-4)
    nll, ece = nll_and_ece(logits, labels, temperature)
    assert nll == pytest.approx(-share * log(share) - (1 - share) * log(1 - share), rel=1e-6)
    assert ece == pytest.approx(0, abs=1e-6)
    assert nll_and_ece(logits, labels)[0] > nll


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 0], "all 2 validation images are classified correctly"), ([1, 1], "the logits say nothing of the classes")],
)
def test_logits_without_a_best_temperature_are_refused(labels, message):
    with pytest.raises(InputError, match=message):
        fit_temperature(torch.tensor([[3.0, 0.0]] * 2), torch.tensor(labels))


@pytest.fixture
def calibrated(tiny_run: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The folder of a small ViT that has been calibrated by the command."""
    train(tiny_run(*VALIDATION))
    (run,) = (tmp_path / "runs").glob("*/*")
    assert main(["calibrate", str(run)]) == 0
    assert "fitted on 16 validation images: NLL" in capsys.readouterr().out
    return run


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_probabilities_are_of_the_divided_logits_wherever_they_are_given(calibrated, glyphs, capsys):
    record = json.loads((calibrated / "calibration.json").read_text())
    files = sorted(map(str, (glyphs / "glyphs/test").rglob("*.png")))
    scorer = Scorer.of_run(load_run(calibrated))
    logits = torch.stack([one.logits for batch in scorer.files(files, 64) for one in batch])
    expected = (logits / record["temperature"]).softmax(dim=1)

    model = FewShotModel.load(calibrated)
    assert np.allclose(model.predict_proba(files), expected, atol=1e-5)  # in batches of another size
    page = Comparison(RunFolder(calibrated))
    assert f"calibrated: temperature {record['temperature']:.4f}" in page.described()["model"]
    shown = [page.score(Path(file).read_bytes(), file, 1.0)["adapted"]["probabilities"][0] for file in files[:3]]
    assert shown == pytest.approx(expected.amax(1)[:3].tolist(), abs=1e-5)
    assert main(["predict", str(calibrated), *files, "--top", "1"]) == 0
    out, err = capsys.readouterr()
    assert f"calibrated: temperature {record['temperature']:.4f}" in err
    assert [float(row["probability_1"]) for row in rows(out)] == pytest.approx(expected.amax(1).tolist(), abs=1e-5)
    assert main(["predict", str(calibrated), *files, "--top", "1", "--uncalibrated"]) == 0
    plain, err = capsys.readouterr()
    assert err == ""
    assert [float(row["probability_1"]) for row in rows(plain)] == pytest.approx(
        logits.softmax(1).amax(1).tolist(), abs=1e-5
    )
    for one, other in zip(rows(out), rows(plain), strict=True):
        assert (one["class_1"], one["energy"]) == (other["class_1"], other["energy"])
    assert main(["predict", str(calibrated), *files, "--alpha", "0.5"]) == 0
    assert "not calibrated: the temperature of the run is of its adapted model" in capsys.readouterr().err


def test_the_record_says_what_it_was_fitted_on(calibrated, capsys):
    record, metrics = (json.loads((calibrated / name).read_text()) for name in ("calibration.json", "metrics.json"))
    assert record["nll"]["after"] < record["nll"]["before"]
    assert record["about"]["split_sha256"] == metrics["split_sha256"]
    assert (record["images"], record["about"]["classes"], record["about"]["selected_on"]) == (16, 4, False)
    before = (calibrated / "calibration.json").read_bytes()

    assert main(["calibrate", str(calibrated)]) == 2
    assert "is there already; --force fits the temperature anew" in capsys.readouterr().err
    assert main(["calibrate", str(calibrated), "--force"]) == 0
    assert (calibrated / "calibration.json").read_bytes() == before
    model = FewShotModel.load(calibrated)
    assert model.calibrate(force=True)["nll_after"] == record["nll"]["after"]


def test_a_calibration_that_does_not_fit_the_run_is_refused_and_written_anew(calibrated, glyphs, tmp_path, capsys):
    image, kept = (
        str(next((glyphs / "glyphs/test/A").iterdir())),
        json.loads((calibrated / "calibration.json").read_text()),
    )
    temperatures = ({"temperature": value} for value in (0, "1", 1e-300, 1e11))  # logits / 1e-300 are no numbers
    for change in (*temperatures, {"adapter": "x"}, {"nll": 3}, {"images": True}):
        (calibrated / "calibration.json").write_text(json.dumps({**kept, **change}))
        assert main(["predict", str(calibrated), image]) == 2
        error = capsys.readouterr().err
        assert "--force writes it anew" in error and error.count("\n") == 1
    (calibrated / "calibration.json").write_text('{"temperature": ')
    assert main(["predict", str(calibrated), image]) == 2
    error = capsys.readouterr().err
    assert f"kravl calibrate {calibrated} --force writes it anew" in error and error.count("\n") == 1
    assert main(["calibrate", str(calibrated), "--force"]) == 0
    assert json.loads((calibrated / "calibration.json").read_text()) == kept


def test_test_images_and_images_of_another_set_are_never_fitted_on(tiny_run, glyphs, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    for name in ("train", "test", "serif"):
        shutil.copytree(glyphs / "glyphs" / name, tmp_path / "data/glyphs" / name)
    images = tmp_path / "data/glyphs"
    of_copy = f"data_root={tmp_path / 'data'}"
    mistakes = {
        "none": ([], "of which folder under split_protocol=official has none"),
        "tested": (["split_protocol=coop", "data.val=../test"], "is tested on its validation images, 16 of those"),
        "copied": ([*VALIDATION], "1 of the 20 images of test are validation images, byte for byte"),
        "other": ([*VALIDATION], "the images of"),
    }
    for name, (settings, message) in mistakes.items():
        train(tiny_run(*settings, of_copy, f"runs={tmp_path / name}"))
        (run,) = (tmp_path / name).glob("*/*")
        if name == "copied":
            for file in (images / "serif/B").iterdir():
                shutil.copy(images / "test/B/0.png", file)
        if name == "other":
            (images / "train/A/0.png").rename(images / "train/A/zero.png")
        assert main(["calibrate", str(run)]) == 2, name
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, name
        assert not (run / "calibration.json").exists()
