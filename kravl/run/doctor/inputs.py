"""Whether the images and weights of a run are there, and are what its settings say."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.filesize import decimal

from kravl.backbones.classifier import Classifier
from kravl.backbones.weights.sources import WeightFile, check_weights
from kravl.config.instantiate import resolve
from kravl.config.schema import Config
from kravl.data.datamodule import FewShotDataModule
from kravl.data.loading.cache import check_images
from kravl.data.source import Samples, Source
from kravl.run.build import make_data, require_classes
from kravl.run.doctor.checklist import Checklist
from kravl.run.sources import Sources, evaluation_sources, training_source

MOST_READ = {"train": 512, "test": 64}  # images of a set that are read; those that are tested on may be a million


def check_data(checks: Checklist, cfg: Config) -> FewShotDataModule | None:
    """Every set there, with its classes, enough images for the shots, and some of them readable; None where not."""
    source = checks.attempt("data", lambda: _training(cfg))
    if source is None:
        return None
    evaluated = _evaluated(checks, cfg, source)
    data = checks.attempt("data", lambda: make_data(cfg, Sources(source, evaluated)))
    if data is None:
        return None
    drawn, tested = len(data.train_samples), len(data.test_samples)
    classes = len(source.class_names)
    checks.add("ok", "data", f"{cfg.data.name}: {classes} classes, {drawn:,} images to train on, {tested:,} to test on")
    others = {name: samples for name, samples in data.evaluated.items() if name != "test"}
    if others:
        listed = ", ".join(f"{name} {len(samples):,}" for name, samples in others.items())
        checks.add("ok", "shifts", f"images of each set: {listed}")
    _check_images(checks, {"train": data.train_samples, **data.evaluated})
    return data


def _training(cfg: Config) -> Source:
    source = training_source(cfg)
    require_classes(cfg, source)
    return source


def _evaluated(checks: Checklist, cfg: Config, source: Source) -> dict[str, Source]:
    """The sets that can be evaluated: one that cannot is an error, and the next is looked at."""
    found: dict[str, Source] = {}
    for name, node in cfg.evaluation.sets.items():
        one = replace(cfg.evaluation, sets={name: node})
        sets = checks.attempt(name, partial(evaluation_sources, one, source, cfg.plugins, cfg.data.templates))
        found |= sets or {}
    return found


def _check_images(checks: Checklist, sets: Mapping[str, Samples]) -> None:
    some = {name: _spread(samples, MOST_READ.get(name, MOST_READ["test"])) for name, samples in sets.items()}
    if checks.passes("images", partial(check_images, some)):
        count, every = (sum(map(len, each.values())) for each in (some, sets))
        more = "" if count == every else "; kravl data verify reads all of them"
        checks.add("ok", "images", f"{count:,} of {every:,} read{more}")


def _spread(samples: Samples, most: int) -> Samples:
    """At most so many of the ``samples``, evenly over them."""
    count = min(len(samples), most)
    return samples.subset([i * len(samples) // count for i in range(count)])


def find_weights(checks: Checklist, cfg: Config) -> list[WeightFile] | None:
    """The files of weights, sound as far as their heads say; None where they cannot be had."""
    files = checks.attempt("weights", lambda: _classifier(cfg).find_weights(cfg.backbone.build))
    if files is None:
        return None
    for name, path in files:
        if path is None:
            checks.add("ok", "weights", f"{name} is not in the local cache; the run downloads it")
        elif checks.passes("weights", partial(_check_head, path)):
            checks.add("ok", "weights", f"{name}, {decimal(path.stat().st_size)}")
    if not files:
        checks.add(
            "warning", "weights", f"{cfg.backbone.name} starts from random weights; nothing pretrained is adapted"
        )
    return files


def _check_head(path: Path) -> None:
    """Look at a file as a run does; one in the cache that is a pickle is left to the run, which reads all of it."""
    if path.suffix == ".safetensors":
        check_weights(path)


def check_prompts(checks: Checklist, cfg: Config, data: FewShotDataModule) -> None:
    """Prompts within the text tower's context where ``data.long_prompts`` refuses others."""
    settings = {"long_prompts": cfg.data.long_prompts, **cfg.backbone.build}
    for names, prompts in [(data.source.class_names, data.source.prompts), *data.further_classes()]:
        checks.passes("prompts", partial(_classifier(cfg).check_prompts, settings, names, prompts))


def _classifier(cfg: Config) -> type[Classifier]:
    return resolve(cfg.backbone.build, Classifier, cfg.plugins)
