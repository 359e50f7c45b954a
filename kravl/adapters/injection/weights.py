"""The weights that adapters change: pretrained ones, what is written over them, and how that is undone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """Pretrained rows of each site, and initial and trained values of what is ``unfrozen``, and of ``buffers``.

    ``stored`` has the parameters that are stored in less than the precision in which they are read.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        unfrozen: dict[str, nn.Parameter],
        buffers: Buffers,
        stored: Mapping[nn.Parameter, torch.dtype],
    ) -> None:
        self._sites = {site.name: site for site in sites}
        self._unfrozen, self._buffers = unfrozen, buffers
        self._initial = {name: tensor.clone() for name, tensor in self._live().items()}
        self._base: dict[str, Tensor] = {}  # the pretrained rows while merged ones are written over them
        self._trained: dict[str, Tensor] = {}
        self._stored = stored
        self._narrow: dict[nn.Parameter, Tensor] = {}  # what was stored, while merged weights are in its place

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
            # what is stored in less precision is replaced, not written over
            self._base = {name: base if self._is_narrow(name) else base.clone() for name, base in self.base()}
            self._trained = {name: value.clone() for name, value in self.trained().items()}
            if alpha != 0.0:  # zero times a diverged update is not zero
                self._widen([site.parameter for site in self._sites.values()])
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
            if self._sites[name].parameter not in self._narrow:
                self._sites[name].write(base)
        for parameter, stored in self._narrow.items():
            parameter.data = stored.to(parameter.device)
        live = self._live()
        for name, trained in self._trained.items():
            live[name].copy_(trained)
        self._forget()

    def make_permanent(self) -> None:
        """Keep what `write` wrote, and give every stored parameter the type that it had."""
        self._widen(self._stored)
        self._forget()

    def _forget(self) -> None:
        self._base, self._trained, self._narrow = {}, {}, {}

    def _is_narrow(self, site: str) -> bool:
        parameter = self._sites[site].parameter
        return self._read_type(parameter) != parameter.dtype

    def _read_type(self, parameter: nn.Parameter) -> torch.dtype:
        return torch.promote_types(parameter.dtype, self._stored.get(parameter, parameter.dtype))

    def _widen(self, parameters: Iterable[nn.Parameter]) -> None:
        for parameter in parameters:
            if (dtype := self._read_type(parameter)) != parameter.dtype:
                self._narrow[parameter] = parameter.data
                parameter.data = parameter.data.to(dtype)
