"""The weights that a set of adapters writes when it merges, and what it takes to restore them."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from kravl.adapters.sites import Site


class Weights:
    """Pretrained rows of each site, and initial and trained values of the parameters that are ``unfrozen``."""

    def __init__(self, sites: Sequence[Site], unfrozen: dict[str, nn.Parameter]) -> None:
        self._sites = {site.name: site for site in sites}
        self._unfrozen = unfrozen
        self._initial = {name: parameter.detach().clone() for name, parameter in unfrozen.items()}
        self._base: dict[str, Tensor] = {}  # the pretrained rows while others are written over them
        self._trained: dict[str, Tensor] = {}

    def base(self) -> Iterator[tuple[str, Tensor]]:
        """(site name, pretrained rows) of each site, whatever is written over them."""
        for name, site in self._sites.items():
            yield name, self._base.get(name, site.weight)

    def trained(self) -> dict[str, Tensor]:
        """The trained values of what was unfrozen, live unless something is written over them."""
        return {name: self._trained.get(name, parameter.detach()) for name, parameter in self._unfrozen.items()}

    @torch.no_grad()
    def write(self, adapted: Iterable[tuple[str, Tensor]], alpha: float) -> None:
        """The ``adapted`` weights by site, and ``alpha`` times the changes of what was unfrozen."""
        self._base = {name: base.clone() for name, base in self.base()}
        self._trained = {name: value.clone() for name, value in self.trained().items()}
        if alpha != 0.0:  # zero times a diverged update is not zero
            for name, weight in adapted:
                self._sites[name].weight.copy_(weight)
        for name, parameter in self._unfrozen.items():
            initial = self._initial[name].to(parameter)
            parameter.copy_(initial if alpha == 0.0 else torch.lerp(initial, parameter, alpha))

    @torch.no_grad()
    def restore(self) -> None:
        """Undo `write` bit for bit."""
        for name, base in self._base.items():
            self._sites[name].weight.copy_(base)
        for name, trained in self._trained.items():
            self._unfrozen[name].copy_(trained)
        self.forget()

    def forget(self) -> None:
        """Let what was written stay for good."""
        self._base, self._trained = {}, {}
