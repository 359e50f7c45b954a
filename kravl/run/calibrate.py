"""The calibration of a finished run: a temperature fitted on the validation images that its protocol drew."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kravl.config.schema import Config
from kravl.data.datamodule import FewShotDataModule
from kravl.data.inspect.fingerprint import MAX_DRAWN, trained_contents
from kravl.evaluation.temperature import fit_temperature, nll_and_ece
from kravl.run.build import make_data
from kravl.run.finished.calibration import NAME, Calibration, adapter_sha256
from kravl.run.finished.restore import LoadedRun, load_run
from kravl.run.finished.saved import saved_config
from kravl.run.fit import graceful_exit
from kravl.run.prediction.scorer import Scorer
from kravl.run.sources import Sources, training_source
from kravl.runtime.errors import InputError
from kravl.runtime.files import require_writable
from kravl.runtime.signals import raise_if_stopped
from kravl.tracking.run_folder import RunFolder, find_run

log = logging.getLogger(__name__)


def calibrate(
    run: str | Path | RunFolder,
    *,
    data_root: str | None = None,
    plugins: Sequence[str] = (),
    device: str | torch.device = "cpu",
    force: bool = False,
) -> Calibration:
    """Fit the temperature of a finished run's adapted model and write calibration.json to its folder.

    Args:
        run: its folder, which may omit the hash at its end.
        data_root: where its data is; None: where the run had it.
        plugins: packages besides kravl that its classes may come from.
        force: replace an earlier calibration.

    Raises:
        InputError: no such run, one that is calibrated, a folder that cannot be written, data that are not those of the
            run, no validation images or such as are tested on, or no temperature that is the best of all.
    """
    folder = run if isinstance(run, RunFolder) else find_run(str(run))
    check_uncalibrated(folder, force)
    cfg = saved_config(folder, {**({} if data_root is None else {"data_root": data_root}), "plugins": list(plugins)})
    cfg.evaluation = replace(cfg.evaluation, sets={}, held_out=False)  # its test images are those of the set
    data = make_data(cfg, Sources(training_source(cfg), {}))
    _check_data(cfg, folder, data)
    loaded = load_run(folder, data_root=data_root, plugins=plugins, device=device, calibrated=False)
    if loaded.record.class_ids != data.source.class_ids:
        raise _other_data(folder, "classes")
    with graceful_exit():
        logits, labels = _logits(loaded, data)
    temperature = fit_temperature(logits, labels)
    nll, ece = zip(nll_and_ece(logits, labels), nll_and_ece(logits, labels, temperature), strict=True)
    images, adapter = (len(labels), data.val_samples.sha256()), adapter_sha256(folder)
    found = Calibration(temperature, *images, nll, ece, adapter, _about(cfg, folder, logits, labels))
    found.write(folder)
    return found


def check_uncalibrated(folder: RunFolder, force: bool) -> None:
    """Raise InputError where there is a calibration, unless ``force``, or none can be written."""
    if (path := folder.path / f"{NAME}.json").is_file() and not force:
        raise InputError(f"{path} is there already; --force fits the temperature anew")
    require_writable(path, "the temperature of a run is kept in its folder; copy the run to another one")


def _check_data(cfg: Config, folder: RunFolder, data: FewShotDataModule) -> None:
    """Hold the images against those of the run, and the validation images against what is tested on."""
    if data.split_sha256 != folder.metrics().get("split_sha256"):
        raise _other_data(folder, "images")
    if not len(data.val_samples):
        raise InputError(
            f"a temperature is fitted on validation images, of which {cfg.data.name} under split_protocol="
            f"{cfg.split_protocol} has none, and never on test images: train with split_protocol=coop where the set "
            "has validation images (of a folder: data.val=FOLDER), with cliplora where it has none"
        )
    if tested := data.tested_validation():
        raise InputError(
            f"{cfg.data.name} is tested on its validation images, {tested} of those that were drawn, and a temperature "
            "is never fitted on test images; give it test images of its own"
        )
    most = math.inf if cfg.check_contents else MAX_DRAWN
    for line in trained_contents(data.val_samples, data.evaluated, most, "validation images"):
        raise InputError(f"{line}: a temperature is never fitted on test images")


def _other_data(folder: RunFolder, what: str) -> InputError:
    return InputError(f"the {what} of {folder.path} are not those that it was trained on; --data-root FOLDER has them")


def _logits(loaded: LoadedRun, data: FewShotDataModule) -> tuple[Tensor, Tensor]:
    """Of the validation images: logits (n, C) of the adapted model, and labels (n,)."""
    data.preprocess = loaded.classifier.preprocess
    scorer, rows = Scorer.of_run(loaded), []
    for images, labels, _ in data.validation():
        raise_if_stopped()
        rows.append((scorer(images), labels))
    logits, labels = (torch.cat(columns) for columns in zip(*rows, strict=True))
    if not logits.isfinite().all():
        raise InputError(f"the logits of {int((~logits.isfinite()).any(dim=1).sum())} validation images are not finite")
    return logits, labels


def _about(cfg: Config, folder: RunFolder, logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """What the temperature was fitted on, and what had been chosen on the same images before."""
    return {
        "dataset": cfg.data.name,
        "split_protocol": cfg.split_protocol,
        "split_seed": cfg.split_seed,
        "split_sha256": folder.metrics().get("split_sha256"),
        "classes": logits.shape[1],
        "correct": int((logits.argmax(dim=1) == labels).sum()),
        "selected_on": cfg.tune != "none",
    }
