"""What a result depends on besides the settings, kept in inputs.json: images, classes, prompts, weights, versions.

A run that is resumed, or found finished, with other inputs than it was started with is told, and refused.
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import PIL

import kravl
from kravl.adapters.injection.adapter_set import sha256
from kravl.backbones.classifier import FEATURE_HEAD
from kravl.config.schema import Config
from kravl.data.datamodule import IN_DOMAIN, FewShotDataModule
from kravl.data.inspect.fingerprint import MAX_DRAWN, Fingerprints, data_sha256, trained_contents
from kravl.run.build import Model, Run, build_run, make_data
from kravl.run.finished.saved import saved_config
from kravl.run.sources import Sources, list_sources, training_source
from kravl.runtime.errors import InputError, some_of
from kravl.runtime.files import PACKAGE
from kravl.tracking.provenance import package_versions
from kravl.tracking.run_folder import RunFolder, find_run, place_sha256
from kravl.tracking.settings import dotted, is_digest
from kravl.training.trainer import precision_of

log = logging.getLogger(__name__)
LISTED = 8  # differences in a line
NAMED = 5  # classes in a line
Record = dict[str, Any]


class Inputs:
    """Those of a run as it is now, to be kept by `record` or held against those that are `kept`.

    Args:
        data: of the run; images are looked at when they are asked for.
    """

    def __init__(self, cfg: Config, data: FewShotDataModule) -> None:
        self._cfg, self._data = cfg, data
        self._fingerprints = Fingerprints(cfg.check_contents)

    def record(self, run: Run) -> Record:
        """Everything, for inputs.json.

        Raises:
            InputError: an image cannot be read.
        """
        seen = self._fingerprints
        return {
            **self._of_data(),
            "drawn": seen.of(self._data.train_samples, MAX_DRAWN),
            "sets": {name: seen.of(samples) for name, samples in self._data.evaluated.items()},
            "weights": pretrained_sha256(run.model),
            "weight_files": _weight_files(self._cfg),
            "precision": str(precision_of(self._cfg.trainer)),
            "versions": _versions(),
            "kravl": _code(),
            "paths": _relative_paths(self._cfg),
            **data_identity(self._data, seen),
            **trained_on(self._cfg, self._data, run.seen),
        }

    def changed_data(self, kept: Mapping[str, Any]) -> Iterator[str]:
        """``field: old -> new`` for classes, prompts and images that are not those ``kept``."""
        yield from _changes(kept, self._of_data())
        seen = self._fingerprints
        yield from seen.differences("training", _mapping(kept, "drawn"), self._data.train_samples)
        if sets := _mapping(kept, "sets"):
            evaluated = self._data.evaluated
            for name in sorted(sets.keys() | evaluated.keys()):
                if name in sets and name in evaluated:
                    yield from seen.differences(name, _mapping(sets, name), evaluated[name])
                else:
                    yield f"evaluation set {name}: {'left out' if name in sets else 'added'}"

    def changes(self, kept: Mapping[str, Any], run: Run, trained: bool) -> Iterator[str]:
        """The same, and what differs in weights, versions and, of a run that is not ``trained``, precision."""
        yield from self.changed_data(kept)
        now: Record = {"weights": pretrained_sha256(run.model)}
        if not trained:
            now["precision"] = str(precision_of(self._cfg.trainer))
        yield from _changes(kept, now)
        yield from _changes(_mapping(kept, "versions"), _versions())

    def _of_data(self) -> Record:
        source = self._data.source
        prompts = [source.class_names, source.prompts, self._data.further_classes()]
        return {
            "classes": f"{len(source.class_ids)} ({some_of(source.class_ids, NAMED)}), {_digest(source.class_ids)}",
            "prompts": _digest(prompts),
            "split": self._data.split_sha256,
        }


def accepted_changes(inputs: Inputs, run: Run, folder: RunFolder, trained: bool, force: bool) -> list[str]:
    """What has changed since a run began and is accepted: by ``force`` anything, and in any case another kravl.

    Args:
        trained: whether its training has ended.

    Raises:
        InputError: what has been trained was trained on, or from, something else; each difference is named.
    """
    kept = folder.inputs
    if not folder.owned or not kept or not (trained or folder.has_checkpoint):
        return []
    differing = list(inputs.changes(kept, run, trained))
    if differing and not force:
        raise InputError(
            f"{folder.path} was started with other inputs: {some_of(differing, LISTED, '; ')}. overwrite=true starts "
            f"it again, resume={folder.path} force=true resumes it with these"
        )
    differing += _changes(kept, {"kravl": _code()})
    for line in differing:
        log.warning("resuming with another %s", line)
    before = kept.get("accepted")
    return [*(before if isinstance(before, list) else []), *differing]


def check_finished(cfg: Config, folder: RunFolder, sources: Sources | None) -> None:
    """Raise InputError where a finished run is of other data or weights than these settings mean here and now."""
    if not (kept := folder.inputs):  # of a release that kept none
        return
    try:
        sources = sources or list_sources(cfg)
    except InputError as error:
        if not folder.done:  # a relative path leads elsewhere: this may not be its data
            raise
        log.warning("the data of %s cannot be compared: %s", folder.path, error)
        return
    differing = list(Inputs(cfg, make_data(cfg, sources)).changed_data(kept))
    if not differing and _weight_files(cfg) != _mapping(kept, "weight_files"):
        differing = list(_changes(kept, {"weights": pretrained_sha256(build_run(cfg, sources).model)}))
    if differing and not cfg.force:
        raise InputError(
            f"{folder.path} is finished, with other inputs: {some_of(differing, LISTED, '; ')}. Give this run a "
            "name= of its own, or do it again with overwrite=true"
        )
    for line in differing:
        log.warning("finished with another %s", line)


def data_identity(data: FewShotDataModule, seen: Fingerprints) -> Record:
    """Digests by which a reader tells two data sets, and two evaluation sets, of one name apart."""
    sets = {name: seen.set_sha256(samples) for name, samples in data.test_sets.items()}
    return {"data_sha256": data_sha256(data.source, sets[IN_DOMAIN]), "sets_sha256": sets}


def trained_on(cfg: Config, data: FewShotDataModule, seen: Sequence[str] = ()) -> dict[str, list[str]]:
    """For a record: what is evaluated and not new: images trained or selected on, by contents; classes, by name.

    Args:
        seen: names of the classes that ``init`` was trained on.
    """
    if not cfg.optim.trains:
        return {}
    most = math.inf if cfg.check_contents else MAX_DRAWN
    lines = trained_contents(data.train_samples, data.evaluated, most)
    if cfg.tune != "none":
        lines += trained_contents(data.val_samples, data.evaluated, most, "selected on")
    lines += _seen_images(cfg, data, most)
    for line in lines:
        log.warning("%s: metrics of these are not those of new images", line)
    for line in (known := list(_seen_classes(data, seen))):
        log.warning("%s: metrics of these are not those of new classes", line)
    lines += known
    return {"trained_on": lines} if lines else {}


def _seen_images(cfg: Config, data: FewShotDataModule, most: float) -> list[str]:
    """The evaluated images that ``init`` was trained on, where its data are still there."""
    if not cfg.init or is_digest(cfg.init):
        return []
    before = saved_config(find_run(cfg.init), {"plugins": cfg.plugins})
    try:
        drawn = make_data(before, Sources(training_source(before), {})).train_samples
    except InputError as error:
        log.warning("what init=%s was trained on cannot be compared with what is evaluated: %s", cfg.init, error)
        return []
    return trained_contents(drawn, data.evaluated, most, "trained on by init")


def _seen_classes(data: FewShotDataModule, seen: Sequence[str]) -> Iterator[str]:
    """A line for each set scored among classes of its own of which some are in ``seen``, and not trained again."""
    others = [name for name in data.sources if name != IN_DOMAIN]
    for name, (classes, _) in zip(others, data.further_classes(), strict=False):  # none where trained ones are scored
        known = [each for each in classes if each in seen and each not in data.source.class_names]
        if known:
            yield f"{len(known)} of the {len(classes)} classes of {name} are trained on by init ({some_of(known, 3)})"


def pretrained_sha256(model: Model) -> str:
    """Hex digest of all weights before anything was trained; adapters, heads and a context are left out."""
    added = {id(p) for adapter in model.adapters.adapters.values() for p in (*adapter.parameters(), *adapter.buffers())}
    added |= {id(p) for p in model.classifier.new_parameters()}
    state = model.classifier.encoder().state_dict(keep_vars=True)
    return sha256(
        {
            name: tensor
            for name, tensor in state.items()
            if id(tensor) not in added and not name.startswith(f"{FEATURE_HEAD}.")
        }
    )


def _changes(kept: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """``key: old -> new``; what an earlier release did not keep is not compared."""
    for key, value in now.items():
        if (old := kept.get(key)) is not None and old != value:
            yield f"{key}: {_short(old)} -> {_short(value)}"


def _short(value: object) -> str:
    return " ".join(word if len(word) < 40 else word[:12] for word in str(value)[:400].split())


def _mapping(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _digest(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")
    return f"sha256 {hashlib.sha256(text).hexdigest()}"


def _versions() -> dict[str, str]:
    """Releases of what decodes and computes; kravl's own is told and not refused."""
    versions = {name: version for name, version in package_versions().items() if name != "kravl"}
    return versions | {"pillow": PIL.__version__}


