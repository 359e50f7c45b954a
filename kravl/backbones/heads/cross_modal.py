"""Cross-modal linear probe: text features as further training samples (Lin et al., CVPR 2023, 2301.06267)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from kravl.backbones.heads.fitting import CHECKED_EVERY, Descent, take_step
from kravl.backbones.heads.head import Head, Problem, Support, given
from kravl.runtime.signals import raise_if_stopped


class CrossModal(Head):
    """scale * f·w_k, w from the text features, trained on batches that are half images and half text features.

    The published code chooses the step on validation images every 100 steps; here it is the last. Its logits have a
    scale of exp(4.60517) = 100, its images a centre crop and its mirror image.

    Args:
        batch_size: of which one half are text features.
        warmup: steps in which the rate rises.
    """

    rule = "steps"
    starts_at_zero_shot = True
    grid: ClassVar = {"lr": (1e-3, 1e-4), "weight_decay": (0.0, 0.01, 1e-4), "batch_size": (8, 32)}

    def __init__(  # noqa: PLR0913 (each is a setting of head)
        self,
        problem: Problem,
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        steps: int = 12800,
        warmup: int = 50,
        batch_size: int = 32,
        views: int = 2,
        least_area: float = 0.5,
    ) -> None:
        super().__init__(problem, views=views, least_area=least_area)
        self.lr, self.weight_decay, self.steps = lr, weight_decay, steps
        self.warmup, self.batch_size = warmup, batch_size
        self.weight = nn.Parameter(torch.clone(given(problem.text)))

    def forward(self, features: Tensor, text: Tensor | None) -> Tensor:
        return self.scale * (features @ self.weight.T)

    def learn(self, support: Support) -> None:
        plan = Descent("adamw", self.lr, steps=self.steps, weight_decay=self.weight_decay, warmup=self.warmup,
                       rising=True)  # fmt: skip
        every, text = support.every_view(), given(support.text)
        images, labels, classes = every.first_views(), every.labels, torch.arange(self.num_classes).to(every.labels)
        half = max(1, self.batch_size // 2)
        generator = torch.Generator().manual_seed(support.seed)
        optimizer = plan.build([self.weight])
        of_images, of_text = _Shuffled(len(images), half, generator), _Shuffled(self.num_classes, half, generator)
        for step in range(self.steps):
            if step % CHECKED_EVERY == 0:
                raise_if_stopped()
            rows, texts = of_images.take().to(labels.device), of_text.take().to(labels.device)
            for group in optimizer.param_groups:
                group["lr"] = plan.rate(step, self.steps)
            x = torch.cat([images[rows], text[texts]])
            take_step(optimizer, self, x, torch.cat([labels[rows], classes[texts]]), text)


class _Shuffled:
    """Batches of positions from endless random permutations, each position equally often."""

    def __init__(self, count: int, size: int, generator: torch.Generator) -> None:
        self._count, self._size, self._generator = count, min(size, count), generator
        self._left = torch.empty(0, dtype=torch.long)

    def take(self) -> Tensor:
        while len(self._left) < self._size:
            self._left = torch.cat([self._left, torch.randperm(self._count, generator=self._generator)])
        taken, self._left = self._left[: self._size], self._left[self._size :]
        return taken
