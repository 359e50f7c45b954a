"""Tip-Adapter-F: the keys of a Tip-Adapter, trained (Zhang et al., ECCV 2022, 2207.09519)."""

from kravl.backbones.heads.fitting import Descent, descend
from kravl.backbones.heads.head import Problem, Support
from kravl.backbones.heads.tip_adapter import TrainedKeys


class TipAdapterF(TrainedKeys):
    """The published code prints the best epoch on the test images; here it is the last.

    Args:
        alpha, beta: as of a Tip-Adapter.
        epochs: over the images, a view of each; published: 20 (EuroSAT: 100).
    """

    rule = "steps"

    def __init__(  # noqa: PLR0913 (each is a setting of head)
        self,
        problem: Problem,
        *,
        alpha: float = 1.0,
        beta: float = 5.5,
        lr: float = 1e-3,
        epochs: int = 20,
        batch_size: int = 256,
        weight_decay: float = 0.01,
        views: int = 10,
        least_area: float = 0.5,
    ) -> None:
        super().__init__(problem, alpha=alpha, beta=beta, views=views, least_area=least_area)
        self.lr, self.epochs, self.batch_size, self.weight_decay = lr, epochs, batch_size, weight_decay

    def learn(self, support: Support) -> None:
        super().learn(support)
        plan = Descent("adamw", self.lr, self.epochs, None, self.batch_size, weight_decay=self.weight_decay, eps=1e-4)
        descend(self, support, plan)
