"""The gradient of L2-SP against autograd of the written-out penalty, and what it does to a run."""

from functools import partial

import pytest
import torch
from torch import nn

from kravl.adapters.dora import DoRA
from kravl.adapters.full import Full
from kravl.adapters.injection.inject import inject
from kravl.adapters.kra import KRAdapter
from kravl.adapters.lora import LoRA
from kravl.run.train import train
from kravl.runtime.errors import InputError
from kravl.training.l2_sp import L2SP
from kravl.training.spectrum_monitor import SPECTRA_FILE, read_trace

STRENGTH = 0.3


METHODS = {
    "kra": KRAdapter,
    "lora": partial(LoRA, rank=2, alpha=3),
    "dora": partial(DoRA, rank=2, alpha=3),
    "full": Full,
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_its_gradient_is_that_of_the_squared_distance(method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 5)).double()
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    adapters = inject(model, method, ["0"], unfreeze=["0.bias", "1.*"])
    for parameter in adapters.parameters():
        nn.init.normal_(parameter)
    model[1].bias.requires_grad_(False)  # as in a stage that does not train it
    trained = [p for p in adapters.parameters() if p.requires_grad]
    torch.autograd.backward(model(torch.randn(3, 6).double()).square().mean(), inputs=trained)
    before = [p.grad.clone() for p in trained]

    penalty = L2SP(adapters.changes, STRENGTH, new=frozenset({id(model[1].weight)})).add_gradient()

    update = adapters.adapters["0"].update(start["0.weight"])
    distance = update.square().sum() + (model[0].bias - start["0.bias"]).square().sum()
    expected = torch.autograd.grad(0.5 * STRENGTH * distance, trained, allow_unused=True)
    torch.testing.assert_close(penalty, 0.5 * STRENGTH * distance.detach())
    for parameter, earlier, gradient in zip(trained, before, expected, strict=True):
        torch.testing.assert_close(parameter.grad, earlier if gradient is None else earlier + gradient)


def test_it_keeps_a_run_near_and_counts_once_for_batches_of_one_step(tiny_run, tmp_path):
    halves = ("loading.batch_size=4", "loading.min_batches=6", "++trainer.accumulate_grad_batches=2")
    changed = {
        "free": (),
        "held": ("optim.l2_sp=1",),
        "halves": ("optim.l2_sp=1", *halves),
        "twice": ("optim.l2_sp=2",),
    }
    for name, overrides in changed.items():
        train(tiny_run(f"runs={tmp_path}/{name}", "method=full", "optim.lr=1e-3", "optim.epochs=1", *overrides))

    folders = [next((tmp_path / name).glob("*/*")) for name in changed]
    norms = [[at["norm"] for at in read_trace(folder / SPECTRA_FILE).end.values()] for folder in folders]
    free, held, summed, twice = map(sum, norms)

    assert held < 0.9 * free
    assert abs(summed - held) < 0.1 * abs(twice - held)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("method=linear_probe",), r"optim\.l2_sp=1: linear_probe .*leave optim\.l2_sp out"),
        (("++trainer.strategy=fsdp",), "no process has a whole update; use ddp"),
        (("optim.l2_sp=-1",), "l2_sp"),
    ],
)
def test_where_it_would_do_nothing_it_is_refused(tiny_run, overrides, message):
    with pytest.raises(InputError, match=message):
        train(tiny_run("optim.l2_sp=1", *overrides))
