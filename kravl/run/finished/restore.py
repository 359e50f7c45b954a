"""A finished run's model again, from the config, the adapter and the record of the model in its folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kravl.adapters.injection.adapter_set import AdapterSet
from kravl.adapters.injection.serialization import load_adapters, read_description
from kravl.backbones.classifier import Classifier
from kravl.config.schema import Config
from kravl.data.datamodule import FewShotDataModule
from kravl.run.build import Model, Run, build_model, build_run
from kravl.run.finished.calibration import Calibration, read_calibration
from kravl.run.finished.model_record import ModelRecord, Prompts, read_model_record
from kravl.run.finished.saved import saved_config
from kravl.run.inputs import pretrained_sha256
from kravl.run.sources import Sources, training_source
from kravl.runtime.dtypes import TRUE
from kravl.runtime.errors import InputError
from kravl.tracking.run_folder import RunFolder, find_run


def restore(cfg: Config, folder: RunFolder, known: Sources | FewShotDataModule | None = None) -> Run:
    """The model and data of a finished run, with what it trained in place, in the precision of its weights.

    Args:
        known: as `build_run`.

    Raises:
        InputError: as `build_run` and `load_adapters`.
    """
    read_description(folder.adapter)  # it is there and whole
    run = build_run(cfg, known)
    if dtype := TRUE.get(str(cfg.trainer.get("precision"))):  # first: what was trained in double would be rounded
        run.classifier.to(dtype)
    load_adapters(run.adapters, folder.adapter, run.fingerprint)
    return run


@dataclass(frozen=True)
class LoadedRun:
    """The model of a finished run, with what it trained in place and not merged, in evaluation mode.

    ``adapters.merge(alpha)`` gives the weights of a point of the WiSE-FT curve: 1 the adapted model, 0 the pretrained.
    ``calibration`` is of the adapted model; None where none was fitted, or it was not asked for.
    """

    folder: RunFolder
    cfg: Config
    record: ModelRecord
    classifier: Classifier
    adapters: AdapterSet
    calibration: Calibration | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the columns of the logits are called."""
        return self.record.class_names

    def temperature(self, alpha: float = 1.0) -> float:
        """What logits at ``alpha`` of the update are divided by before the softmax: 1 where none was fitted for it."""
        return self.calibration.temperature if self.calibration and alpha == 1 else 1.0


def load_run(
    run: str | Path | RunFolder,
    *,
    data_root: str | None = None,
    plugins: Sequence[str] = (),
    device: str | torch.device = "cpu",
    calibrated: bool = True,
) -> LoadedRun:
    """The model of a finished run, from its folder alone: no image and no data set is needed.

    A run of a release that kept no model.json is loaded where its data set is, which says what its classes are.

    Args:
        run: its folder, which may omit the hash at its end.
        data_root: where the data of such an earlier run is; None: where the run had it.
        plugins: packages besides kravl that its classes may come from.
        calibrated: read its temperature, where one was fitted.

    Raises:
        InputError: no such run, one that is not finished, a damaged file, other pretrained weights than it was trained
            on, or an earlier run whose data set is not there.
    """
    folder = run if isinstance(run, RunFolder) else find_run(str(run))
    root = {} if data_root is None else {"data_root": data_root}
    cfg = saved_config(folder, {**root, "plugins": list(plugins)})
    read_description(folder.adapter)  # it is there and whole
    known, calibration = read_model_record(folder), read_calibration(folder) if calibrated else None
    ids, classes = (known.class_ids, (known.class_names, known.prompts)) if known else _classes_of_data(cfg, folder)
    with torch.random.fork_rng(devices=[]):  # a new head is drawn and replaced: the caller's numbers stay
        model = build_model(cfg, classes, num_images=known.num_images if known else 0)
    if known and known.weights_sha256:
        _check_weights(model, known.weights_sha256, folder)
    if dtype := TRUE.get(str(cfg.trainer.get("precision"))):  # first: what was trained in double would be rounded
        model.classifier.to(dtype)
    load_adapters(model.adapters, folder.adapter, model.fingerprint(ids))
    model.classifier.to(device).eval()
    record = known or _record(model, ids, classes)
    return LoadedRun(folder, cfg, record, model.classifier, model.adapters, calibration)


def scored_classes(folder: RunFolder, cfg: Config) -> tuple[tuple[str, ...], Prompts]:
    """Names and prompts of the classes that the run of ``cfg`` scores, by model.json; else, as `load_run`, by its data.

    Raises:
        InputError: as `load_run`.
    """
    known = read_model_record(folder)
    return (known.class_names, known.prompts) if known else _classes_of_data(cfg, folder)[1]


def _check_weights(model: Model, trained_on: str, folder: RunFolder) -> None:
    if (weights := pretrained_sha256(model)) != trained_on:
        raise InputError(
            f"{folder.path} was trained on other weights than its backbone has here: sha256 {trained_on[:12]}, "
            f"not {weights[:12]}"
        )


def _record(model: Model, ids: tuple[str, ...], classes: tuple[tuple[str, ...], Any]) -> ModelRecord:
    """The record that a run of an earlier release lacks."""
    names = tuple(model.adapters.adapters), tuple(model.adapters.unfrozen)
    return ModelRecord(ids, *classes, model.classifier.provenance(), None, *names)


def _classes_of_data(cfg: Config, folder: RunFolder) -> tuple[tuple[str, ...], tuple[tuple[str, ...], Any]]:
    """Ids, names and prompts from the data set of a run of an earlier release."""
    try:
        source = training_source(cfg)
    except InputError as error:
        raise InputError(
            f"{folder.path} was written before runs kept their classes (model.json), and its data set is not here: "
            f"{error}; data_root=FOLDER says where it is"
        ) from error
    return source.class_ids, (source.class_names, source.prompts)
