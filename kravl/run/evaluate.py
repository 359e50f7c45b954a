"""The evaluation of a run: at its end, and of a finished one on other sets."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from pytorch_lightning import Trainer
from rich.console import Console
from torch import Tensor

from kravl.adapters.base import Adapter
from kravl.adapters.injection.adapter_set import sha256
from kravl.config.compose import typed
from kravl.config.schema import Config
from kravl.data.inspect.fingerprint import Fingerprints
from kravl.evaluation.console import comparison_table, curve_table
from kravl.evaluation.metrics import Results, score
from kravl.evaluation.predict import Batches, EvaluationLoaders, Predictions, encode
from kravl.evaluation.wise_ft import ADAPTED, MAX_IN_MEMORY, PRETRAINED, curve_points, wise_ft
from kravl.run.build import Run, make_data
from kravl.run.context import check_curve
from kravl.run.finished.model_record import read_model_record
from kravl.run.finished.restore import restore
from kravl.run.finished.saved import evaluated_config
from kravl.run.fit import graceful_exit
from kravl.run.heads.checks import check_alphas, check_head_curve
from kravl.run.heads.features import evaluation_features
from kravl.run.inputs import data_identity, trained_on
from kravl.run.results import scored_by, scores, unevaluated, write_details
from kravl.run.sources import Sources, list_sources
from kravl.runtime.errors import InputError, require_name
from kravl.runtime.files import json_object, read_text, require_writable
from kravl.runtime.shared import Key, is_sharing, keep, known, shared
from kravl.tracking.provenance import provenance
from kravl.tracking.run_folder import RunFolder, find_run
from kravl.training.callbacks import Polling
from kravl.training.trainer import check_trainer, make_trainer

Curve = dict[float, dict[str, Predictions]]
DERIVED = ("_text_features", "_further_features")  # buffers of a classifier: they follow from weights and prompts
Found = Mapping[str, Predictions]  # by set


class ZeroShot:
    """The pretrained model's predictions of a run: `known` where an earlier run had the same, else to be kept.

    Where nothing before the head trains, `features` of the images as well. Many cells of a study, whose worker shares
    them, have the same. They are found by all that decides them: every weight and every class of a module while the
    update is out, prompts as tokens, images and labels, batches, and the settings of model and trainer. What trains is
    part of it, too: which kernel computes a layer may go by it. Only where one process evaluates images on a CPU;
    elsewhere, and outside such a worker, every run evaluates by itself.

    Args:
        cfg: the run's; with the run itself it says what the predictions depend on.
    """

    def __init__(self, cfg: Config, trainer: Trainer, run: Run) -> None:
        self._key: Key | None = None
        on_cpu = trainer.world_size == 1 and trainer.strategy.root_device.type == "cpu"
        if not is_sharing() or not on_cpu or run.classifier.feature_head is not None:
            return
        asked = PRETRAINED in curve_points(cfg.alphas, run.classifier.zero_shot)
        if not asked and not run.classifier.features_are_fixed():
            return
        if (images := _images(run)) is None:
            return
        prompts = [(source.class_names, source.prompts) for source in (run.source, *run.data.sources.values())]
        made = cfg.backbone.build, cfg.data.long_prompts, str(trainer.precision)
        settings = repr((made, cfg.trainer, cfg.loading, prompts))
        with run.adapters.disable_adapters():
            self._key = ("zero-shot", settings, images, _model(run), torch.get_num_threads())
            if self.known is not None:
                run.classifier.eval().prepare()  # tells of classes with equal text features, as an evaluation does

    @property
    def known(self) -> Found | None:
        found: Found | None = None if self._key is None else known(self._key)
        return found

    def keep(self, found: Found) -> None:
        """Keep what this run has found, for later ones."""
        if self._key is not None:
            keep(self._key, found, sum(column.nbytes for rows in found.values() for column in rows))

    def features(
        self, trainer: Trainer, run: Run, loaders: EvaluationLoaders
    ) -> EvaluationLoaders | Mapping[str, Batches]:
        """The ``loaders``' batches with the features that every run has which trains a head alone; else the loaders."""
        too_many = sum(map(len, run.data.evaluated.values())) > MAX_IN_MEMORY
        if self._key is None or too_many or not run.classifier.features_are_fixed():
            return loaders
        return shared(("features", self._key), lambda: encode(trainer, run.classifier, loaders), _num_bytes)


def _num_bytes(features: Mapping[str, Batches]) -> int:
    return sum(tensor.nbytes for batches in features.values() for batch in batches for tensor in batch)


