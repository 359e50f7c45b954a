"""A run ends with the same bits in every precision, wherever it is interrupted, and evaluates to them later."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kravl.run import train as module
from kravl.run.evaluate import evaluate_run
from kravl.run.train import train
from kravl.runtime.dtypes import TRUE
from kravl.runtime.errors import InputError

# of what is computed, and of frozen matrices as they are stored; faults/row_24_precisions.py has the others
PRECISIONS = [("cpu", "64-true", "null"), ("cpu", "bf16-true", "null"), ("cpu", "32-true", "bf16")]
ON_A_GPU = ("32-true", "bf16-mixed", "16-mixed", "bf16-true")
PRECISIONS += [pytest.param("gpu", precision, "null", marks=pytest.mark.gpu) for precision in ON_A_GPU]
PRECISIONS += [pytest.param("gpu", precision, "bf16", marks=pytest.mark.gpu) for precision in ON_A_GPU[:3]]


@pytest.mark.parametrize(("accelerator", "precision", "stored"), PRECISIONS)
def test_a_resumed_run_is_bitwise_the_undisturbed_one(  # noqa: PLR0913 (fixtures)
    tiny_run: Callable[..., Any],
    stop: Callable[..., None],
    compose_evaluation: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    accelerator: str,
    precision: str,
    stored: str,
) -> None:
    def command(runs: str) -> Any:
        small = ("shots=2", "loading.batch_size=4", "spectrum_every=2", "alphas=1", "cache_root=null")
        machine = (f"trainer.accelerator={accelerator}", f"trainer.precision={precision}")
        machine += (f"+backbone.build.dtype={stored}",)
        return tiny_run(f"runs={tmp_path}/{runs}", *machine, "unfreeze=[norm.*]", *small)

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
    cost = json.loads((whole.parent / "cost.json").read_text())
    on_gpu = accelerator == "gpu"
    assert cost["device"] == (torch.cuda.get_device_name() if on_gpu else "cpu")
    assert not on_gpu or cost["phases"]["train"]["peak_gpu_bytes"] > 0
    assert cost["peak_memory_bytes"] == max(
        phase["peak_gpu_bytes" if on_gpu else "peak_memory_bytes"] for phase in cost["phases"].values()
    )


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (["+backbone.build.dtype=bf17"], r"unknown backbone\.build\.dtype 'bf17': did you mean 'bf16'"),
        *(
            (["+backbone.build.dtype=bf16", f"trainer.precision={precision}"], f"precision={precision}, which stores")
            for precision in TRUE
        ),
    ],
)
def test_a_type_to_store_weights_in_that_cannot_be_is_refused_before_images_are_read(
    tiny_run: Callable[..., Any], tmp_path: Path, settings: list[str], error: str
) -> None:
    with pytest.raises(InputError, match=error):
        train(tiny_run(*settings, f"data_root={tmp_path}/nowhere"))
