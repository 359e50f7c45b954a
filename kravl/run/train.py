"""One run, top to bottom: build, fit, evaluate, record."""

import logging
import shutil
from collections.abc import Mapping
from functools import partial
from typing import Any

from kravl.adapters.update_spectra import Diagnosis
from kravl.backbones.structure.presets import listed_sites
from kravl.config.compose import as_written, typed
from kravl.config.schema import Config, Evaluation
from kravl.data.datamodule import FewShotDataModule
from kravl.evaluation.metrics import IN_DOMAIN, metric_names
from kravl.evaluation.wise_ft import ADAPTED, curve_points
from kravl.run.build import (
    Run,
    build_run,
    check_frozen_dtype,
    check_l2_sp,
    check_trains,
    make_data,
    require_classes,
    training_amount,
)
from kravl.run.context import check_curve, context_of
from kravl.run.evaluate import Curve, ZeroShot, evaluate
from kravl.run.finished.card import adapter_files
from kravl.run.finished.continued import check_init
from kravl.run.finished.model_record import NAME as MODEL
from kravl.run.finished.model_record import model_record
from kravl.run.fit import Training, ended_training, fit, graceful_exit, keep_training, load_training
from kravl.run.heads.checks import check_head_settings
from kravl.run.inputs import Inputs, accepted_changes, check_finished
from kravl.run.placement import check_sites
from kravl.run.results import cost, describe, precisions, scores, unevaluated, write_details
from kravl.run.sources import Sources, list_sources
from kravl.run.stages.plan import by_epochs, check_shares, check_stages, check_warmup, stages_of
from kravl.runtime.distributed import is_first_process
from kravl.runtime.errors import InputError, unknown
from kravl.runtime.profiler import Profiler
from kravl.tracking.kinds import kinds_of
from kravl.tracking.loggers import (
    RunLabels,
    Trackers,
    make_trackers,
)
from kravl.tracking.records import record_of
from kravl.tracking.run_folder import (
    ZERO_SHOT,
    RunFolder,
    folder_of,
    open_run,
    resumable_folder,
    warn_unfinished,
)
from kravl.tracking.settings import CELL, cell_of, with_init_digest
from kravl.training.callbacks import Checkpoints, LearningCurve
from kravl.training.frozen_state import FrozenState
from kravl.training.loss import check_loss
from kravl.training.spectrum_monitor import SPECTRA_FILE, SpectrumMonitor, Trace
from kravl.training.trainer import check_trainer, limits, make_trainer

log = logging.getLogger(__name__)
SAMPLE_PREDICTIONS = 32


def train(config: Any, sources: Sources | None = None) -> dict[str, Any]:
    """Adapt a pretrained classifier to a few-shot set, evaluate it in and out of distribution, record the result.

    Args:
        config: a composed `kravl.config.schema.Config`.
        sources: what `list_sources` has found for it, where it was asked before.

    Raises:
        InputError: what is wrong in it.
        SystemExit: 75 where the process was asked to end, else the reason; the same command resumes.
    """
    cfg = typed(config)
    check(cfg)
    settings = with_init_digest(as_written(config))
    if cfg.resume is None:
        path = folder_of(cfg.runs, cfg.name, cfg.seed, settings)
    else:
        path = resumable_folder(cfg.resume, settings, cfg.force)
    with graceful_exit(), open_run(path, settings, cfg.overwrite, is_first_process(cfg.trainer)) as folder:
        if folder.finished and (reasons := folder.shortened):
            log.info("%s is finished but shortened (%s); run again", folder.path, "; ".join(reasons))
            folder.restart()
        elif folder.finished:
            record = record_of(folder)
            check_finished(cfg, folder, sources)
            log.info("%s is finished; skipped (overwrite=true runs it again)", folder.path)
            return record
        if folder.owned:
            warn_unfinished(folder)
        return _train(cfg, folder, sources)


def check(cfg: Config) -> None:
    """Raise InputError for every mistake that shows without images or weights."""
    check_trainer(cfg.trainer)
    kinds_of(cfg.tracking)
    check_objective(cfg.objective, cfg.evaluation)
    if cfg.label == ZERO_SHOT:
        raise InputError(f"label={ZERO_SHOT} is what reports call the untrained model; choose another label")
    curve_points(cfg.alphas, zero_shot=True)
    limits(cfg.optim.epochs, cfg.optim.steps, cfg.optim.steps_per_shot, cfg.shots)
    training_amount(cfg)
    check_stages(cfg)
    context_of(cfg)
    check_curve(cfg, cfg.alphas)
    check_loss(cfg.optim.label_smoothing, cfg.optim.class_weights)
    check_head_settings(cfg)
    check_init(cfg)
    check_trains(cfg)
    check_sites(cfg)
    check_l2_sp(cfg)
    check_frozen_dtype(cfg)
    if cfg.train_statistics and cfg.checkpointing:
        raise InputError("train_statistics=true with checkpointing=true: blocks computed again count a batch twice")


