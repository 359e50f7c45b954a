"""A finished run written for another library, checked by that library alone, and left where it was asked for."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import kravl
from kravl.backbones.text.class_features import class_prompts
from kravl.export.card import model_card
from kravl.export.check import TEXTS, ExportError, difference, reference
from kravl.export.plain import PlainModel, plain_model
from kravl.export.target import ABOUT, CARD, check_run, check_target
from kravl.run.finished.restore import LoadedRun
from kravl.run.prediction.scorer import Scorer
from kravl.runtime.errors import InputError

LOADERS = Path(__file__).parent / "loaders"
LOADER = "load.py"
Write = Callable[[PlainModel, Path], Sequence[str]]


class Export(NamedTuple):
    """What has been written.

    Args:
        difference: the largest of a logit, see `kravl.export.check.difference`.
        tolerance: above which it would have been refused.
        notes: a line for each thing that the format cannot hold.
        extensions: what of kravl loading takes all the same.
    """

    folder: Path
    difference: float
    tolerance: float
    notes: tuple[str, ...]
    extensions: tuple[str, ...] = ()


def export_run(run: LoadedRun, to: str, out: Path, alpha: float = 1.0, force: bool = False) -> Export:
    """Write ``run`` to the folder ``out`` in the format ``to``; its adapters are merged for good in memory.

    Before the folder is there under its name, another process, in which kravl cannot be imported, loads it with the
    other library and scores the same pictures.

    Args:
        alpha: share of the update, WiSE-FT: 1 the adapted weights, 0 the pretrained ones.
        force: replace an earlier export.

    Raises:
        InputError: no such format, one that cannot hold the model, or a folder that is there or cannot be written.
        ExportError: the other library does not load it, or its logits differ; the folder is removed.
    """
    check_target(to, out, force)
    module: Any = import_module(f"kravl.export.formats.{to}")
    check_run(to, run.cfg, run.adapters.description()["method"], alpha)
    run.classifier.float()  # what was trained in half precision is exported in single
    expected = reference(Scorer.of_run(run, alpha, precision="32-true"))._replace(temperature=run.temperature(alpha))
    try:
        with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as place:
            folder = Path(place) / "export"
            folder.mkdir()
            model = plain_model(run, alpha, getattr(module, "ADAPTER_ALONE", False))
            notes = (*module.write(model, folder), *_calibration(run, alpha))
            more = module.about(model) if hasattr(module, "about") else {}
            _describe(model, to, folder, module.loader(model) if hasattr(module, "loader") else to, more)
            if model.is_clip:
                expected = expected._replace(text=model.text_features, scale=model.scale)
            found = difference(folder, expected)
            if not found <= module.TOLERANCE:
                raise ExportError(f"the logits of the export differ by {found:.1e}, above {module.TOLERANCE:.0e}")
            (folder / CARD).write_text(model_card(run, to, alpha, found, more.get("extensions", [])))
            if out.exists():
                shutil.rmtree(out)
            folder.rename(out)
    except OSError as error:
        raise InputError(f"the export cannot be written to {out}: {error.strerror or error}; pass --out") from error
    return Export(out, found, module.TOLERANCE, notes, tuple(more.get("extensions", ())))


def _calibration(run: LoadedRun, alpha: float) -> list[str]:
    """What becomes of the run's temperature, in a line."""
    if run.calibration is None:
        return []
    if alpha != 1:
        return [f"not calibrated: the temperature of the run is of its adapted model, not of alpha={alpha:g}"]
    return [f"probabilities of load.py are calibrated, logits are not: {run.calibration.describe()}"]


def _describe(model: PlainModel, to: str, folder: Path, loader: str, more: Mapping[str, Any]) -> None:
    """export.json, and load.py, which reads it."""
    record = model.run.record
    prompts = class_prompts(record.class_names, record.prompts)[:TEXTS] if model.is_clip else []
    about = {
        "kravl": kravl.__version__,
        "format": to,
        "alpha": model.alpha,
        "class_names": list(record.class_names),
        "prompts": record.prompts,
        "prompts_of_classes": prompts,
        "tokens_of_classes": [model.clip.tokenizer(of_class).tolist() for of_class in prompts],
        "scale": model.scale,
        "temperature": model.temperature,
        "preprocess": model.run.classifier.preprocess.recorded(),
        **more,
        "pretrained": {**record.backbone, "weights_sha256": record.weights_sha256},
    }
    shutil.copyfile(LOADERS / f"{loader}.py", folder / LOADER)
    (folder / CARD).unlink(missing_ok=True)  # another library's, in place of which that of the export is written last
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    about["files"] = {str(path.relative_to(folder)): path.stat().st_size for path in files}
    (folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n")
