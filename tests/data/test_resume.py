"""Lightning resumes from any checkpoint with the batches that were left."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from kravl.data.datamodule import FewShotDataModule, FewShotSplit
from kravl.data.loading.resumable import Batch, LoadingSettings
from kravl.data.loading.transforms import PreprocessLike
from kravl.data.sources.folder import ImageFolder

Seen = tuple[int, int, list[int], Tensor]  # epoch, batch, which images, their sum


class Recorder(LightningModule):
    """Trains nothing of interest, and keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[Seen] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seen.append((self.current_epoch, batch_idx, batch.indices.tolist(), batch.images.sum()))
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")  # what was saved is not saved again
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")  # said on many cores only
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")  # Lightning's own
@pytest.mark.parametrize("accumulate", [1, 3])
def test_lightning_resumes_in_mid_epoch_with_the_batches_that_were_left(
    accumulate: int, make_tree: Callable[..., Path], preprocess: PreprocessLike, tmp_path: Path
) -> None:
    root = str(make_tree("train", {"cat": 5, "dog": 4}))
    loading = LoadingSettings(batch_size=4, num_workers=0, min_batches=4)

    def fit(callbacks: list[ModelCheckpoint], checkpoint: Path | None = None) -> list[Seen]:
        data = FewShotDataModule(ImageFolder(root, train="train", test="train"), FewShotSplit(shots=None), loading)
        data.preprocess = preprocess
        recorder = Recorder()
        trainer = Trainer(
            max_epochs=3,
            accumulate_grad_batches=accumulate,
            accelerator="cpu",
            logger=False,
            callbacks=callbacks,
            enable_checkpointing=bool(callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(recorder, data, ckpt_path=checkpoint)
        return recorder.seen

    folder = tmp_path / "checkpoints"
    whole = fit([ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)])

    checkpoints = sorted(folder.glob("step=*.ckpt"))
    assert len(checkpoints) == {1: 12, 3: 6}[accumulate]
    assert [(epoch, batch) for epoch, batch, _, _ in whole] == [(e, b) for e in range(3) for b in range(4)]
    lengths = []
    for checkpoint in checkpoints:
        resumed = fit([], checkpoint)
        assert resumed == whole[len(whole) - len(resumed) :]
        lengths.append(len(resumed))
    assert sorted(lengths) == {1: list(range(12)), 3: [0, 1, 4, 5, 8, 9]}[accumulate]
