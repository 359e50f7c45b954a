"""What can be exported and where to, asked before anything is loaded."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kravl.runtime.errors import InputError, unknown
from kravl.runtime.files import require_writable

if TYPE_CHECKING:
    from kravl.config.schema import Config

ABOUT, CARD = "export.json", "README.md"


def formats() -> list[str]:
    """The names of what a run can be exported to: the files of `kravl.export.formats`."""
    return sorted(path.stem for path in (Path(__file__).parent / "formats").glob("*.py") if path.stem != "__init__")


def check_target(to: str, out: Path, force: bool) -> None:
    """Raise InputError for no format, and a folder that is there, unless ``force`` and it is an export or empty."""
    if to not in formats():
        raise unknown("format", to, formats())
    if not out.parent.is_dir():
        raise InputError(f"no folder {str(out.parent)!r} for {out.name}; make it first")
    if out.exists() and not force:
        raise InputError(f"{out} is there already; --force replaces it, --out FOLDER writes another one")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / ABOUT).is_file())):
        raise InputError(f"{out} is no export of kravl, which --force would replace; remove it yourself")
    try:
        require_writable(out.parent, "pass --out")
    except InputError as error:
        raise InputError(f"the export cannot be written to {out}: {error}") from error


def check_run(to: str, cfg: "Config", method: object, alpha: float) -> None:
    """Hold a run against the format ``to``; no weights are needed.

    Args:
        method: the full name of its adapters' class; None where no matrix is adapted.
        alpha: share of the update.

    Raises:
        InputError: a format that cannot hold its model or its adapters, or is not installed; or no point of its curve.
    """
    from kravl.backbones.classifier import Classifier  # with torch
    from kravl.backbones.heads.head import Head
    from kravl.config.instantiate import resolve
    from kravl.run.prediction.scorer import check_alpha

    check_alpha(cfg, alpha)
    module: Any = import_module(f"kravl.export.formats.{to}")
    if cfg.head and not getattr(module, "HOLDS_HEADS", False):
        head = resolve(cfg.head, Head, cfg.plugins).__name__
        raise InputError(
            f"--to {to} has no place for {head}, a head on features; --to onnx and --to pt2 hold the classifier as a "
            "whole"
        )
    has_text = resolve(cfg.backbone.build, Classifier, cfg.plugins).zero_shot
    if (holds := getattr(module, "TWO_TOWERS", None)) and not has_text:
        raise InputError(
            f"{holds} holds an image and a text tower; {cfg.backbone.name} has an image tower alone: --to timm"
        )
    if getattr(module, "ONE_TOWER", False) and has_text:
        raise InputError(
            f"timm holds image classifiers with a linear head; the logits of {cfg.backbone.name} are cosines with "
            "features of texts: --to open_clip, transformers, onnx or pt2"
        )
    if require := getattr(module, "require", None):
        require(cfg, None if method is None else str(method), alpha)
