"""A folder that timm loads as ``local-dir:FOLDER``, on the hub as ``hf-hub:ORG/NAME``."""

import json
import math
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from kravl.backbones.preprocess import RESIZE_MODES, Preprocess, Size
from kravl.export.plain import PlainModel

TOLERANCE = 1e-5
ONE_TOWER = True
CROP_MODES = {ours: timms for timms, ours in RESIZE_MODES.items()}


def write(model: PlainModel, folder: Path) -> list[str]:
    """Config with class names, and weights."""
    known = dict(model.encoder.pretrained_cfg)
    names = list(model.run.class_names)
    config: dict[str, Any] = {
        "architecture": known["architecture"],
        "num_classes": len(names),
        "num_features": model.encoder.num_features,
        "label_names": names,
        "pretrained_cfg": {
            **{key: known[key] for key in ("first_conv", "classifier") if key in known},
            **_preprocessing(model.run.classifier.preprocess),
            "num_classes": len(names),
        },
    }
    size = model.settings.get("image_size")
    if size is not None:
        config["model_args"] = {"img_size": size}
    state = {name: tensor.contiguous() for name, tensor in model.encoder.state_dict().items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    return []


def _preprocessing(preprocess: Preprocess) -> dict[str, Any]:
    """What timm's transform is made from."""
    height, width = _sides(preprocess.image_size)
    return {
        "input_size": [3, height, width],
        "fixed_input_size": True,
        "interpolation": preprocess.interpolation,
        "crop_pct": _crop_pct(height, _sides(preprocess.resize)[0]),
        "crop_mode": CROP_MODES[preprocess.resize_mode],
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
    }


def _crop_pct(size: int, resize: int) -> float:
    """A share of which timm makes ``resize`` pixels again: floor(size / share)."""
    share = size / resize
    return share if math.floor(size / share) == resize else size / (resize + 0.5)


def _sides(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
