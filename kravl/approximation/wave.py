"""Targets of the paper's toy experiment that are waves: rows of high- or low-frequency sinusoids."""

import math

import torch
from torch import Tensor

from kravl.approximation.target import Shape, Target
from kravl.runtime.errors import InputError


class Sinusoids(Target):
    """Row i is sin(2 π f_i t + φ), t in [0, 1), plus 0 to ``harmonics`` sinusoids of random frequencies in the range.

    f_i goes from ``low`` to ``high`` in equal steps, φ is uniform in [0, 1); frequencies above half the number of
    columns fold back, as in the released script.

    Raises:
        InputError: ``low`` is not below ``high``, or ``harmonics`` is negative.
    """

    def __init__(self, low: float, high: float, harmonics: int = 5) -> None:
        if not 0 < low < high or harmonics < 0:
            raise InputError(f"low={low}, high={high}, harmonics={harmonics}: need 0 < low < high and harmonics >= 0")
        self.low, self.high, self.harmonics = low, high, harmonics

    def matrix(self, shape: Shape, generator: torch.Generator) -> Tensor:
        rows, columns = shape
        time = 2 * math.pi * torch.arange(columns, dtype=torch.float64) / columns
        phases = torch.rand(rows, 1, generator=generator, dtype=torch.float64)
        result = torch.sin(torch.linspace(self.low, self.high, rows, dtype=torch.float64).unsqueeze(1) * time + phases)
        counts = torch.randint(0, self.harmonics + 1, (rows, 1), generator=generator)
        for i in range(self.harmonics):
            frequencies = torch.rand(rows, 1, generator=generator, dtype=torch.float64) * (self.high - self.low)
            result += torch.sin((frequencies + self.low) * time) * (counts > i)
        return result
