"""A classifier small enough to check by hand, its trainer and its images."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pytorch_lightning import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class TinyClassifier(nn.Module):
    """Five times the cosine of 12 pooled pixels and class weights, normalised in `prepare` as CLIP's text features."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, 12))
        self.dropout = nn.Dropout(0.5)
        self.fixed = False
        self.prepare()

    def prepare(self) -> None:
        self.features = F.normalize(self.weight, dim=-1).detach()

    def image_features(self, images: Tensor) -> Tensor:
        return F.normalize(self.dropout(F.adaptive_avg_pool2d(images, 2).flatten(1)), dim=-1)

    def logits(self, features: Tensor) -> Tensor:
        return 5 * features @ self.features.T

    def features_are_fixed(self) -> bool:
        return self.fixed


def logits_of(classifier: TinyClassifier, data: DataLoader) -> Tensor:
    """The same written out, without dropout, for all images of ``data`` and the weights as they are now."""
    weights = classifier.weight / classifier.weight.norm(dim=1, keepdim=True)
    pooled = data.dataset.tensors[0].unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2)).flatten(1)
    return (5 * (pooled / pooled.norm(dim=1, keepdim=True)) @ weights.T).detach()


def quiet_trainer() -> Trainer:
    """On the CPU, without files, bars or logs."""
    return Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)


def image_set(labels: Sequence[int], seed: int = 0) -> TensorDataset:
    """Random 4 x 4 images with these labels: (images, labels, indices)."""
    images = torch.randn(len(labels), 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(images, torch.tensor(labels), torch.arange(len(labels)))


def loader(labels: Sequence[int], batch_size: int = 3, seed: int = 0) -> DataLoader:
    """`image_set` in batches."""
    return DataLoader(image_set(labels, seed), batch_size=batch_size)
