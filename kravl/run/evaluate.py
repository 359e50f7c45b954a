"""The evaluation of a run: at its end, and of a finished one on other sets."""

from collections.abc import Sequence
from typing import Any

from pytorch_lightning import Trainer
from rich.console import Console

from kravl.config.schema import EvaluateConfig
from kravl.evaluation.console import comparison_table, curve_table
from kravl.evaluation.metrics import Results, score
from kravl.evaluation.predict import Predictions
from kravl.evaluation.wise_ft import curve_points, wise_ft
from kravl.run.build import Parts
from kravl.run.fit import ending_well
from kravl.run.restore import restore, saved_config
from kravl.run.results import scores, write_details
from kravl.runtime.errors import require_name
from kravl.tracking.run_folder import find_run, provenance
from kravl.training.callbacks import Polling
from kravl.training.trainer import make_trainer

Curve = dict[float, dict[str, Predictions]]


def evaluate(
    trainer: Trainer, parts: Parts, points: int | Sequence[float], trained: bool
) -> tuple[dict[float, Results], Curve]:
    """Metrics of every set with merged weights, at the ``points`` of `curve_points`.

    Of a model that was not ``trained`` all of them are the pretrained one, which is evaluated once.

    Returns:
        alpha -> set -> metric -> value, and alpha -> set -> predictions.
    """
    loaders, classes = parts.data.evaluation_loaders(), parts.data.evaluation_classes()
    alphas = curve_points(points, parts.classifier.zero_shot)
    distinct = alphas if trained else [1.0]
    curve = wise_ft(trainer, parts.classifier, parts.adapters, loaders, classes, distinct)
    results = {alpha: {name: score(rows) for name, rows in sets.items()} for alpha, sets in curve.items()}
    scored = {alpha: results[alpha if trained else 1.0] for alpha in alphas}
    if trainer.is_global_zero:
        Console().print(comparison_table(scored.get(0.0), scored[1.0]))
        if any(0 < alpha < 1 for alpha in scored):
            Console().print(curve_table(scored))
    return scored, curve


def evaluate_run(cfg: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a finished run on the sets of ``cfg.evaluation``; writes ``evaluations/<name>.json`` in its folder."""
    curve_points(cfg.alphas, zero_shot=True)
    require_name("evaluation.name", cfg.evaluation.name)
    folder = find_run(cfg.run)
    saved = saved_config(folder, {key: cfg[key] for key in ("trainer", "loading", "plugins")})  # type: ignore[index]
    saved.evaluation = cfg.evaluation
    saved.data_root = cfg.data_root or saved.data_root
    saved.cache_root = cfg.cache_root
    parts = restore(saved, folder)
    parts.data.check(training=False)
    trainer = make_trainer(saved.trainer, {}, folder.path, False, [Polling()])
    with ending_well():
        curve, predictions = evaluate(trainer, parts, cfg.alphas, trained=saved.optim.epochs != 0)
    results = scores(curve) | {"evaluation": cfg.evaluation.name, "precision": trainer.precision, **provenance()}
    if trainer.is_global_zero:
        (folder.path / "evaluations").mkdir(exist_ok=True)
        folder.write(f"evaluations/{cfg.evaluation.name}", results)
        name = cfg.evaluation.name
        write_details(folder.path / "evaluations" / name, name, predictions, parts.source.class_names)
    return results
