"""What training did to each weight: ranks and norms of ΔW, and its directions relative to the pretrained W."""

import torch
from torch import Tensor

from kravl.adapters.injection.adapter_set import AdapterSet
from kravl.adapters.rank import gram_singular_values, ranks_and_norms
from kravl.runtime.errors import unknown

TOP = 16  # leading singular directions that are compared
OVERSAMPLING, ITERATIONS = 8, 2  # of the randomised decomposition
INTRUDER = 0.5  # a direction of W + ΔW is an intruder if its cosine with each of W's is below this


class Diagnosis:
    """Spectra of the current updates of ``adapters``.

    ``precision`` "fast" takes singular values from a Gram matrix in single precision and leading directions from
    randomised subspace iteration (Halko et al., SIAM Review 2011); "exact" decomposes in double precision, and counts
    intruder dimensions (Shuttleworth et al., 2024, https://arxiv.org/abs/2410.21228).

    Raises:
        InputError: ``precision`` is neither "fast" nor "exact".
    """

    def __init__(self, adapters: AdapterSet, precision: str = "fast") -> None:
        if precision not in ("fast", "exact"):
            raise unknown("spectrum", precision, ("fast", "exact"))
        self.adapters, self.exact = adapters, precision == "exact"
        self._top: dict[str, tuple[Tensor, Tensor]] = {}  # leading directions of W, which does not change

    def quantities(self) -> dict[str, dict[str, float]]:
        """For each site the ranks and norms of ΔW, its ``cosine`` with W (both flattened), and ``overlap``.

        ``overlap`` is the mean squared cosine of the angles between the spaces of the TOP leading singular vectors of
        ΔW and of W, over both sides: 1 for the same space, TOP / side by chance. "exact" adds ``intruders``: how many
        of the TOP leading left singular vectors of W + ΔW have a cosine below INTRUDER with each of W's.
        """
        return {site: self._of(site, base, delta) for site, base, delta in self.adapters.pairs()}

    def singular_values(self) -> dict[str, Tensor]:
        """For each site the singular values of ΔW, largest first, in double precision ("exact": by an SVD)."""
        values = torch.linalg.svdvals if self.exact else gram_singular_values
        return {site: values(delta.double()).cpu() for site, delta in self.adapters.deltas()}

    def _of(self, site: str, base: Tensor, delta: Tensor) -> dict[str, float]:
        # weights kept in half precision or bfloat16 have no decomposition
        delta = delta.to(torch.float64 if self.exact else torch.promote_types(delta.dtype, torch.float32))
        base = base.to(delta.dtype)
        values = torch.linalg.svdvals(delta) if self.exact else gram_singular_values(delta, torch.float32)
        quantities = ranks_and_norms(values)
        if quantities["norm"] == 0.0:  # as at initialisation: a zero matrix has no directions
            return quantities | {"cosine": 0.0, "overlap": 0.0} | ({"intruders": 0.0} if self.exact else {})
        unit = delta / delta.abs().max()  # the squares of a tiny update would underflow
        quantities["cosine"] = torch.cosine_similarity(unit.flatten(), base.flatten(), dim=0).item()
        if site not in self._top:
            self._top[site] = self._leading(base)
        (u, v), (u0, v0) = self._leading(unit), self._top[site]
        quantities["overlap"] = 0.5 * (_shared(u, u0) + _shared(v, v0))
        if self.exact:
            quantities["intruders"] = _intruders(base, base + delta)
        return quantities

    def _leading(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """The TOP leading left (out, k) and right (in, k) singular vectors."""
        k = min(TOP, *matrix.shape)
        if not self.exact:
            generator = torch.Generator().manual_seed(0)  # training's own random numbers are left alone
            width = min(k + OVERSAMPLING, *matrix.shape)
            sketch = torch.randn(matrix.shape[1], width, generator=generator).to(matrix)
            for _ in range(ITERATIONS):
                sketch = matrix.mT @ torch.linalg.qr(matrix @ sketch)[0]
            basis = torch.linalg.qr(matrix @ sketch)[0]
            u, _, vh = torch.linalg.svd(basis.mT @ matrix, full_matrices=False)
            return (basis @ u)[:, :k], vh[:k].mT
        u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
        return u[:, :k], vh[:k].mT


def _shared(a: Tensor, b: Tensor) -> float:
    return ((a.mT @ b).square().sum() / a.shape[1]).item()


def _intruders(base: Tensor, adapted: Tensor) -> float:
    before = torch.linalg.svd(base, full_matrices=False)[0]
    after = torch.linalg.svd(adapted, full_matrices=False)[0][:, :TOP]
    return float(((before.mT @ after).abs().amax(0) < INTRUDER).sum())
