"""One run, top to bottom: data -> classifier -> adapters -> fit -> evaluate -> record."""

import logging
import shutil
from collections.abc import Mapping
from functools import partial
from typing import Any

from omegaconf import OmegaConf

from kravl.adapters.update_spectra import Diagnosis
from kravl.config.schema import Config
from kravl.evaluation.metrics import IN_DOMAIN
from kravl.evaluation.predict import Predictions
from kravl.evaluation.wise_ft import curve_points
from kravl.run.build import Parts, assemble, plain
from kravl.run.evaluate import Curve, evaluate
from kravl.run.fit import Training, ended_training, ending_well, fit, keep_training, load_training
from kravl.run.restore import mention_unfinished, to_go_on
from kravl.run.results import cost, describe, precisions, scores, write_details
from kravl.runtime.distributed import is_first_process
from kravl.runtime.errors import InputError, unknown
from kravl.runtime.files import write_whole
from kravl.runtime.profiler import Phases
from kravl.tracking.loggers import (
    Identity,
    TrainerLogger,
    close_logger,
    log_artifact,
    log_histograms,
    log_result,
    log_samples,
    log_summary,
    make_logger,
)
from kravl.tracking.run_folder import RunFolder, folder_of, identity, open_run, settings_sha256, without_home
from kravl.training.callbacks import Checkpoints, LearningCurve
from kravl.training.spectrum_monitor import SPECTRA_FILE, SpectrumMonitor, Trace
from kravl.training.trainer import check_settings, limits, make_trainer

log = logging.getLogger(__name__)
SAMPLE_PREDICTIONS = 32


def check_objective(name: str | None, held_out: bool) -> None:
    """Raise InputError where a search would look at the test images."""
    if name is not None and not held_out:
        raise InputError(f"objective={name} would search on the test images; add evaluation=validation")


def objective(name: str | None, metrics: Mapping[str, Any]) -> float | Mapping[str, Any]:
    """The metric ``name`` of a run's record; all of the record where nothing is searched for.

    Raises:
        InputError: the run has no such metric (the nearest is named).
    """
    if name is None or not metrics:  # of several processes the first alone has a record
        return metrics
    found = {key: value for key, value in metrics["metrics"].items() if value is not None}
    if name not in found:
        raise unknown("objective", name, found)
    return found[name]


def train(cfg: Config) -> dict[str, Any]:
    """Adapt a pretrained classifier to a few-shot set, evaluate it in and out of distribution, record the result.

    Raises:
        InputError: what is wrong in ``cfg``.
        SystemExit: 75 where the process was asked to end, else the reason; the same command resumes.
    """
    config = plain(cfg, resolve=False)
    path = folder_of(cfg.runs, cfg.name, cfg.seed, config)
    if cfg.resume is not None:
        path = to_go_on(cfg.resume, config, cfg.force)
    first = is_first_process(plain(cfg.trainer))
    with ending_well(), open_run(path, cfg.overwrite, first) as folder:
        if folder.finished:
            log.info("%s is finished; skipped (overwrite=true runs it again)", folder.path)
            return folder.metrics()
        if first:
            mention_unfinished(path, config)
        return _train(cfg, config, folder, first)


def _train(cfg: Config, config: dict[str, Any], folder: RunFolder, first: bool) -> dict[str, Any]:
    check_settings(cfg.trainer)
    check_objective(cfg.objective, cfg.evaluation.held_out)
    curve_points(cfg.alphas, zero_shot=True)  # a mistake in it is said before the weights are loaded
    bounds = limits(cfg.optim.epochs, cfg.optim.steps, cfg.optim.steps_per_shot, cfg.shots)
    phases, earlier = Phases(), ended_training(folder, config)
    with phases.phase("assemble"):
        parts = assemble(cfg)
    with phases.phase("images"):
        parts.data.check(training=earlier is None)
    if first:
        write_whole(folder.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(without_home(config))))
    who = Identity(cfg.backbone.name, cfg.label, cfg.data.name, cfg.shots, cfg.seed, cfg.study)
    logger = make_logger(cfg.tracking, folder.path, who, identity(config))
    diagnosis = Diagnosis(parts.adapters, cfg.spectrum)
    trace = Trace(folder.path / SPECTRA_FILE)
    monitor = SpectrumMonitor(diagnosis, cfg.spectrum_every, trace, partial(log_histograms, logger))
    # a state has its spectra and its part of the curve
    callbacks = [monitor, LearningCurve(folder.path), Checkpoints(folder.checkpoints, cfg.checkpoint_every)]
    trainer = make_trainer(cfg.trainer, bounds, folder.path, logger, callbacks)

    if earlier is None or not load_training(folder, parts):
        fit(trainer, cfg, parts, folder.checkpoints, phases)
        earlier = Training(settings_sha256(config), str(trainer.precision), dict(phases.costs), monitor.seconds)
        if trainer.is_global_zero:
            keep_training(folder, parts, earlier)
    with phases.phase("evaluate"):
        curve, predictions = evaluate(trainer, parts, cfg.alphas, trained=cfg.optim.epochs != 0)
    if not trainer.is_global_zero:  # every process has the same metrics; one of them keeps the record
        return {}
    measured = cost(earlier.phases | phases.costs, earlier.spectrum_seconds, trainer.strategy.root_device)
    computed = {"precision": precisions(earlier.precision, str(trainer.precision)), "config": identity(config)}
    metrics = describe(cfg, parts, folder) | scores(curve) | computed
    _record(folder, logger, parts, metrics, measured, predictions)
    log.info("%s", folder.path / "metrics.json")
    return metrics


def _record(
    folder: RunFolder,
    logger: TrainerLogger,
    parts: Parts,
    metrics: dict[str, Any],
    measured: dict[str, Any],
    predictions: Curve,
) -> None:
    """Write and log what came out; metrics.json, which says that the run is finished, at the very end."""
    details = write_details(folder.path, metrics["evaluation"], predictions, parts.source.class_names)
    folder.write("cost", measured)
    log_result(logger, metrics, measured, details)
    _track(logger, parts, metrics, predictions[1.0][IN_DOMAIN], folder)
    folder.write("metrics", metrics)
    shutil.rmtree(folder.checkpoints, ignore_errors=True)


def _track(
    logger: TrainerLogger, parts: Parts, metrics: dict[str, Any], predictions: Predictions, folder: RunFolder
) -> None:
    names, images = parts.source.class_names, parts.data.test_samples
    rows = predictions.sample(SAMPLE_PREDICTIONS) if logger else []
    log_samples(logger, "test", [(images.image(i), names[label], names[said], p) for i, label, said, p in rows])
    zero_shot = {f"zero_shot/{key}": value for key, value in (metrics["zero_shot"] or {}).items()}
    size = {key: metrics[key] for key in ("trainable_parameters", "adapter_bytes")}
    log_summary(logger, metrics["metrics"] | zero_shot | size)
    log_artifact(logger, folder.adapter)
    close_logger(logger)