def _train(cfg: Config, folder: RunFolder, sources: Sources | None) -> dict[str, Any]:
    profiler, training = Profiler(), ended_training(folder)
    with profiler("assemble"):
        run = _assembled(cfg, _after_warmup_check(cfg, folder, sources))
    log.info("sites: %s", listed_sites(run.sites))
    with profiler("images"):
        inputs = Inputs(cfg, run.data)
        accepted = accepted_changes(inputs, run, folder, training is not None, cfg.force)  # before minutes of decoding
        run.data.check(training=training is None)
        folder.begin({**inputs.record(run), "accepted": accepted} if folder.owned else {})
    labels = RunLabels(cfg.backbone.name, cfg.label, cfg.data.name, cfg.shots, cfg.seed, cfg.study)
    told = {**folder.recorded_settings, CELL: cell_of(cfg.label, folder.settings)}
    trackers = make_trackers(cfg.tracking, folder.path, labels, told)
    spectra = Diagnosis(run.adapters, cfg.spectrum), cfg.spectrum_every, Trace(folder.path / SPECTRA_FILE)
    monitor = SpectrumMonitor(*spectra, trackers.histograms, cfg.track_sites)
    # checkpoints last: the spectra and the learning curve of a saved step are recorded already
    checkpoints = Checkpoints(folder.checkpoints, cfg.checkpoint_every)
    callbacks = [FrozenState(), monitor, LearningCurve(folder.path), checkpoints]
    make = partial(make_trainer, cfg.trainer, folder=folder.path, logger=trackers.loggers, callbacks=callbacks)
    trainer = make(stages_of(cfg)[0].length)
    if training is None or not load_training(folder, run, trainer):
        fitted = fit(trainer, make, cfg, run, folder.checkpoints, profiler)
        trainer, training = fitted.trainer, Training.of(folder, fitted, profiler, monitor.seconds)
        if trainer.is_global_zero:
            keep_training(folder, run, training)
    if (head := run.classifier.feature_head) is not None:
        head.choose(training.selected)
    with profiler("evaluate"):
        curve, predictions = evaluate(trainer, run, cfg.alphas, cfg.optim.trains, ZeroShot(cfg, trainer, run))
    if not trainer.is_global_zero:  # every process has the same metrics; one of them keeps the record
        return {}
    measured = cost(training.phases | profiler.costs, training.spectrum_seconds, trainer.strategy.root_device)
    precision = precisions(training.precision, str(trainer.precision))
    made = {"precision": precision, "shortened": [*training.shortened, *unevaluated(run, predictions)]}
    metrics = describe(cfg, run, folder) | scores(curve) | made | {"config": folder.recorded_settings}
    if metrics["shortened"]:
        log.warning("this run is shortened, which its record says: %s", "; ".join(metrics["shortened"]))
    _record(folder, trackers, run, metrics, measured, predictions)
    log.info("%s", folder.path / "metrics.json")
    return metrics


def _assembled(cfg: Config, known: Sources | FewShotDataModule | None) -> Run:
    run = build_run(cfg, known)
    check_shares(cfg, len(run.data.train_samples), {name: len(each) for name, each in run.data.evaluated.items()})
    return run


def _after_warmup_check(cfg: Config, folder: RunFolder, sources: Sources | None) -> Sources | FewShotDataModule | None:
    """``sources``, or the images where they had to be drawn. Raises InputError for a warm-up longer than the run."""
    if folder.begun:  # by a release that took any
        return sources
    if not cfg.optim.warmup_steps or not by_epochs(cfg):
        check_warmup(cfg)
        return sources
    sources = sources or list_sources(cfg)
    require_classes(cfg, sources.training)
    data = make_data(cfg, sources)
    check_warmup(cfg, len(data.train_samples))
    return data


def _record(
    folder: RunFolder,
    trackers: Trackers,
    run: Run,
    metrics: dict[str, Any],
    measured: dict[str, Any],
    predictions: Curve,
) -> None:
    """Write and log what came out; metrics.json, which says that the run is finished, at the very end."""
    names, images = run.source.class_names, run.data.test_samples
    details = write_details(folder.path, metrics["evaluation"], predictions, names, images.names)
    folder.write("cost", measured)
    folder.write(MODEL, model_record(run, folder).as_json())
    trackers.result(metrics, measured, details)
    if trackers.each:
        rows = predictions[ADAPTED][IN_DOMAIN].sample(SAMPLE_PREDICTIONS)
        trackers.samples(IN_DOMAIN, [(images.image(i), names[label], names[said], p) for i, label, said, p in rows])
        trackers.adapter(adapter_files(run, folder, metrics), {"cell": metrics["cell"], **metrics["metrics"]})
    trackers.close()
    folder.write("metrics", metrics)
    shutil.rmtree(folder.checkpoints, ignore_errors=True)


def check_objective(name: str | None, evaluation: Evaluation) -> None:
    """Raise InputError where a search would look at the test images, or for what is not measured."""
    if name is None:
        return
    if not evaluation.held_out:
        raise InputError(f"objective={name} would search on the test images; add evaluation=validation")
    if name not in (measured := metric_names(evaluation.sets)):
        raise unknown("objective", name, measured)


def objective(name: str | None, metrics: Mapping[str, Any]) -> float | Mapping[str, Any]:
    """The metric ``name`` of a run's record; all of the record where nothing is searched for.

    Raises:
        InputError: the run has no such metric: its set was left out.
    """
    if name is None or not metrics:  # of several processes the first alone has a record
        return metrics
    measured = {key: value for key, value in metrics["metrics"].items() if value is not None}
    if name not in measured:
        raise unknown("objective", name, measured)
    return measured[name]
