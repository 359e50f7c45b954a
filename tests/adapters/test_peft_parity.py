"""Each method that PEFT has computes what PEFT's layer does, with the same parameters: output and gradients."""

import copy
import importlib
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from kravl.adapters.bat import Bat
from kravl.adapters.c3a import C3A
from kravl.adapters.delora import DeLoRA
from kravl.adapters.fourierft import FourierFT
from kravl.adapters.gralora import GraLoRA
from kravl.adapters.hira import HiRA
from kravl.adapters.hra import HRA
from kravl.adapters.injection.inject import inject
from kravl.adapters.loha import LoHa
from kravl.adapters.lokr import LoKr
from kravl.adapters.lora import LoRA
from kravl.adapters.miss import MiSS
from kravl.adapters.oft import OFT
from kravl.adapters.pissa import PiSSA
from kravl.adapters.psoft import PSOFT
from kravl.adapters.road import RoAd
from kravl.adapters.shira import SHiRA
from kravl.adapters.waveft import WaveFT

pytest.importorskip("peft.tuners", reason="PEFT is not installed: pip install 'kravl[bench]'")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
METHODS = {
    "lora": partial(LoRA, rank=3, alpha=6),
    "rslora": partial(LoRA, rank=3, alpha=6, rank_stabilised=True),
    "shira": partial(SHiRA, num_values=3 * (18 + 24), scale=0.7),
    "hira": partial(HiRA, rank=3),
    "loha": partial(LoHa, rank=3, scale=0.5),
    "c3a": partial(C3A, block=3),
    "fourierft": partial(FourierFT, num_coefficients=100),
    "waveft": partial(WaveFT, num_coefficients=100),
    "pissa": partial(PiSSA, rank=3, scale=0.5),
    "gralora": partial(GraLoRA, rank=6, grid=3),
    "delora": partial(DeLoRA, rank=3),
    "miss": partial(MiSS, rank=4),
    "miss, cut": partial(MiSS, rank=5),
    "bat": partial(Bat, rank=3),
    "lokr": partial(LoKr, factor=3, scale=0.5),
    "lokr, low-rank": partial(LoKr, factor=3, rank=2, scale=0.5),
    "oft": partial(OFT, block=6),
    "oft, 6 terms": partial(OFT, block=3, terms=6),
    "hra": partial(HRA, rank=6),
    "road": partial(RoAd, group=6),
    "road 2": partial(RoAd, variant=2, group=6),
    "road 4": partial(RoAd, variant=4, group=6),
    "psoft": partial(PSOFT, rank=5),
}
SINGLE = {"c3a", "fourierft"}  # PEFT computes them in single precision, whatever the layer's


@pytest.mark.parametrize("shape", [(18, 24), (24, 18)])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore")  # what PEFT and transformers warn of is not of interest here
def test_a_layer_computes_what_pefts_does(method, shape, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    torch.manual_seed(0)
    base = nn.Linear(shape[1], shape[0], bias=not method.startswith("road")).double()  # PEFT's rotates the bias
    x = torch.randn(5, 7, shape[1], dtype=torch.float64, requires_grad=True)
    model, twin = nn.Sequential(base), copy.deepcopy(base)
    adapters = inject(model, METHODS[method], ["0"])
    adapter = adapters.adapters["0"]
    for parameter in adapters.parameters():  # exact in single precision too, to which PEFT rounds some
        parameter.data.add_(0.1 * torch.randn(parameter.shape)).copy_(parameter.float())

    theirs = importlib.import_module("peft_layers").PEFT[type(adapter)](twin, adapter)

    y, expected = model(x), theirs(x)
    trained = [p for p in theirs.parameters() if p.requires_grad]
    towards_y = torch.randn_like(y)
    grads = list(torch.autograd.grad(y, [x, *adapters.parameters()], towards_y))
    expected_grads = list(torch.autograd.grad(expected, [x, *trained], towards_y))
    if method == "c3a":  # that of PEFT 0.21.2 is not the transpose of its own forward pass
        expected_grads[0] = towards_y @ (twin.weight + theirs.get_delta_weight("default"))
    rounding = {"rtol": 1e-4, "atol": 1e-5} if method in SINGLE else {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(y, expected, **rounding)
    torch.testing.assert_close(grads[0], expected_grads[0], **rounding)
    with adapters.disable_adapters():
        assert (y - model(x)).abs().max() > 1e-3
    for values in (grads, expected_grads):
        assert all(gradient.count_nonzero() for gradient in values)
    ours, peft = (torch.cat([g.flatten() for g in values[1:]]).sort().values for values in (grads, expected_grads))
    torch.testing.assert_close(ours, peft, check_dtype=False, **rounding)
