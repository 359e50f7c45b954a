"""The parameters of an experiment and its result, in the form of PEFT's method comparison."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from torch import nn

PACKAGES = ("transformers", "peft", "datasets", "kravl", "torch")


@dataclass
class TrainConfig:
    """As in PEFT's tasks, with what images need: columns, splits, shots and the prompt of a class."""

    model_id: str
    dataset_id: str
    train_split: str
    test_split: str
    image_column: str
    label_column: str
    prompt_template: str
    shots: int
    valid_shots: int
    test_size: int | None
    dtype: str
    batch_size: int
    batch_size_eval: int
    max_steps: int
    eval_steps: int
    compile: bool
    use_gc: bool
    seed: int
    grad_norm_clip: float
    optimizer_type: str
    optimizer_kwargs: dict[str, Any]
    lr_scheduler: str | None
    use_amp: bool
    autocast_adapter_dtype: bool
    attn_implementation: str | None


def train_config(path: Path, **changes: Any) -> TrainConfig:
    """The defaults, what the experiment changes, and ``changes``."""
    settings = json.loads((Path(__file__).parent / "default_training_params.json").read_text())
    own = path / "training_params.json"
    return TrainConfig(**settings | (json.loads(own.read_text()) if own.exists() else {}) | changes)


def result_of(  # noqa: PLR0913 (the parts of a result)
    name: str,
    start: str,
    config: TrainConfig,
    peft_config: PeftConfig,
    model: nn.Module,
    metrics: Sequence[dict[str, Any]],
    memory: Sequence[int],
) -> dict[str, Any]:
    settings = {k: sorted(v) if isinstance(v, set) else v for k, v in peft_config.to_dict().items()}
    ordered, cuda = sorted(memory), torch.cuda.is_available()
    return {
        "run_info": {
            "created_at": start, "total_time": None, "experiment_name": name, "peft_branch": None,
            "train_config": asdict(config), "peft_config": settings, "error_msg": "",
        },
        "train_info": {
            "accelerator_memory_reserved_avg": sum(memory) // len(memory),
            "accelerator_memory_max": torch.cuda.max_memory_reserved() if cuda else 0,
            "accelerator_memory_reserved_99th": ordered[int(0.99 * (len(ordered) - 1))],
            "train_time": None, "file_size": None,
            "num_trainable_params": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "num_total_params": sum(p.numel() for p in model.parameters()),
            "status": "success", "metrics": list(metrics),
        },
        "meta_info": {
            "model_info": {"sha": None, "created_at": None}, "dataset_info": {"sha": None, "created_at": None},
            "package_info": {f"{package}-version": _version(package) for package in PACKAGES},
            "system_info": {
                "system": platform.system(), "release": platform.release(), "version": platform.version(),
                "machine": platform.machine(), "processor": platform.processor(),
                "accelerator": torch.cuda.get_device_name(0) if cuda else "cpu",
            },
            "pytorch_info": torch.__config__.show(),
        },
    }  # fmt: skip


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
