"""A finished run as a model: predict, embed, evaluate, save, load."""

import shutil
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kravl.api.given import as_image, each, pairs
from kravl.data.loading.transforms import CentreCrop, Normalization
from kravl.data.sources.folder import ImageFolder
from kravl.evaluation.metrics import score
from kravl.evaluation.predict import Predictions
from kravl.export.write import export_run
from kravl.run.calibrate import calibrate
from kravl.run.finished.labels import Label, plain_label, read_labels
from kravl.run.finished.restore import LoadedRun, load_run
from kravl.runtime.errors import InputError, unknown
from kravl.runtime.microbatch import MicroBatches
from kravl.tracking.records import record_of

BATCH = 64  # images at a time; where memory runs out, fewer
# of a run's folder, what no model needs
LEFT_OUT = ("checkpoints", "wandb", "tensorboard", "mlflow", "csv", "tracked", ".lock", ".owner")
Floats = NDArray[np.float32]


class FewShotModel:
    """An adapted classifier; `kravl.fit` returns one, and `load` makes one of the folder of any finished run.

    ``images`` are one image or several: paths, PIL images, arrays (h, w, c) of uint8, tensors (c, h, w) of uint8, or a
    ``torch.utils.data.Dataset`` whose items begin with such an image. They are resized, cropped and normalised as the
    pretrained weights expect.

    Attributes:
        classes: the label of each column of `predict_proba`: those that were given, or the names of the class folders.
        folder: of the run, with metrics.json and config.yaml.
        metrics: what the run measured when it ended, as fractions.
        temperature: what `predict_proba` divides logits by: 1 until `calibrate`, or the command, has fitted another.
    """

    def __init__(self, run: LoadedRun, temporary: Path | None = None) -> None:
        self._run = run
        if temporary is not None:
            weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True)
        self.folder = run.folder.path
        self.classes: tuple[Label, ...] = tuple(read_labels(self.folder, len(run.class_names)) or run.record.class_ids)
        self.metrics: dict[str, float | None] = record_of(run.folder)["metrics"]
        preprocess = run.classifier.preprocess
        self._crop, self._normalize = CentreCrop.of(preprocess), Normalization(preprocess.mean, preprocess.std)
        self.temperature = run.temperature()
        run.adapters.merge()
        run.classifier.prepare()
        self._device = next(run.classifier.parameters()).device

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str | None = None,
        plugins: Sequence[str] = (),
        temporary: Path | None = None,
    ) -> "FewShotModel":
        """The model of a finished run, from `fit`, `save` or the command; no data set is needed.

        Args:
            folder: of the run; the hash at its end may be left out.
            device: None: a GPU if there is one.
            plugins: packages besides kravl that its classes may come from.
            temporary: a folder that is removed with the model.

        Raises:
            InputError: as `kravl.run.finished.restore.load_run`.
        """
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(load_run(folder, plugins=plugins, device=place), temporary)

    def predict(self, images: Any) -> list[Label]:
        """The label of the most probable class of each image."""
        return [self.classes[column] for column in self.predict_proba(images).argmax(axis=1)]

    def predict_proba(self, images: Any) -> Floats:
        """Probabilities (images, classes) in the order of ``classes``."""
        logits = map(self._run.classifier.logits, self._features(images))
        return self._stacked([(rows / self.temperature).softmax(dim=1).cpu() for rows in logits], len(self.classes))

    def embed(self, images: Any) -> Floats:
        """Features (images, d), the input of the head: of CLIP unit vectors beside those of the texts."""
        return self._stacked([features.float().cpu() for features in self._features(images)], 0)

    def evaluate(self, data: Any, labels: Any = None) -> dict[str, float]:
        """Metrics of a folder of class folders, a data set of (image, label), or images and ``labels``.

        Accuracy, recall and F1 over classes and calibration as `kravl.evaluation.metrics.score`, among all classes of
        the model.

        Raises:
            InputError: a class that the model does not know, or images that cannot be read.
        """
        given = _folder_pairs(data) if isinstance(data, str | Path) else pairs(data, labels)
        known: list[int] = []

        def images() -> Iterator[Any]:
            for image, label in given:
                known.append(self._column(label))
                yield image

        probabilities = torch.from_numpy(self.predict_proba(images()))
        columns = torch.tensor(known)
        confidence, predicted = probabilities.max(dim=1)
        loss = F.nll_loss(probabilities.double().clamp(min=1e-38).log(), columns, reduction="none")
        return score(Predictions(torch.arange(len(columns)), columns, predicted, confidence, loss))

    def calibrate(self, force: bool = False) -> dict[str, float]:
        """Fit the temperature on the run's validation images, which are where the run had them, and keep it.

        Returns:
            NLL in nats and ECE of those images, before and after.

        Raises:
            InputError: as `kravl.run.calibrate.calibrate`.
        """
        found = calibrate(self.folder, plugins=self._run.cfg.plugins, device=self._device, force=force)
        self.temperature = found.temperature
        names = ("nll_before", "nll_after", "ece_before", "ece_after")
        return dict(zip(names, (*found.nll, *found.ece), strict=True))

    def save(self, folder: str | Path, force: bool = False) -> Path:
        """Copy the run's folder, which `load` reads: its adapter and records, without the pretrained weights.

        Raises:
            InputError: the folder is there, and not ``force``.
        """
        target = Path(folder)
        if target.exists() and not force:
            raise InputError(f"{target} is there already; force=True replaces it")
        if target.resolve() == self.folder.resolve():
            return target
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(self.folder, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
        return target

    def export(self, to: str, folder: str | Path, *, alpha: float = 1.0, force: bool = False) -> Path:
        """Write the model to ``folder`` for another library, which is asked in another process whether it agrees.

        Args:
            to: open_clip, timm, transformers, onnx, pt2 or peft; see `kravl.export.write.export_run`.
            alpha: share of the update: 1 the adapted weights, 0 the pretrained ones.
            force: replace an earlier export.

        Raises:
            InputError: as `kravl.export.write.export_run`, and its ExportError.
        """
        run = load_run(self.folder, plugins=self._run.cfg.plugins)  # the export merges it for good
        return export_run(run, to, Path(folder), alpha, force).folder

    def _column(self, label: Label) -> int:
        plain = plain_label(label)
        if plain not in self.classes:
            raise unknown("class of the model", plain, map(str, self.classes))
        return self.classes.index(plain)

    def _features(self, images: Any) -> Iterator[Tensor]:
        given, micro_batches = each(images), MicroBatches()
        encode = self._run.classifier.image_features
        while batch := list(islice(given, BATCH)):
            pixels = self._normalize([self._crop(as_image(image)).transpose(2, 0, 1) for image in batch])
            with torch.no_grad():
                yield micro_batches.encode(encode, pixels.to(self._device), "the batch")

    def _stacked(self, rows: Sequence[Tensor], width: int) -> Floats:
        stacked: Floats = torch.cat(list(rows)).detach().numpy() if rows else np.zeros((0, width), np.float32)
        return stacked

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, it is the files of its run; the pretrained weights are loaded again from where they are."""
        copied = {str(path.relative_to(self.folder)): path.read_bytes() for path in _files(self.folder)}
        return _unpickled, (self.folder.name, copied, tuple(self._run.cfg.plugins))

    def __repr__(self) -> str:
        cfg = self._run.cfg
        return f"FewShotModel({cfg.backbone.name}, {cfg.label}, {len(self.classes)} classes, {self.folder})"


def _folder_pairs(folder: str | Path) -> Iterable[tuple[Path, Label]]:
    source = ImageFolder(str(folder))
    samples = source.split("test" if "test" in source.splits else "train")
    files = [samples.file(i) for i in range(len(samples))]
    return [(file, source.class_ids[label]) for file, label in zip(files, samples.labels, strict=True) if file]


def _files(folder: Path) -> list[Path]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in files if not set(path.relative_to(folder).parts) & {*LEFT_OUT}]


def _unpickled(name: str, files: Mapping[str, bytes], plugins: Sequence[str]) -> FewShotModel:
    temporary = Path(mkdtemp(prefix="kravl-"))
    for file, content in files.items():
        path = temporary / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return FewShotModel.load(temporary / name, plugins=plugins, temporary=temporary)
