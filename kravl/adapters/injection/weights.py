"""The weights that adapters change: pretrained ones, what is written over them, and how that is undone."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from kravl.adapters.injection.sites import Site


class Buffers:
    """Buffers of ``model`` by ``names``, looked up each time: a move to another device replaces them."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self._model, self._names = model, tuple(names)

    def live(self) -> dict[str, Tensor]:
        return {name: self._model.get_buffer(name) for name in self._names}


class Weights:
    """Pretrained rows of each site, and initial and trained values of what is ``unfrozen``, and of ``buffers``."""

    def __init__(self, sites: Sequence[Site], unfrozen: dict[str, nn.Parameter], buffers: Buffers) -> None:
        self._sites = {site.name: site for site in sites}
        self._unfrozen, self._buffers = unfrozen, buffers
        self._initial = {name: tensor.clone() for name, tensor in self._live().items()}
        self._base: dict[str, Tensor] = {}  # the pretrained rows while merged ones are written over them
        self._trained: dict[str, Tensor] = {}

    def base(self) -> Iterator[tuple[str, Tensor]]:
        """(site name, pretrained rows) of each site, also while merged."""
        for name, site in self._sites.items():
            yield name, self._base.get(name, site.weight)

    def initial(self, name: str) -> Tensor:
        """What an unfrozen parameter was before training, from the first call on where the parameter is."""
        self._initial[name] = self._initial[name].to(self._unfrozen[name].device)
        return self._initial[name]

    def trained(self) -> dict[str, Tensor]:
        """Trained values of the unfrozen parameters and the buffers: the live tensors unless merged."""
        return {name: self._trained.get(name, tensor) for name, tensor in self._live().items()}

    def _live(self) -> dict[str, Tensor]:
        parameters = {name: parameter.detach() for name, parameter in self._unfrozen.items()}
        return parameters | self._buffers.live()

    @torch.no_grad()
    def write(self, adapted: Iterable[tuple[str, Tensor]], alpha: float) -> None:
        """Write the ``adapted`` weights of each site, and ``alpha`` times the changes of all else that trains.

        All of it, or none where an error, such as memory that runs out, comes between.
        """
        with ExitStack() as undo:
            undo.callback(self.restore)
            self._base = {name: base.clone() for name, base in self.base()}
            self._trained = {name: value.clone() for name, value in self.trained().items()}
            if alpha != 0.0:  # zero times a diverged update is not zero
                for name, weight in adapted:
                    self._sites[name].write(weight)
            for name, tensor in self._live().items():
                initial = self._initial[name].to(tensor)
                if alpha == 0.0:
                    tensor.copy_(initial)
                elif tensor.is_floating_point():  # else a count of batches
                    tensor.copy_(torch.lerp(initial, tensor, alpha))
            undo.pop_all()

    @torch.no_grad()
    def restore(self) -> None:
        """Undo `write` bit for bit."""
        for name, base in self._base.items():
            self._sites[name].write(base)
        live = self._live()
        for name, trained in self._trained.items():
            live[name].copy_(trained)
        self.forget()

    def forget(self) -> None:
        """Make what `write` wrote permanent."""
        self._base, self._trained = {}, {}