def _code() -> str:
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(PACKAGE)}\0".encode() + path.read_bytes())
    return f"version {kravl.__version__}, source {digest.hexdigest()[:12]}"


def _weight_files(cfg: Config) -> dict[str, list[int]]:
    """Size and time of change of each file that the backbone's settings name."""
    found: dict[str, list[int]] = {}
    for key, value in dotted(cfg.backbone.build):
        path = Path(str(value).removeprefix("local-dir:"))
        if isinstance(value, str) and os.sep in value:
            files = [path] if path.is_file() else sorted(file for file in path.glob("*") if file.is_file())
            found |= {f"{key}/{file.name}": [(s := file.stat()).st_size, s.st_mtime_ns] for file in files}
    return found


def _relative_paths(cfg: Config) -> dict[str, list[str]]:
    """Setting -> itself and a digest of where it leads: a relative path is another place in another working folder."""
    build = {"backbone": {"build": cfg.backbone.build}, "data_root": cfg.data_root}
    settings = {**build, "data": asdict(cfg.data), "evaluation": asdict(cfg.evaluation)}
    given = {key: value for key, value in dotted(settings) if isinstance(value, str)}
    paths = {key: Path(value.removeprefix("local-dir:")) for key, value in given.items() if value}
    relative = {key: path for key, path in paths.items() if not path.is_absolute() and _exists(path)}
    return {key: [str(path), place_sha256(path)] for key, path in relative.items()}


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a text that is no path, or too long a one
        return False
