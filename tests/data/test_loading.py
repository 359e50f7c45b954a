"""A training loader hands out the same batches however often it is stopped, and whoever decodes them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from kravl.data.folder import ImageFolder
from kravl.data.loading import Batch, EvaluationImages, Loading, ResumableLoader, TrainingImages, evaluation_loader
from kravl.data.sampling import EpochSampler
from kravl.data.source import Samples
from kravl.data.transforms import Preprocess, make_transforms
from kravl.errors import InputError


@pytest.fixture
def samples(make_tree: Callable[..., Path]) -> Samples:
    return ImageFolder(str(make_tree("train", {"cat": 5, "dog": 4})), train="train").split("train")


def training_loader(samples: Samples, preprocess: Preprocess, num_workers: int = 0) -> ResumableLoader:
    images = TrainingImages(samples, make_transforms(preprocess, "crop_flip")[0])
    return ResumableLoader(images, EpochSampler(9, min_draws=15, seed=1), batch_size=4, num_workers=num_workers)


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(x, y) for a, b in zip(left, right, strict=True) for x, y in zip(a, b, strict=True)
    )


def test_a_batch_has_images_labels_and_their_places_in_the_samples(samples: Samples, preprocess: Preprocess) -> None:
    batches = list(training_loader(samples, preprocess))

    assert [len(batch.labels) for batch in batches] == [4, 4, 4, 3]
    assert batches[0].images.shape == (4, 3, 8, 8)
    assert batches[0].images.dtype == torch.float32
    for batch in batches:
        assert batch.labels.tolist() == [samples.labels[i] for i in batch.indices]


def test_workers_hand_out_the_very_same_batches(samples: Samples, preprocess: Preprocess) -> None:
    alone, helped = training_loader(samples, preprocess), training_loader(samples, preprocess, num_workers=2)

    for epoch in range(2):
        for loader in (alone, helped):
            loader.sampler.set_epoch(epoch)
        assert same(list(alone), list(helped))


def test_the_epochs_order_does_not_depend_on_the_global_generator(samples: Samples, preprocess: Preprocess) -> None:
    torch.manual_seed(0)
    first = list(training_loader(samples, preprocess))
    state = torch.get_rng_state()
    torch.manual_seed(1)

    assert same(list(training_loader(samples, preprocess)), first)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stopped_epoch_goes_on_with_the_next_batch(
    num_workers: int, samples: Samples, preprocess: Preprocess
) -> None:
    whole = training_loader(samples, preprocess)
    whole.sampler.set_epoch(3)
    batches = list(whole)
    stopped = training_loader(samples, preprocess, num_workers)
    stopped.sampler.set_epoch(3)
    iterator = iter(stopped)
    seen = [next(iterator), next(iterator)]
    state = stopped.state_dict()

    resumed = training_loader(samples, preprocess, num_workers)
    resumed.load_state_dict(state)

    assert state == {"epoch": 3, "batches": 2}
    assert resumed.state_dict() == state
    assert same(seen + list(resumed), batches)
    assert len(resumed) == 4
    assert same(list(resumed), batches)  # the epoch after is whole again


def test_a_finished_epoch_goes_on_with_the_next_one(samples: Samples, preprocess: Preprocess) -> None:
    loader = training_loader(samples, preprocess)
    list(loader)
    resumed = training_loader(samples, preprocess)

    resumed.load_state_dict(loader.state_dict())

    loader.sampler.set_epoch(1)
    assert same(list(resumed), list(loader))


class Recorder(LightningModule):
    """Trains nothing of interest, and keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, int, list[int], Tensor]] = []

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
    accumulate: int, samples: Samples, preprocess: Preprocess, tmp_path: Path
) -> None:
    def fit(
        callbacks: list[ModelCheckpoint], checkpoint: Path | None = None
    ) -> list[tuple[int, int, list[int], Tensor]]:
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
        trainer.fit(recorder, training_loader(samples, preprocess), ckpt_path=checkpoint)
        return recorder.seen

    folder = tmp_path / "checkpoints"
    whole = fit([ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)])

    checkpoints = sorted(folder.glob("step=*.ckpt"))
    assert len(checkpoints) == {1: 12, 3: 6}[accumulate]
    assert [(epoch, batch) for epoch, batch, _, _ in whole] == [(e, b) for e in range(3) for b in range(4)]
    lengths = []
    for checkpoint in checkpoints:
        rest = fit([], checkpoint)
        assert rest == whole[len(whole) - len(rest) :]
        lengths.append(len(rest))
    assert sorted(lengths) == {1: list(range(12)), 3: [0, 1, 4, 5, 8, 9]}[accumulate]


def test_evaluation_takes_every_image_in_order(samples: Samples, preprocess: Preprocess) -> None:
    transform = make_transforms(preprocess, "none")[1]
    loader = evaluation_loader(EvaluationImages(samples, transform), Loading(eval_batch_size=4, num_workers=0))

    batches = list(loader)

    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(9))
    assert torch.cat([batch.labels for batch in batches]).tolist() == list(samples.labels)
    assert torch.equal(batches[2].images[0], transform(samples.image(8)))
    assert loader.dataset.samples is samples


@pytest.mark.parametrize("name", ["batch_size", "eval_batch_size", "min_batches"])
def test_a_setting_below_its_least_value_is_named(name: str) -> None:
    with pytest.raises(InputError, match=f"loading.{name} is 0; it must be at least 1"):
        Loading(**{name: 0})
