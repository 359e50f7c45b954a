"""A run that is asked to stop in its second step."""

import signal
from collections.abc import Callable
from typing import Any

import pytest

from kravl.run.train import train
from kravl.training.learner import Learner


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Start a run that is asked to stop in its second step."""

    def stopped(cfg: Any) -> None:
        step, calls = Learner.training_step, [0]

        def second(learner: Learner, batch: Any, batch_idx: int) -> Any:
            calls[0] += 1
            if calls[0] == 2:
                signal.raise_signal(signal.SIGTERM)
            return step(learner, batch, batch_idx)

        with monkeypatch.context() as patch, pytest.raises(SystemExit, match="75"):
            patch.setattr(Learner, "training_step", second)
            train(cfg)

    return stopped
