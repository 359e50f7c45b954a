"""Targets with structure in space: blocks on the diagonal, and a Kronecker product."""

import torch
from torch import Tensor

from kravl.approximation.target import Shape, Target, normal, positive
from kravl.runtime.errors import InputError


class BlockDiagonal(Target):
    """``blocks`` equal blocks of noise on the diagonal (as equal as the sides allow), zeros elsewhere.

    Raises:
        InputError: ``blocks`` is no whole number from 1 up; at drawing, a side is shorter than that.
    """

    def __init__(self, blocks: int) -> None:
        self.blocks = positive("blocks", blocks)

    def matrix(self, shape: Shape, generator: torch.Generator) -> Tensor:
        if self.blocks > min(shape):
            raise InputError(f"{self.blocks} blocks do not fit a matrix of {shape[0]} x {shape[1]}")
        own = [torch.arange(side) * self.blocks // side for side in shape]
        return normal(shape, generator) * (own[0].unsqueeze(1) == own[1])


class Kronecker(Target):
    """A ⊗ B of normal factors, A with ``factor`` rows and columns, cut to the shape.

    Raises:
        InputError: ``factor`` is no whole number from 1 up.
    """

    def __init__(self, factor: int) -> None:
        self.factor = positive("factor", factor)

    def matrix(self, shape: Shape, generator: torch.Generator) -> Tensor:
        inner = (-(-shape[0] // self.factor), -(-shape[1] // self.factor))
        product = torch.kron(normal((self.factor, self.factor), generator), normal(inner, generator))
        return product[: shape[0], : shape[1]]
