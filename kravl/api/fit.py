"""`fit`: a run of kravl from code, by the path that the command takes; returns a model that predicts."""

import io
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from kravl.api.given import CLASS_NAMES, pairs, write_folders, write_labels
from kravl.api.model import FewShotModel
from kravl.api.settings import backbone_settings, compose_run, data_settings
from kravl.config.compose import as_written
from kravl.run.finished.labels import LABELS, Label
from kravl.run.train import train
from kravl.runtime.errors import InputError
from kravl.runtime.signals import EXIT_RESUMABLE
from kravl.tracking.run_folder import folder_of, require_short_names

IMAGES = "images"  # folder of those that are not files yet
STATES = "*/seed*/checkpoints/*"
LOGGERS = ("kravl", "pytorch_lightning", "lightning_fabric")


def fit(  # noqa: PLR0913 (each is a setting of a run)
    data: Any,
    labels: Any = None,
    *,
    test: Any = None,
    model: str = "ViT-B-16",
    pretrained: str | bool | None = None,
    method: str = "kra",
    shots: int | None = 16,
    seed: int = 1,
    settings: Mapping[str, Any] | None = None,
    class_names: Mapping[Label, str] | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
) -> FewShotModel:
    """Adapt a pretrained model to a few images per class: the run of ``kravl train``, as a model.

    Args:
        data: a folder with a folder per class, a table, or the name of a data set; a ``torch.utils.data.Dataset`` of
            (image, label); or images (paths, PIL images, arrays (h, w, c) of uint8) with as many ``labels``.
        test: what is tested on, likewise, of images as (images, labels); None: the test images of ``data``, else a
            fifth of each class, which is then not trained on.
        pretrained: an open_clip tag or a path; None: what the shipped backbone of this ``model`` has, or timm's own.
        shots: images per class; None: all.
        settings: others of ``kravl train`` by dotted key, such as ``{"optim.lr": 1e-3}``.
        class_names: what labels are called in a prompt; by default as they are written.
        out: the folder of runs, where the same call finds its run; None: one that lives as long as the model.
        quiet: no progress bar, table or line.

    Raises:
        InputError: whatever does not fit. KeyboardInterrupt: stopped on request. RuntimeError: as the run ended.
    """
    bars = {"tracking": "none", "trainer.enable_progress_bar": not quiet, "trainer.enable_model_summary": False}
    chosen = bars | backbone_settings(model, pretrained) | {"method": method, "shots": shots, "seed": seed}
    call = _Call(data, labels, test, chosen | dict(settings or {}), class_names)
    return call.fitted(Path(out), quiet) if out is not None else call.fitted_in_temporary(quiet)


class _Call(NamedTuple):
    """What is to be fitted."""

    data: Any
    labels: Any
    test: Any
    settings: dict[str, Any]
    class_names: Mapping[Label, str] | None

    def fitted_in_temporary(self, quiet: bool) -> FewShotModel:
        """In a folder that is removed with the model, or at once where there is none."""
        home = Path(tempfile.mkdtemp(prefix="kravl-"))
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, home, ignore_errors=True)
            model = self.fitted(home, quiet, home)
            undo.pop_all()
        return model

    def fitted(self, home: Path, quiet: bool, temporary: Path | None = None) -> FewShotModel:
        require_short_names(home.absolute())
        if isinstance(self.data, str | Path) and self.labels is None:
            folder, config = self._trained(_named(self.data, self.test), home, quiet)
            return FewShotModel.load(folder, plugins=config.plugins, temporary=temporary)
        if (images := home / IMAGES).exists():
            raise InputError(
                f"{images} is there, of an earlier call; pass another out=, or that folder's train as data="
            )
        before = set(home.glob(STATES)) if home.exists() else None
        with ExitStack() as undo:
            undo.callback(_remove, images, before)
            folder, config = self._trained(_written(images, self), home, quiet)
            shutil.copyfile(images / LABELS, folder / LABELS)
            undo.pop_all()
        return FewShotModel.load(folder, plugins=config.plugins, temporary=temporary)

    def _trained(self, of_data: Mapping[str, Any], home: Path, quiet: bool) -> tuple[Path, Any]:
        """The folder of the run, and its config."""
        config = compose_run({**of_data, **self.settings, "runs": str(home)})
        folder = folder_of(config.runs, config.name, config.seed, as_written(config))
        _train(config, quiet)
        return folder, config


def _remove(images: Path, before: set[Path] | None) -> None:
    """Remove what was written for a run that did not begin: else the same call would be refused.

    ``before`` has the states that were in the folder of runs, None if there was no such folder.
    """
    if set(images.parent.glob(STATES)) - (before or set()):  # of one that was stopped, which needs them to go on
        return
    shutil.rmtree(images, ignore_errors=True)
    if before is None:
        with suppress(OSError):  # a run has left its log
            images.parent.rmdir()


def _train(config: Any, quiet: bool) -> None:
    try:
        with _silent() if quiet else nullcontext():
            train(config)
    except SystemExit as end:
        if end.code == EXIT_RESUMABLE:
            raise KeyboardInterrupt("stopped on request") from end
        raise RuntimeError(str(end.code).removeprefix("error: ")) from end


def _named(data: str | Path, test: Any) -> dict[str, Any]:
    """Settings of data that are on disk already."""
    settings = data_settings(data)
    if test is None:
        return settings
    if settings["data"] != "folder" or not isinstance(test, str | Path):
        raise InputError("test= is a folder where data is one, and goes with no other named data set")
    return {**settings, "data.test": str(Path(test).absolute())}


def _written(folder: Path, call: _Call) -> dict[str, Any]:
    """Write the images as folders below ``folder``; returns the settings of them."""
    labels = write_folders(folder, "train", pairs(call.data, call.labels))
    known = getattr(call.data, "classes", None) if call.labels is None else None  # of torchvision's sets

    def name_of(label: Label) -> str:
        if call.class_names and label in call.class_names:
            return call.class_names[label]
        return str(known[label] if isinstance(known, list) and isinstance(label, int) and label < len(known) else label)

    write_labels(folder, labels, name_of)
    settings = {"data": "folder", "data.root": str(folder / "train"), "data.name": "given"}
    settings["data.class_names"] = str(folder / CLASS_NAMES)
    if call.test is None:
        return settings
    if isinstance(call.test, tuple) and len(call.test) != 2:
        raise InputError(f"test= is a tuple of {len(call.test)}; it must be (images, labels)")
    images, named = call.test if isinstance(call.test, tuple) else (call.test, None)
    write_folders(folder, "test", pairs(images, named), labels)
    return {**settings, "data.test": str(folder / "test")}


@contextmanager
def _silent() -> Iterator[None]:
    """Within the block nothing is shown; errors are raised all the same."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with ExitStack() as shown:
            shown.enter_context(redirect_stdout(io.StringIO()))
            shown.enter_context(redirect_stderr(io.StringIO()))
            if "IPython" in sys.modules:  # in a notebook tables and bars go past stdout
                shown.enter_context(import_module("IPython.utils.capture").capture_output())
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
