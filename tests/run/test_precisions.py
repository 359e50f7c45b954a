"""A run ends with the same bits in every precision, wherever it is interrupted, and evaluates to them later."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kravl.run import train as module
from kravl.run.evaluate import evaluate_run
from kravl.run.train import train

PRECISIONS = ("64-true", "bf16-true")  # faults/row_23_precisions.py has the others


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_resumed_run_is_bitwise_the_undisturbed_one(
    tiny_run: Callable[..., Any],
    stop: Callable[..., None],
    compose_evaluation: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    def command(runs: str) -> Any:
        small = ("shots=2", "loading.batch_size=4", "spectrum_every=2", "alphas=1", "cache_root=null")
        return tiny_run(f"runs={tmp_path}/{runs}", f"trainer.precision={precision}", "unfreeze=[norm.*]", *small)

    metrics = train(command("whole"))
    stop(command("stopped"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "evaluate", lambda *given, **named: (_ for _ in ()).throw(KeyboardInterrupt))
        train(command("stopped"))  # resumed, and ended before it is evaluated

    assert train(command("stopped")) == metrics
    (whole,), (stopped,) = (list((tmp_path / runs).glob("*/*/adapter.safetensors")) for runs in ("whole", "stopped"))
    assert whole.read_bytes() == stopped.read_bytes()
    later = evaluate_run(
        compose_evaluation(f"run={whole.parent}", "evaluation=in_domain", "alphas=1", "cache_root=null")
    )
    assert later["metrics"] == metrics["metrics"]
