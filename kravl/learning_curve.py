"""The learning curve of a run: loss and learning rate by optimiser step, in curve.json."""

import json
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from kravl.runtime.files import write_whole

CURVE = "curve.json"
POINTS = 200  # at most, and the last step


class LearningCurve(Callback):
    """Writes ``folder``/curve.json when training ends; until then the curve is part of every checkpoint.

    ``loss`` (nats) is the mean over the steps since the point before: a single batch of few images says little.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / CURVE
        self.points: dict[str, list[float]] = {name: [] for name in ("step", "loss", "lr")}
        self._sum: Tensor | None = None  # stays on the device: reading it would hold up every step
        self._count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"points": self.points, "sum": self._sum, "count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.points, self._sum, self._count = (state_dict[name] for name in ("points", "sum", "count"))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = trainer.callback_metrics["train/loss"].detach()
        self._sum = loss.clone() if self._sum is None else self._sum.to(loss.device) + loss
        self._count += 1
        every = max(1, -(-int(trainer.estimated_stepping_batches) // POINTS))
        if trainer.global_step % every == 0 and trainer.global_step > max(self.points["step"], default=0):
            self._add(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._count:
            self._add(trainer)
        if trainer.is_global_zero:
            write_whole(self.path, json.dumps(self.points, sort_keys=True) + "\n")

    def _add(self, trainer: Trainer) -> None:
        assert self._sum is not None
        self.points["step"].append(trainer.global_step)
        self.points["loss"].append(self._sum.item() / self._count)
        self.points["lr"].append(trainer.optimizers[0].param_groups[0]["lr"])
        self._sum, self._count = None, 0