def _images(run: Run) -> str | None:
    """A digest of images, labels and columns of every set; None where what an image depends on is not known."""
    digest = hashlib.sha256(repr((run.data.transform(), run.data.evaluation_classes(run.selective))).encode())
    for name, samples in run.data.evaluated.items():
        digest.update(repr(name).encode())
        for index, label in enumerate(samples.labels):
            if (image := samples.identity(index)) is None:
                return None
            digest.update(repr((label, image)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _model(run: Run) -> str:
    """A digest of the model as it is now, without its adapters."""
    modules = ((name, f"{type(m).__module__}.{type(m).__qualname__}") for name, m in run.classifier.named_modules())
    adapted = {id(tensor) for adapter in run.adapters.adapters.values() for tensor in _tensors(adapter)}
    tensors = {
        f"{name} {tensor.requires_grad}": tensor
        for name, tensor in _named_tensors(run)
        if id(tensor) not in adapted and name not in DERIVED
    }
    structure = repr([(name, kind) for name, kind in modules if ".adapters" not in name])
    return f"{sha256(tensors)} {hashlib.sha256(structure.encode()).hexdigest()}"


def _tensors(adapter: Adapter) -> Iterator[Tensor]:
    yield from adapter.parameters()
    yield from adapter.buffers()


def _named_tensors(run: Run) -> Iterator[tuple[str, Tensor]]:
    yield from run.classifier.named_parameters()
    yield from run.classifier.named_buffers()


def evaluate(
    trainer: Trainer, run: Run, points: int | Sequence[float], trained: bool, zero_shot: ZeroShot | None = None
) -> tuple[dict[float, Results], Curve]:
    """Metrics of every set with merged weights, at the ``points`` of `curve_points`.

    Of a model that was not ``trained`` all of them are the pretrained one, which is evaluated once; not at all where an
    earlier run had the same predictions (``zero_shot``).

    Returns:
        alpha -> set -> metric -> value, and alpha -> set -> predictions.
    """
    classes = run.data.evaluation_classes(run.selective)
    alphas = curve_points(points, run.classifier.zero_shot)
    loaders: EvaluationLoaders | Mapping[str, Batches] = run.data.evaluation_loaders()
    if (head := run.classifier.feature_head) is not None:
        check_head_curve(head, alphas)
        loaders = evaluation_features(trainer, run)
    elif zero_shot is not None:
        loaders = zero_shot.features(trainer, run, run.data.evaluation_loaders())
    distinct = alphas if trained else [ADAPTED]
    curve = _curve(
        zero_shot if trained else None,
        distinct,
        partial(wise_ft, trainer, run.classifier, run.adapters, loaders, classes),
    )
    results = {alpha: {name: score(rows) for name, rows in sets.items()} for alpha, sets in curve.items()}
    scored = {alpha: results[alpha if trained else ADAPTED] for alpha in alphas}
    if trainer.is_global_zero:
        Console().print(comparison_table(scored.get(PRETRAINED), scored[ADAPTED]))
        if any(0 < alpha < 1 for alpha in scored):
            Console().print(curve_table(scored))
    return scored, curve


def _curve(zero_shot: ZeroShot | None, alphas: Sequence[float], evaluated: Callable[[Sequence[float]], Curve]) -> Curve:
    """Predictions at the ``alphas`` in their order; those of the pretrained model from an earlier run that had them."""
    if zero_shot is None or PRETRAINED not in alphas:
        return evaluated(alphas)
    if (earlier := zero_shot.known) is None:
        curve = evaluated(alphas)
        zero_shot.keep(curve[PRETRAINED])
        return curve
    rest = evaluated([alpha for alpha in alphas if alpha != PRETRAINED])
    return {alpha: dict(earlier) if alpha == PRETRAINED else rest[alpha] for alpha in alphas}


def evaluate_run(config: Any, sources: Sources | None = None) -> dict[str, Any]:
    """Evaluate a finished run on other sets; writes ``evaluations/<name>.json`` in its folder.

    Args:
        config: a composed `kravl.config.schema.EvaluateConfig`.
        sources: what `list_sources` has found for its `evaluated_config`, where it was asked before.

    Raises:
        InputError: what is wrong in it, or in the run.
    """
    cfg = typed(config)
    curve_points(cfg.alphas, zero_shot=True)
    name = require_name("evaluation.name", cfg.evaluation.name)
    folder = find_run(cfg.run)
    saved = evaluated_config(config)
    check_trainer(saved.trainer)
    check_curve(saved, cfg.alphas)
    check_alphas(saved, cfg.alphas)
    require_writable(folder.path, "an evaluation is kept in the folder of its run; copy the run to another one")
    data = make_data(saved, sources or list_sources(saved))
    identity = data_identity(data, Fingerprints()) | {"trained_on": []}
    refuse_other_evaluation(folder, name, identity["sets_sha256"])
    run = restore(saved, folder, data)
    run.data.check(training=False)
    known = read_model_record(folder)
    identity |= trained_on(saved, run.data, known.seen if known else ())
    trainer = make_trainer(saved.trainer, {}, folder.path, False, [Polling()])
    with graceful_exit():
        curve, predictions = evaluate(trainer, run, cfg.alphas, trained=saved.optim.trains)
    shortened = [*folder.shortened, *unevaluated(run, predictions)]
    made = {"evaluation": name, "precision": trainer.precision, "shortened": shortened, **identity, **provenance()}
    results = scores(curve) | made | scored_by(run)
    if trainer.is_global_zero:
        (folder.path / "evaluations").mkdir(exist_ok=True)
        folder.write(f"evaluations/{name}", results)
        images = run.data.test_samples.names
        write_details(folder.path / "evaluations" / name, name, predictions, run.source.class_names, images)
    return results


def refuse_other_evaluation(folder: RunFolder, name: str, sets: Mapping[str, str]) -> None:
    """Raise InputError where an evaluation ``name`` of other images is recorded, which this one would replace."""
    records = [folder.metrics()] if folder.metrics().get("evaluation") == name else []
    if (file := folder.path / "evaluations" / f"{name}.json").is_file():
        records.append(json_object(read_text(file), str(file)))
    for record in records:
        known = record.get("sets_sha256")
        if isinstance(known, dict) and (other := [key for key in sets if known.get(key, sets[key]) != sets[key]]):
            raise InputError(
                f"{folder.path} has an evaluation {name} of other images ({other[0]}), which this one would replace in "
                f"tables; evaluation.name=NAME keeps both{f', or remove {file}' if file.is_file() else ''}"
            )
