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
        count, rows = len(labels), torch.arange(len(labels), device=labels.device)

        def loss(weights: Tensor) -> tuple[Tensor, Tensor]:
            # written out: autograd would take as long again as the products
            w, b = weights[:-1], weights[-1]
            logits = torch.addmm(b, features, w)
            of_label, top = logits[rows, labels], logits.amax(dim=1, keepdim=True)
            error = logits.sub_(top).exp_()
            total = error.sum(dim=1, keepdim=True)
            value = ((total.log() + top)[:, 0] - of_label).mean() + w.square().sum() / (2 * self.c * count)
            error.div_(total * count)
            error[rows, labels] -= 1 / count
            slope = torch.cat([torch.addmm(w, features.T, error, beta=1 / (self.c * count)), error.sum(dim=0)[None]])
            return value, slope

        with torch.no_grad():
            found = converge(loss, torch.cat([self.weight.T, self.bias[None]]))  # (d + 1, C)
            self.weight.copy_(found[:-1].T)
            self.bias.copy_(found[-1])
