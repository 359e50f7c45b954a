"""One run on two processes: evaluation is shared out and ends in the numbers of one, and so does training."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from tiny_run import CLIP
from torch import distributed, multiprocessing

from kravl.config.compose import register_configs
from kravl.run.train import train
from kravl.training.fsdp import ShardedStrategy

pytestmark = pytest.mark.long

MODEL = Path(__file__).parents[1] / "fixtures/tiny-clip.json"


def process(rank: int, port: int, cfgs: list[Any]) -> None:
    """One of two, as a cluster's scheduler would have started it."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    os.environ |= place | {"LOCAL_RANK": str(rank)}
    register_configs()
    open_clip.add_model_config(MODEL)
    for cfg in cfgs:
        train(cfg)


@pytest.fixture
def on_two(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[list[Any]], None]]:
    """Trains runs one after the other on this process and another one."""
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "0")  # so that it is taken away again

    def run(cfgs: list[Any]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        other = multiprocessing.get_context("spawn").Process(target=process, args=(1, port, cfgs))
        other.start()
        process(0, port, cfgs)
        other.join()
        assert other.exitcode == 0

    yield run
    if distributed.is_initialized():
        distributed.destroy_process_group()


def record(runs: Path) -> dict[str, Any]:
    (path,) = runs.glob("*/*/metrics.json")
    return json.loads(path.read_text())


def scored(runs: Path) -> dict[str, float]:
    """The metrics of a run that have a value."""
    return {name: value for name, value in record(runs)["metrics"].items() if value is not None}


# of which a step is made, and all kinds of parameters: matrices, vectors and a scalar
FULL = (
    "method=full",
    "optim.lr=1e-3",
    "+backbone.build.logit_scale=learned",
    "++trainer.accumulate_grad_batches=2",
    "++trainer.gradient_clip_val=0.05",
    "spectrum_every=2",
    "checkpoint_every=100",
)

# a context learned in front of the class names
COOP = ("method=coop", "context_tokens=4", "optim.epochs=2", "optim.lr=0.1")
CONTEXTS = ("both_context", "alone_context")
# stages, each of which is wrapped anew
STAGED = ("both_stages", "alone_stages")
STAGES = ("method=2sfs", "optim.steps=6", "optim.lr=1e-3", "data.templates=single")


def assert_alike(both: Path, alone: Path) -> None:
    """Metrics and tensors of two runs are equal but for rounding."""
    assert scored(both) == pytest.approx(scored(alone), rel=1e-4)
    for file in ("adapter.safetensors", "spectra.safetensors"):
        ours, theirs = (load_file(next(folder.glob(f"*/*/{file}"))) for folder in (both, alone))
        # a key's bias has no gradient but rounding, which AdamW scales up
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=5e-4)


def test_two_processes_end_in_the_numbers_of_one(
    tiny_run: Callable[..., Any], on_two: Callable[[list[Any]], None], tmp_path: Path
) -> None:
    open_clip.add_model_config(MODEL)
    two = ("trainer.devices=2", "++trainer.strategy=ddp")

    def composed(name: str, *overrides: str) -> Any:
        return tiny_run(f"runs={tmp_path}/{name}", "loading.eval_batch_size=5", *overrides, backbone=CLIP)

    train(composed("alone", "optim.epochs=0"))
    train(composed("alone_trained", "loading.batch_size=8"))
    train(composed("alone_context", "loading.batch_size=8", *COOP))
    train(composed("alone_stages", *STAGES, "loading.batch_size=8"))

    small = ("loading.batch_size=4", *two)
    trained_on_two = [composed("both_trained", *small), composed("both_context", *small, *COOP)]
    trained_on_two.append(composed("both_stages", *STAGES, *small))
    on_two([composed("both", "optim.epochs=0", *two), *trained_on_two])

    # each of two processes has fewer threads than one alone, and sums of another number of threads round otherwise
    assert scored(tmp_path / "both") == pytest.approx(scored(tmp_path / "alone"), rel=1e-5)
    assert_alike(tmp_path / "both_trained", tmp_path / "alone_trained")
    for names in (CONTEXTS, STAGED):  # each process encodes its share of the classes
        saved = [load_file(next((tmp_path / name).glob("*/*/adapter.safetensors"))) for name in names]
        torch.testing.assert_close(*saved, rtol=1e-3, atol=5e-4)
    trained, untrained = (record(tmp_path / name)["metrics"]["test/loss"] for name in ("alone_trained", "alone"))
    assert trained != untrained


def test_fsdp_splits_weights_and_moments_and_ends_in_the_numbers_of_one(
    tiny_run: Callable[..., Any],
    on_two: Callable[[list[Any]], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    open_clip.add_model_config(MODEL)
    held: dict[str, list[int]] = {}
    end = ShardedStrategy.on_train_end

    def counted(strategy: ShardedStrategy) -> None:
        (optimizer,) = strategy.optimizers
        moments = [values["exp_avg"] for values in optimizer.state.values()]
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        for name, tensors in {"weights": weights, "moments": moments}.items():
            held[name] = [sum(t.numel() for t in tensors), sum(t.to_local().numel() for t in tensors)]
        end(strategy)

    monkeypatch.setattr(ShardedStrategy, "on_train_end", counted)
    train(tiny_run(f"runs={tmp_path}/alone", "loading.batch_size=8", *FULL, backbone=CLIP))

    two = ("loading.batch_size=4", "trainer.devices=2", "++trainer.strategy=fsdp")
    on_two([tiny_run(f"runs={tmp_path}/both", *two, *FULL, backbone=CLIP)])

    assert_alike(tmp_path / "both", tmp_path / "alone")
    assert held["weights"][0] == record(tmp_path / "both")["trainable_parameters"]
    for whole, own in held.values():
        assert own == pytest.approx(whole / 2, rel=0.01)
