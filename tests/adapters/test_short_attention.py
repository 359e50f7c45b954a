"""Attention with a backward pass of our own is that of PyTorch."""

import pytest
import torch
from torch.nn import functional as F

from kravl.adapters.injection.attention import SHORT, is_short, short_attention


def heads(dtype: torch.dtype, length: int = 9, device: str = "cpu") -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 3, length, 8, dtype=dtype).to(device).requires_grad_() for _ in range(3)]


def causal(dtype: torch.dtype) -> torch.Tensor:
    return torch.full((9, 9), float("-inf"), dtype=dtype).triu(1)


@pytest.mark.parametrize("masked", [False, True])
def test_outputs_have_the_bits_of_torch_and_gradients_are_exact(masked: bool, device: str) -> None:
    q, k, v = heads(torch.float64, device=device)
    mask = causal(torch.float64).to(device) if masked else None
    weights = torch.randn(2, 3, 9, 8, dtype=torch.float64).to(device)

    actual, torchs = short_attention(q, k, v, mask), F.scaled_dot_product_attention(q, k, v, mask)
    gradients = torch.autograd.grad((actual * weights).sum(), (q, k, v))
    expected = torch.autograd.grad((torchs * weights).sum(), (q, k, v))

    assert torch.equal(actual, torchs)
    torch.testing.assert_close(gradients, expected, rtol=1e-12, atol=1e-12)


def test_in_bfloat16_gradients_are_no_further_from_float64_than_those_of_torch() -> None:
    exact, rounded = heads(torch.float64), [x.detach().bfloat16().requires_grad_() for x in heads(torch.float64)]
    weights = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    reference = torch.autograd.grad((F.scaled_dot_product_attention(*exact) * weights).sum(), exact)

    def error(attention) -> float:
        gradients = torch.autograd.grad((attention(*rounded) * weights.bfloat16()).sum(), rounded)
        return sum((a.double() - b).norm().item() for a, b in zip(gradients, reference, strict=True))

    assert error(lambda q, k, v: short_attention(q, k, v, None)) < 1.5 * error(F.scaled_dot_product_attention)


def test_it_is_for_short_trained_sequences_in_mixed_precision_on_a_cpu() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert is_short(heads(torch.bfloat16)[0])
        assert not is_short(heads(torch.bfloat16)[0].detach())
        assert not is_short(heads(torch.float32)[0])
        assert not is_short(heads(torch.bfloat16, SHORT + 1)[0])
    assert not is_short(heads(torch.bfloat16)[0])
