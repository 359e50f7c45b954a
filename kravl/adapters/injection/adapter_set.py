"""The adapters of one model as a whole: merge, restore, disable, load, merge for good and inspect."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kravl.adapters.base import Adapter, without_autocast
from kravl.adapters.injection.parameter import blocks_of
from kravl.adapters.injection.sites import Site
from kravl.adapters.rank import spectrum
from kravl.runtime.errors import InputError


def sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hex digest that does not depend on the order or the device of ``tensors``."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


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


class AdapterSet:
    """The adapters of one model by site name, and the parameters that train beside them. Made by `inject`.

    Only `merge` and `merge_and_unload` write base weights. RuntimeError is raised for calls in the wrong order, and
    after `merge_and_unload`.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        adapters: dict[str, Adapter],
        unfrozen: dict[str, nn.Parameter],
        swapped: list[tuple[nn.Module, type[nn.Module]]],  # modules with their former classes
    ) -> None:
        self.adapters, self.unfrozen, self._swapped = adapters, unfrozen, swapped
        self._weights = Weights(sites, unfrozen)
        self._merged = self._unloaded = False

    @property
    def merged(self) -> bool:
        return self._merged

    def parameters(self) -> list[nn.Parameter]:
        """All that trains: that of each adapter in site order, then what was unfrozen."""
        owned = [p for adapter in self.adapters.values() for p in adapter.parameters() if p.requires_grad]
        return owned + list(self.unfrozen.values())

    def num_trainable(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def state_dict(self) -> dict[str, Tensor]:
        """All that trains, live and without gradient: ``<site>.<parameter>`` and the names of unfrozen parameters."""
        self._require()
        state = {
            f"{site}.{name}": parameter.detach()
            for site, adapter in self.adapters.items()
            for name, parameter in adapter.named_parameters()
            if parameter.requires_grad
        }
        assert not state.keys() & self.unfrozen.keys()
        return state | self._weights.trained()

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`.

        Raises:
            InputError: a key is missing or unexpected, or a shape differs; nothing has changed.
        """
        self._require(merged=False)
        if (own := self.state_dict()).keys() != state.keys():
            missing, unexpected = sorted(own.keys() - state.keys())[:5], sorted(state.keys() - own.keys())[:5]
            raise InputError(f"the state is of other adapters: missing {missing}, unexpected {unexpected}")
        for name, tensor in own.items():
            if (shape := state[name].shape) != tensor.shape:
                raise InputError(f"{name!r} has shape {tuple(shape)}, the model {tuple(tensor.shape)}")
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def merge(self, alpha: float = 1.0) -> None:
        """Write W + alpha * ΔW into the weights, and θ0 + alpha * (θ - θ0) into what was unfrozen; see `unmerge`.

        ``alpha`` 1 is the adapted model at no extra cost per forward, 0 the pretrained one with its very weights, and
        between them lies the WiSE-FT curve (Wortsman et al., CVPR 2022, https://arxiv.org/abs/2109.01903).

        Example:
            >>> from torch import nn
            >>> from kravl import Full, inject
            >>> model = nn.Sequential(nn.Linear(2, 2, bias=False))
            >>> before = model[0].weight.clone()
            >>> adapters = inject(model, Full, ["0"])
            >>> _ = nn.init.ones_(adapters.parameters()[0])
            >>> adapters.merge(alpha=0.5)
            >>> (model[0].weight - before).round(decimals=4).tolist()
            [[0.5, 0.5], [0.5, 0.5]]
        """
        self._require(merged=False)
        adapted = ((name, self.adapters[name].adapted(base, alpha)) for name, base in self._weights.base())
        self._weights.write(adapted, alpha)
        self._set_merged(True)

    def unmerge(self) -> None:
        """Restore the pretrained weights bit for bit and reattach the adapters.

        Example:
            >>> from torch import nn
            >>> from kravl import KRAdapter, inject
            >>> model = nn.Sequential(nn.Linear(4, 4))
            >>> before = model[0].weight.clone()
            >>> adapters = inject(model, KRAdapter, ["0"])
            >>> adapters.merge()
            >>> adapters.unmerge()
            >>> bool((model[0].weight == before).all())
            True
        """
        self._require(merged=True)
        self._weights.restore()
        self._set_merged(False)

    @contextmanager
    def disable_adapters(self) -> Iterator[None]:
        """Within the block the model is the pretrained one (the zero-shot baseline).

        Example:
            >>> import torch
            >>> from torch import nn
            >>> from kravl import Full, inject
            >>> model, x = nn.Sequential(nn.Linear(2, 2)), torch.ones(1, 2)
            >>> pretrained = model(x)
            >>> adapters = inject(model, Full, ["0"])
            >>> _ = nn.init.ones_(adapters.parameters()[0])
            >>> with adapters.disable_adapters():
            ...     bool((model(x) == pretrained).all())
            True
        """
        self.merge(alpha=0.0)
        try:
            yield
        finally:
            self.unmerge()

    def merge_and_unload(self) -> None:
        """Merge for good, or keep the alpha that is merged: plain weights, former classes and keys, for export.

        Example:
            >>> from torch import nn
            >>> from kravl import KRAdapter, inject
            >>> model = nn.Sequential(nn.Linear(4, 4))
            >>> inject(model, KRAdapter, ["0"]).merge_and_unload()
            >>> type(model[0]), list(model.state_dict())
            (<class 'torch.nn.modules.linear.Linear'>, ['0.weight', '0.bias'])
        """
        self._require()
        if not self.merged:
            self.merge()
        for module, cls in self._swapped:
            module.__class__ = cls
            del module.adapters
        self._unloaded = True
        self._weights.forget()

    @torch.no_grad()
    def pairs(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """(site name, pretrained matrix, scaled ΔW without gradient) for each adapter; also while merged."""
        self._require()
        for name, base in self._weights.base():
            with without_autocast(base.device.type):
                yield name, base, self.adapters[name].update(base)

    def deltas(self) -> Iterator[tuple[str, Tensor]]:
        """(site name, scaled ΔW without gradient) for each adapter; also while merged."""
        return ((name, delta) for name, _, delta in self.pairs())

    def statistics(self) -> dict[str, dict[str, float]]:
        """For each site the ranks and norms of its scaled ΔW, see `spectrum`."""
        return {name: spectrum(delta) for name, delta in self.deltas()}

    def base_sha256(self) -> str:
        """Hex digest of the pretrained adapted weights, and of the shapes of what was unfrozen; also while merged."""
        self._require()
        shapes = {f"{name} {tuple(p.shape)}": torch.empty(0) for name, p in self.unfrozen.items()}
        return sha256(dict(self._weights.base()) | shapes)

    def description(self) -> dict[str, object]:
        """What a reader of a checkpoint needs: method, sites with their (out, in), hyper-parameters and size."""
        first = next(iter(self.adapters.values()), None)
        return {
            "method": None if first is None else f"{type(first).__module__}.{type(first).__qualname__}",
            "sites": {name: [adapter.out_features, adapter.in_features] for name, adapter in self.adapters.items()},
            "hyperparameters": {} if first is None else first.hyperparameters(),
            "num_trainable": self.num_trainable(),
        }

    def _set_merged(self, merged: bool) -> None:
        self._merged = merged
        for module, _ in self._swapped:
            blocks_of(module).merged = merged

    def _require(self, merged: bool | None = None) -> None:
        if self._unloaded:
            raise RuntimeError("the adapters are merged for good (merge_and_unload) and can no longer be used")
        if merged is not None and self._merged != merged:
            raise RuntimeError(f"the adapters are {'not ' if merged else ''}merged")
