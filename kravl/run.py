"""One run, top to bottom: data -> classifier -> adapters -> fit -> evaluate -> record."""

import logging
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from omegaconf import OmegaConf
from pytorch_lightning import Trainer
from pytorch_lightning.utilities.exceptions import SIGTERMException
from rich.console import Console

from kravl.adapters.store import load_adapters, save_adapters
from kravl.assemble import Parts, assemble
from kravl.checkpoint import latest
from kravl.config import Config, EvaluateConfig
from kravl.diagnostics import SpectrumMonitor
from kravl.errors import InputError
from kravl.evaluation import Results, comparison_table, score, summary
from kravl.learner import Learner, OptimSettings
from kravl.predictions import Predictions, predict
from kravl.record import RunFolder, find_run, identity, open_run, provenance, write_whole
from kravl.tracking import Identity, TrainerLogger, close_logger, log_artifact, log_samples, log_summary, make_logger
from kravl.trainer import Checkpoints, make_trainer

log = logging.getLogger(__name__)
SAMPLE_PREDICTIONS = 32
EXIT_RESUMABLE = 75  # EX_TEMPFAIL: the same command goes on where this one stopped


def train(cfg: Config) -> dict[str, Any]:
    """Adapt a pretrained classifier to a few-shot set, evaluate it in and out of distribution, record the result."""
    config = OmegaConf.to_container(cfg, resolve=False)
    folder = open_run(cfg.runs, cfg.name, cfg.seed, config, cfg.overwrite)
    if folder.finished:
        log.info("%s is finished; skipped (overwrite=true runs it again)", folder.path)
        return folder.metrics()
    parts = assemble(cfg)
    parts.data.check()
    write_whole(folder.path / "config.yaml", OmegaConf.to_yaml(cfg))
    who = Identity(cfg.backbone.name, cfg.method, cfg.data.name, cfg.shots, cfg.seed)
    logger = make_logger(cfg.tracking, folder.path, who, identity(config))
    monitor = SpectrumMonitor(parts.adapters.statistics, cfg.spectrum_every)
    callbacks = [Checkpoints(folder.checkpoints, cfg.checkpoint_every), monitor]
    trainer = make_trainer(cfg.trainer, _limits(cfg), folder.path, logger, callbacks)

    begin = time.perf_counter()
    fit(trainer, cfg, parts, folder)
    save_adapters(parts.adapters, folder.adapter)
    trained = time.perf_counter()
    curve, sample = evaluate(trainer, parts, [0.0, 1.0] if parts.classifier.zero_shot else [1.0])
    cost = {"train_seconds": trained - begin, "evaluation_seconds": time.perf_counter() - trained}
    folder.write("cost", cost | {"peak_memory_bytes": _peak_memory(), "device": trainer.strategy.root_device.type})

    metrics = _describe(cfg, parts, folder) | _results(curve) | {"config": identity(config)}
    _track(logger, parts, metrics, sample, folder)
    folder.write("metrics", metrics)
    shutil.rmtree(folder.checkpoints, ignore_errors=True)
    log.info("%s", folder.path / "metrics.json")
    return metrics


def _track(
    logger: TrainerLogger, parts: Parts, metrics: dict[str, Any], predictions: Predictions, folder: RunFolder
) -> None:
    names, images = parts.source.class_names, parts.data.evaluation_loaders()["test"].dataset.samples
    rows = predictions.sample(SAMPLE_PREDICTIONS)
    log_samples(logger, "test", [(images.image(i), names[label], names[said], p) for i, label, said, p in rows])
    size = {key: metrics[key] for key in ("trainable_parameters", "adapter_bytes")}
    log_summary(
        logger, metrics["metrics"] | {f"zero_shot/{k}": v for k, v in (metrics["zero_shot"] or {}).items()} | size
    )
    log_artifact(logger, folder.adapter)
    close_logger(logger)


def fit(trainer: Trainer, cfg: Config, parts: Parts, folder: RunFolder) -> None:
    """Train from the newest whole checkpoint of the run, or from the start."""
    if cfg.optim.epochs == 0:
        return
    optim = cfg.optim
    settings = OptimSettings(optim.lr, optim.head_lr, optim.weight_decay, optim.warmup_steps, optim.min_lr_ratio)
    learner = Learner(parts.classifier, settings, cfg.seed)
    if not learner.trainable():
        raise InputError("nothing to train: sites is null and unfreeze is empty; optim.epochs=0 evaluates as it is")
    resumed = latest(folder.checkpoints)
    if resumed:
        log.info("going on from %s", resumed)
    try:
        trainer.fit(learner, parts.data, ckpt_path=resumed)
    except SIGTERMException:
        log.warning("stopped by SIGTERM; the same command goes on from step %d", trainer.global_step)
        sys.exit(EXIT_RESUMABLE)


