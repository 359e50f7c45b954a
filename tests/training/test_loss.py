"""The loss against torch's cross_entropy, and several batches against one of all their images."""

from typing import NamedTuple

import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from kravl.runtime.errors import InputError
from kravl.training.learner import Learner
from kravl.training.loss import Loss, check_loss, resolved_class_weights
from kravl.training.optim import OptimSettings

SETTINGS = OptimSettings(lr=1e-2, head_lr=None, weight_decay=0.1, warmup_steps=0, min_lr_ratio=0.5)
WEIGHTS = [0.2, 1.0, 5.0]
LABELS = torch.tensor([0, 1, 2, 2, 1, 0, 0, 2, 1, 1, 2, 0])


class Batch(NamedTuple):
    images: Tensor
    labels: Tensor
    indices: Tensor


class Flat(nn.Module):
    class_names = ("a", "b", "c")

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 3)

    def head_parameters(self) -> list[nn.Parameter]:
        return []

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))


@pytest.mark.parametrize(("smoothing", "weights"), [(0.1, None), (0.0, WEIGHTS), (0.3, WEIGHTS)])
def test_label_smoothing_and_class_weights_are_torchs(smoothing: float, weights: list[float] | None) -> None:
    logits = torch.randn(12, 3)
    weight = torch.tensor(weights) if weights else None

    loss, differentiated = Loss(smoothing, weights)(logits, LABELS)

    torch.testing.assert_close(loss, F.cross_entropy(logits, LABELS, weight, label_smoothing=smoothing))
    assert differentiated is loss


def test_balanced_weights_are_inverse_to_the_images_of_a_class() -> None:
    # sklearn.utils.class_weight.compute_class_weight("balanced", classes=[0, 1, 2], y=...)
    assert resolved_class_weights("balanced", [0, 0, 0, 1, 2, 2], ["a", "b", "c"]) == pytest.approx([2 / 3, 2.0, 1.0])


def trained(sizes: list[int], accumulate: int, loss: Loss) -> list[Tensor]:
    """The parameters after three epochs over the same twelve images in batches of these sizes."""
    torch.manual_seed(0)
    model, images, indices = Flat(), torch.randn(12, 3, 2, 2), torch.arange(12)
    batches = [Batch(*part) for part in zip(*(t.split(sizes) for t in (images, LABELS, indices)), strict=True)]
    trainer = Trainer(
        accelerator="cpu", max_epochs=3, accumulate_grad_batches=accumulate, gradient_clip_val=0.3, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Learner(model, SETTINGS, 1, loss), DataLoader(batches, batch_size=None))
    return list(model.parameters())


@pytest.mark.parametrize(("smoothing", "weights"), [(0.0, None), (0.2, WEIGHTS)])
@pytest.mark.parametrize("sizes", [[4, 4, 4], [4, 4, 3, 1], [6, 2, 4]], ids=str)
def test_accumulated_batches_train_as_the_larger_batch(
    smoothing: float, weights: list[float] | None, sizes: list[int]
) -> None:
    expected = trained([8, 4], 1, Loss(smoothing, weights))

    for ours, theirs in zip(trained(sizes, 2, Loss(smoothing, weights)), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_even_windows_have_the_bits_of_a_mean_of_means() -> None:
    loss, logits, gradients = Loss(), torch.randn(8, 3), [torch.ones(2)]
    loss.start(batches=2)

    for part, labels in zip(logits.split(4), LABELS[:8].split(4), strict=True):
        mean, differentiated = loss(part, labels)
        assert torch.equal(mean, differentiated)
    loss.rescale(gradients)

    assert torch.equal(gradients[0], torch.ones(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.5, None), r"label_smoothing=1.5; it is a share, from 0"),
        ((0.0, "balance"), r"class_weights=balance; legal are null, balanced and a list"),
        ((0.0, 3), r"class_weights=3; legal are"),
        ((0.0, [1.0, 0.0]), r"class_weights has 0.0; each weight must be a number above 0"),
        ((0.0, [1.0, float("nan")]), r"class_weights has nan"),
        ((0.0, [1.0, "2"]), r"class_weights has '2'"),
    ],
)
def test_a_loss_that_is_none_is_refused(arguments: tuple[float, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_loss(*arguments)


def test_weights_that_do_not_fit_the_classes_are_refused() -> None:
    with pytest.raises(InputError, match=r"class_weights has 2 weights; there are 3 classes"):
        resolved_class_weights([1.0, 2.0], [0, 1, 2], ["a", "b", "c"])
    with pytest.raises(InputError, match=r"balanced: 1 classes have no training image \(b\)"):
        resolved_class_weights("balanced", [0, 2], ["a", "b", "c"])
