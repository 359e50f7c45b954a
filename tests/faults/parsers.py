"""Every parser of ours, with an example of what it reads."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image
from run_records import record
from safetensors.torch import save

from kravl.adapters.injection.adapter_set import sha256
from kravl.adapters.injection.serialization import read_adapters
from kravl.analysis.approximation.sweep import Ledger
from kravl.config.quoting import as_overrides
from kravl.data import catalog
from kravl.data.classes import read_class_list, read_descriptions
from kravl.data.download.fetch import remote_files
from kravl.data.download.transfer import PartialFile
from kravl.data.images import open_rgb
from kravl.data.loading.feature_cache import _read as read_features
from kravl.data.sources.cub200 import Cub200
from kravl.data.sources.list_files import ListFiles
from kravl.data.sources.split_file import SplitFile
from kravl.data.sources.table import Table
from kravl.data.sources.voc2007 import _objects
from kravl.data.templates import read_templates
from kravl.export.push import parcel
from kravl.report.groups import group_runs
from kravl.report.interactive.payload import payload
from kravl.report.interactive.pictures import _read as read_predictions
from kravl.report.interactive.run_files import RunFiles
from kravl.report.published.rows import folder as published_folder
from kravl.report.published.rows import read_published
from kravl.report.runs import FinishedRun, read_runs
from kravl.report.tables import group_table
from kravl.run.finished.calibration import read_calibration
from kravl.run.finished.labels import read_labels
from kravl.run.finished.model_record import read_model_record
from kravl.run.finished.saved import saved_config
from kravl.run.fit import ended_training
from kravl.run.prediction.output import PredictionFile, format_of
from kravl.study.schema import read_study
from kravl.tracking.records import record_of
from kravl.tracking.run_folder import RunFolder, find_run
from kravl.training.checkpoint import SafeCheckpointIO, _sha256, latest
from kravl.training.spectrum_monitor import read_trace

SPLIT = {"train": [["a.png", 0, "cat"], ["b.png", 1, "dog"]], "val": [], "test": [["c.png", 0, "cat"]]}
DETAILS = {"evaluation": "in_domain", "class_names": ["a", "b"], "images": [4, 4], "hits": {"adapted": [2, 3]},
           "reliability": {"adapted": {"test": [[8, 0.5, 0.5]]}}}  # fmt: skip
EVALUATION = {key: record()[key] for key in ("metrics", "zero_shot", "wise_ft")}
STUDY = b"name: s\nbackbones: [vit_s14]\ndatasets: {dtd: [optim.epochs=3]}\nmethods: [kra, lora]\nshots: [4, null]\n"
CARD = (
    "title: x\nfiles: [{name: a.zip, urls: [x], unpack: true, md5: null}]\n"
    "folders: [a]\nneeds: [b]\nimages: {train: 2}\n"
)


@dataclass(frozen=True)
class Parser:
    """Reads the ``file`` of a folder; ``example`` is what it expects there."""

    file: str
    example: bytes
    read: Callable[[Path], object]


def _card(folder: Path) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "folder", lambda: folder)
        return remote_files(catalog.card("a"))


def _runs(folder: Path) -> object:
    groups = group_runs(read_runs(folder)[0])
    return [[group_table([group], every_set=True), *map(group.stat, group.names)] for group in groups]


def _beside(folder: Path) -> object:
    """The other files of a run, read with whole metrics."""
    (folder / "metrics.json").write_text(json.dumps(record()))
    runs, _ = read_runs(folder)
    files = RunFiles()
    return [payload(group_runs(runs), files), [group_table([group]) for group in group_runs(runs)]]


def _spectra(name: str) -> bytes:
    tensors = {"steps": torch.tensor([0, 1]), "quantities": torch.ones(2, 1, 1)}
    return save(tensors, {"kravl": json.dumps({"sites": ["a"], "quantities": [name]})})


def _saved_config(folder: Path) -> object:
    (folder / "metrics.json").write_text("{}")
    return saved_config(find_run(str(folder)), {})


def _checkpoint(folder: Path) -> object:
    file, place = folder / "manifest.json", folder / "step=1.ckpt"
    place.mkdir()
    file.replace(place / file.name)
    for name, content in {"tensors.safetensors": save({}), "state.json": b"{}"}.items():
        (place / name).write_bytes(content)
    SafeCheckpointIO().load_checkpoint(place)
    return latest(folder)


def _state(folder: Path) -> object:
    (folder / "tensors.safetensors").write_bytes(save({"0": torch.ones(1)}))
    names = ("tensors.safetensors", "state.json")
    told = {name: {"bytes": (folder / name).stat().st_size, "sha256": _sha256(folder / name)} for name in names}
    (folder / "manifest.json").write_text(json.dumps(told))
    return SafeCheckpointIO().load_checkpoint(folder)


def _birds(folder: Path) -> object:
    lists = {"image_class_labels.txt": "1 1", "train_test_split.txt": "1 1", "classes.txt": "1 001.Cat"}
    for name, content in lists.items():
        if not (folder / name).exists():
            (folder / name).write_text(content)
    (folder / "images").mkdir()
    return Cub200(str(folder)).split("train")


def _published(folder: Path) -> object:
    if not (folder / "names.yaml").exists():
        (folder / "names.yaml").write_bytes((published_folder() / "names.yaml").read_bytes())
    return read_published(folder)


def _calibration(folder: Path) -> object:
    (folder / "adapter.safetensors").write_bytes(save({}, {"kravl": json.dumps({"tensors_sha256": sha256({})})}))
    return read_calibration(RunFolder(folder))


def _begun(folder: Path) -> object:
    """What `kravl predict` goes on with: a file, and beside it with what settings it was begun."""
    file = next(path for path in folder.iterdir() if path.suffix in (".csv", ".jsonl"))
    (folder / f"{file.name}.unfinished.json").write_text("{}")
    with PredictionFile(file, format_of(file.suffix[1:], 1), {}, force=False) as begun:
        return list(begun.written(iter(["a.png", "b.png"])))


def _unfinished(folder: Path) -> object:
    (folder / "a.csv").write_text("")
    with PredictionFile(folder / "a.csv", format_of("csv", 1), {"top": 1}, force=False) as begun:
        return list(begun.written(iter(())))


def _predictions(folder: Path) -> object:
    problems: list[str] = []
    return read_predictions(FinishedRun(folder, record(), {}), problems), problems


def _part(folder: Path) -> object:
    (folder / "a.part").write_bytes(b"abc")
    return PartialFile(folder / "a.part").facts


def _typed(folder: Path) -> object:
    return as_overrides([(folder / "a.txt").read_text(errors="surrogateescape")], "train")


def _export(folder: Path) -> object:
    (folder / "README.md").write_text("a")
    (folder / "load.py").write_text("a")
    return list(parcel(str(folder)).sizes())


CALIBRATION = {
    "temperature": 1.5, "images": 3, "images_sha256": "a", "adapter": sha256({}), "about": {},
    "nll": {"before": 1.0, "after": 0.5}, "ece": {"before": 0.5, "after": 0.25},
}  # fmt: skip
MODEL = {
    "class_ids": ["a", "b"], "class_names": ["cat", "dog"], "prompts": ["a {}."], "weights_sha256": "a", "unfrozen": [],
    "backbone": {"model": "a", "pretrained": "b"}, "sites": ["a"], "num_images": 2, "seen": [],
}  # fmt: skip
PREDICTIONS = b"index,label,adapted_predicted,adapted_confidence\n0,1,1,0.5\n"
TRAINING = {"settings_sha256": "a", "precision": "32-true", "phases": {}, "spectrum_seconds": 1.0, "shortened": []}
PUBLISHED = sorted(path for path in published_folder().glob("*.yaml") if path.name != "names.yaml")[0].read_bytes()
FEATURES = save({"features": torch.ones(2, 2)}, {"kravl": '{"key": "{}", "checksum": "a"}'})
PICTURE = BytesIO()
Image.new("RGB", (2, 2)).save(PICTURE, "PNG")
ADAPTER = save({"a": torch.ones(2)}, {"kravl": json.dumps({"tensors_sha256": sha256({"a": torch.ones(2)})})})

PARSERS = {
    "split file": Parser("a.json", json.dumps(SPLIT).encode(), lambda d: SplitFile("a", str(d), str(d / "a.json"))),
    "table": Parser("a.csv", b"path,label,split\na.png,cat,train\n", lambda d: Table(str(d / "a.csv"))),
    "tab-separated table": Parser("a.tsv", b"path\tlabel\na.png\tcat\n", lambda d: Table(str(d / "a.tsv"))),
    "table of objects": Parser("a.jsonl", b'{"path": "a.png", "label": 1}\n', lambda d: Table(str(d / "a.jsonl"))),
    "class list": Parser("a.csv", b"a,cat\nb,dog\n", lambda d: read_class_list(str(d / "a.csv"))),
    "list of images": Parser(
        "train.txt", b"cat/1.jpg\ndog/2.jpg\n", lambda d: ListFiles("a", str(d), {"train": "train.txt"}).split("train")
    ),
    "list of birds": Parser("images.txt", b"1 001.Cat/a.jpg\n", _birds),
    "labels of birds": Parser(
        "image_class_labels.txt", b"1 1\n", lambda d: (d / "images.txt").write_text("1 a") and _birds(d)
    ),
    "annotation": Parser(
        "a.xml",
        b"<a><object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object></a>",
        lambda d: _objects(d / "a.xml"),
    ),
    "card": Parser("a/card.yaml", CARD.encode(), _card),
    "config": Parser("config.yaml", b"name: a\nshots: 4\noptim: {lr: 1e-3}\ntargets: [a]\n", _saved_config),
    "metrics": Parser("metrics.json", json.dumps(record()).encode(), _runs),
    "study": Parser("s.yaml", STUDY, lambda d: read_study(d / "s.yaml")),
    "cost": Parser("cost.json", b'{"train_seconds": 1.5, "peak_memory_bytes": 1, "device": "cpu"}', _beside),
    "details": Parser("details.json", json.dumps(DETAILS).encode(), _beside),
    "curve": Parser("curve.json", b'{"step": [1, 2], "loss": [1.0, 0.5], "lr": [0.1, 0.0]}', _beside),
    "later evaluation": Parser("evaluations/a.json", json.dumps({**EVALUATION, "evaluation": "a"}).encode(), _beside),
    "spectra": Parser("spectra.safetensors", _spectra("rank"), lambda d: read_trace(d / "spectra.safetensors")),
    "ledger": Parser("a.jsonl", b'{"key": "a"}\n{"key": "b"}\n', lambda d: Ledger(d / "a.jsonl")),
    "manifest": Parser("manifest.json", b'{"tensors.safetensors": {"bytes": 1, "sha256": ""}}', _checkpoint),
    "state": Parser("state.json", b'{"pairs": [["a", {"tensor": "0"}], [1, {"tuple": [1.5]}]]}', _state),
    "record of a card": Parser("metrics.json", json.dumps(record()).encode(), lambda d: record_of(RunFolder(d))),
    "model": Parser("model.json", json.dumps(MODEL).encode(), lambda d: read_model_record(RunFolder(d))),
    "calibration": Parser("calibration.json", json.dumps(CALIBRATION).encode(), _calibration),
    "adapter": Parser("adapter.safetensors", ADAPTER, lambda d: read_adapters(d / "adapter.safetensors")),
    "inputs": Parser("inputs.json", b'{"paths": {"data_root": ["data", "a"]}}', lambda d: RunFolder(d).inputs),
    "ended training": Parser(
        "checkpoints/trained.json", json.dumps(TRAINING).encode(), lambda d: ended_training(RunFolder(d))
    ),
    "labels": Parser("labels.json", b'{"labels": ["a", 1]}', lambda d: read_labels(d, 2)),
    "predictions of a run": Parser("predictions.csv", PREDICTIONS, _predictions),
    "begun predictions": Parser("a.csv", b"path,class_1,probability_1,energy,error\na.png,a,0.5,1.0,\n", _begun),
    "begun predictions as objects": Parser(
        "a.jsonl",
        b'{"path": "a.png", "classes": ["a"], "probabilities": [1], "energy": 1.0, "error": null}\n',
        _begun,
    ),
    "settings of predictions": Parser("a.csv.unfinished.json", b'{"top": 1}', _unfinished),
    "templates": Parser("a.txt", b"a photo of a {}.\nart of {}\n", lambda d: read_templates(str(d / "a.txt"))),
    "list of templates": Parser("a.yaml", b'["a photo of a {}.", "{}"]', lambda d: read_templates(str(d / "a.yaml"))),
    "descriptions": Parser("a.json", b'{"cat": ["It purrs."]}', lambda d: read_descriptions(str(d / "a.json"))),
    "published numbers": Parser("a.yaml", PUBLISHED, _published),
    "features": Parser("a.safetensors", FEATURES, lambda d: read_features(d / "a.safetensors", "{}", 2)),
    "export": Parser("export.json", b'{"files": {"load.py": 1}}', _export),
    "part of a download": Parser(
        "a.part.json",
        b'{"url": "x", "total": 3}',
        _part,
    ),
    "picture": Parser("a.png", PICTURE.getvalue(), lambda d: open_rgb(d / "a.png")),
    "command line": Parser(
        "a.txt",
        b"data.root='a, b',adapter.rank=[1,2]",
        _typed,
    ),
}
