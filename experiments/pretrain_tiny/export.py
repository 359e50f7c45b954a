"""The weights that ship: what train.py left, in half precision, with what is known of the training.

    python experiments/pretrain_tiny/export.py OUT_FOLDER [WEIGHTS.safetensors]

Without a second path the weights go where the package reads them. The same model.pt gives the same bytes.
"""

import csv
import hashlib
import json
import sys
from pathlib import Path

import torch
from open_clip.model import CLIP
from safetensors.torch import save

from kravl.backbones.tiny import CONFIG, WEIGHTS


def training(folder: Path) -> dict[str, str]:
    """The last line of the training's log by column, and the digest of the model that it left."""
    with (folder / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise SystemExit(f"{folder / 'log.csv'} has no line yet: the training has not ended")
    return rows[-1] | {"model_sha256": hashlib.sha256((folder / "model.pt").read_bytes()).hexdigest()}


def sorted_header(content: bytes) -> bytes:
    """The same safetensors file with its header in alphabetical order, which safetensors leaves to chance."""
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)  # the format aligns what follows to eight bytes
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def export(folder: Path, weights: Path) -> None:
    """Write ``weights`` from ``folder``/model.pt and ``folder``/log.csv."""
    config = json.loads(CONFIG.read_text())
    model = CLIP(**config)
    model.load_state_dict(torch.load(folder / "model.pt", map_location="cpu", weights_only=True))
    halves = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    if too_large := [name for name, tensor in halves.items() if not tensor.isfinite().all()]:
        raise SystemExit(f"not finite in half precision: {', '.join(too_large)}")
    quick_gelu = str(config.get("quick_gelu", False)).lower()
    metadata = {"quick_gelu": quick_gelu, "training": json.dumps(training(folder), sort_keys=True)}
    weights.write_bytes(sorted_header(save(halves, metadata)))
    print(f"{weights}: {sum(t.numel() for t in halves.values()):,} parameters, {weights.stat().st_size:,} bytes")


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else WEIGHTS)
