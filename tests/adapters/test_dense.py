"""What a dense adapter writes out is what autograd finds for its formula: each file in configs/adapter."""

from functools import partial

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from kravl.adapters.c3a import C3A
from kravl.adapters.dense import ROWS, DenseAdapter, random_positions
from kravl.config.schema import CONFIGS

ALL = {path.stem: instantiate(OmegaConf.load(path)) for path in sorted((CONFIGS / "adapter").glob("*.yaml"))}
DENSE = {name: make for name, make in ALL.items() if issubclass(make.func, DenseAdapter)}
SHAPES = [(12, 20), (20, 12), (16, 16), (13, 7), (1, 9), (9, 1), (1, 1), (ROWS + 6, 10)]
CASES = [(name, shape) for name in DENSE for shape in SHAPES if name != "road" or shape[0] > 1]  # it needs a pair


def trained(make, shape):
    torch.manual_seed(0)
    adapter, weight = make(*shape).double(), torch.randn(shape, dtype=torch.float64)
    adapter.attach(weight)
    for parameter in adapter.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.3)
    return adapter, weight


@pytest.mark.parametrize(("method", "shape"), CASES)
def test_what_is_written_is_the_weight_and_the_update(method, shape):
    adapter, weight = trained(DENSE[method], shape)
    out = torch.full_like(weight, torch.nan)

    with torch.no_grad():
        adapter.write(weight, out)

    torch.testing.assert_close(out, weight + adapter.update(weight))
    assert not torch.equal(out, weight)


@pytest.mark.parametrize(("method", "shape"), CASES)
def test_gradients_are_those_of_the_formula(method, shape):
    adapter, weight = trained(DENSE[method], shape)
    towards_update = torch.randn_like(weight)

    expected = torch.autograd.grad(adapter.update(weight), list(adapter.parameters()), towards_update)
    with torch.no_grad():
        found = adapter.gradients(weight, towards_update.clone())

    for (name, _), gradient in zip(adapter.named_parameters(), expected, strict=True):
        torch.testing.assert_close(found[name], gradient)


@pytest.mark.parametrize("block", [8, 9, 12])
def test_c3a_finds_its_gradient_by_transforms_of_the_tokens(block):
    adapter, weight = trained(partial(C3A, block=block), (2 * block, 3 * block))
    x, towards_y = torch.randn(11, 3 * block).double(), torch.randn(11, 2 * block).double()

    with torch.no_grad():
        found, expected = adapter.pull(weight, towards_y, x), adapter.gradients(weight, towards_y.T @ x)

    torch.testing.assert_close(found["kernel"], expected["kernel"])


def test_positions_are_different_ones_of_the_seed():
    positions = random_positions(60, 20, 1)

    assert positions.unique().tolist() == positions.tolist()
    assert positions.max() < 60
    assert not torch.equal(positions, random_positions(60, 20, 2))
    assert torch.equal(random_positions(60, 60, 3), torch.arange(60))
