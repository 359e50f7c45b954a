"""Logistic regression on unit features: the linear probe of CLIP (2103.00020) and of CLIP_benchmark."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kravl.backbones.heads.fitting import Descent, converge, descend
from kravl.backbones.heads.head import Head, Problem, Support
from kravl.runtime.errors import unknown

SOLVERS = ("lbfgs", "adamw")


class LogisticRegression(Head):
    """Logits W f + b from zero.

    Args:
        solver: ``lbfgs`` minimises cross-entropy + ||W||² / (2 c n) to convergence, as scikit-learn; ``adamw`` takes
            CLIP_benchmark's steps (github.com/LAION-AI/CLIP_benchmark), without a penalty.
        c: inverse strength of the penalty; CLIP's 0.316 on raw features, whose norm is about 10, is 31.6 on unit ones.
        lr, epochs, batch_size: of ``adamw``.

    Raises:
        InputError: an unknown solver.
    """

    rule = "full batch"
    needs_text = False
    grid = {"c": (0.1, 1.0, 10.0, 31.6, 100.0, 1000.0, 10000.0)}  # noqa: RUF012 (declared in Head)

    def __init__(  # noqa: PLR0913 (each is a setting of head)
        self,
        problem: Problem,
        *,
        solver: str = "lbfgs",
        c: float = 31.6,
        lr: float = 0.1,
        epochs: int = 10,
        batch_size: int = 64,
        views: int = 10,
        least_area: float = 0.5,
    ) -> None:
        super().__init__(problem, views=views, least_area=least_area)
        if solver not in SOLVERS:
            raise unknown("head.solver", solver, SOLVERS)
        self.solver, self.c, self.lr, self.epochs, self.batch_size = solver, c, lr, epochs, batch_size
        self.weight = nn.Parameter(torch.zeros(problem.num_classes, problem.width))
        self.bias = nn.Parameter(torch.zeros(problem.num_classes))

    def forward(self, features: Tensor, text: Tensor | None) -> Tensor:
        return F.normalize(features, dim=-1) @ self.weight.T + self.bias

    def learn(self, support: Support) -> None:
        every = support.every_view()
        if self.solver == "adamw":
            descend(self, every, Descent("adamw", self.lr, self.epochs, None, self.batch_size))
            return
        features, labels = F.normalize(every.first_views(), dim=-1), every.labels
        count, rows, size = len(labels), torch.arange(len(labels), device=labels.device), self.weight.numel()

        def loss(numbers: Tensor) -> tuple[Tensor, Tensor]:
            # written out, as autograd would take as long again as the products; classes first, as these are faster then
            w, b = numbers[:size].view_as(self.weight), numbers[size:]
            log_probability = torch.addmm(b[:, None], w, features.T).log_softmax(dim=0)  # (C, n)
            value = w.square().sum() / (2 * self.c * count) - log_probability[labels, rows].mean()
            error = log_probability.exp_()
            error[labels, rows] -= 1
            slope = torch.empty_like(numbers)
            of_weight = slope[:size].view_as(self.weight)
            torch.addmm(w, error, features, beta=1 / (self.c * count), alpha=1 / count, out=of_weight)
            torch.mean(error, dim=1, out=slope[size:])
            return value, slope

        with torch.no_grad():
            found = converge(loss, torch.cat([self.weight.flatten(), self.bias]))
            self.weight.copy_(found[:size].view_as(self.weight))
            self.bias.copy_(found[size:])