def evaluate(
    trainer: Trainer, parts: Parts, alphas: Sequence[float]
) -> tuple[list[tuple[float, Results]], Predictions]:
    """Metrics of every set with merged weights, for each alpha from the pretrained (0) to the adapted model (1)."""
    loaders, classes = parts.data.evaluation_loaders(), parts.data.evaluation_classes()
    curve: list[tuple[float, Results]] = []
    for alpha in alphas:
        parts.adapters.merge(alpha)
        try:
            predictions = predict(trainer, parts.classifier, loaders, classes)
        finally:
            parts.adapters.unmerge()
        curve.append((alpha, {name: score(rows) for name, rows in predictions.items()}))
    ends = dict(curve)
    Console().print(comparison_table(ends.get(0.0), ends[1.0]))
    return curve, predictions["test"]


def evaluate_run(cfg: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a finished run on the sets of ``cfg.evaluation``; writes ``evaluations/<name>.json`` in its folder."""
    folder = find_run(cfg.run)
    saved = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(folder.path / "config.yaml"))
    saved.evaluation, saved.trainer, saved.loading, saved.plugins = (
        cfg.evaluation,
        cfg.trainer,
        cfg.loading,
        cfg.plugins,
    )
    if cfg.data_root is not None:
        saved.data_root = cfg.data_root
    if cfg.alphas < 2:
        raise InputError(f"alphas={cfg.alphas}; the curve has at least its two ends")
    parts = assemble(saved)
    load_adapters(parts.adapters, folder.adapter)
    parts.data.check()
    trainer = make_trainer(cfg.trainer, {}, folder.path, logger=False)
    first = 0 if parts.classifier.zero_shot else 1
    curve, _ = evaluate(trainer, parts, [i / (cfg.alphas - 1) for i in range(first, cfg.alphas)])
    results = _results(curve) | {"evaluation": cfg.evaluation.name, **provenance()}
    (folder.path / "evaluations").mkdir(exist_ok=True)
    folder.write(f"evaluations/{cfg.evaluation.name}", results)
    return results


def _limits(cfg: Config) -> dict[str, Any]:
    optim = cfg.optim
    steps = optim.steps
    if steps is None and optim.steps_per_shot is not None:
        if cfg.shots is None:
            raise InputError("optim.steps_per_shot needs shots; give optim.steps with shots=null")
        steps = optim.steps_per_shot * cfg.shots
    if steps is None and optim.epochs is None:
        raise InputError("give optim.epochs or optim.steps")
    return {"max_epochs": optim.epochs} if steps is None else {"max_steps": steps, "max_epochs": -1}


def _identity(cfg: Config) -> dict[str, Any]:
    """What a reader of the tables tells runs apart by."""
    return {
        "name": cfg.name,
        "backbone": cfg.backbone.name,
        "method": cfg.method,
        "dataset": cfg.data.name,
        "evaluation": cfg.evaluation.name,
        "shots": cfg.shots,
        "seed": cfg.seed,
    }


def _describe(cfg: Config, parts: Parts, folder: RunFolder) -> dict[str, Any]:
    adapters = parts.adapters
    spectra = {site: values["effective_rank"] for site, values in adapters.statistics().items()}
    mean = {"mean": sum(spectra.values()) / len(spectra)} if spectra else {}
    return {
        "schema": 1,
        **_identity(cfg),
        "adapter": adapters.description()["method"],
        "split_seed": cfg.split_seed,
        "split_protocol": cfg.split_protocol,
        "split_sha256": parts.data.split_sha256,
        "templates": list(parts.source.templates),
        "classifier": parts.classifier.provenance(),
        "trainable_parameters": adapters.num_trainable(),
        "adapter_bytes": folder.adapter.stat().st_size,
        "effective_rank": mean | spectra,
        **provenance(),
    }


def _results(curve: Sequence[tuple[float, Results]]) -> dict[str, Any]:
    """The adapted model's metrics, zero-shot's (None without a zero-shot model) and the points between."""
    flat = {alpha: _flat(results) for alpha, results in curve}
    between = [{"alpha": alpha, **metrics} for alpha, metrics in flat.items() if 0 < alpha < 1]
    return {"metrics": flat[1.0], "zero_shot": flat.get(0.0), "wise_ft": between}


def _flat(results: Results) -> dict[str, float | None]:
    metrics = {f"{name}/{metric}": value for name, values in results.items() for metric, value in values.items()}
    return metrics | {key: value for key, value in summary(results).items() if key != "in_domain"}


def _peak_memory() -> int:
    """Bytes: of the GPU's allocator where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
