"""All adapters of one model: merge, unmerge, disable, load, merge for good and inspect."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kravl.adapters.base import Adapter, without_autocast
from kravl.adapters.injection.parameter import adapters_of
from kravl.adapters.injection.sites import Site
from kravl.adapters.injection.weights import Buffers, Weights
from kravl.adapters.rank import spectrum
from kravl.runtime.errors import InputError


def sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hex digest, independent of the order and the device of ``tensors``."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


class AdapterSet:
    """The adapters of one model by site name, and the unfrozen parameters; created by `inject`.

    Only `merge` and `merge_and_unload` write base weights. Calls in the wrong order, or after `merge_and_unload`, raise
    RuntimeError.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        adapters: dict[str, Adapter],
        unfrozen: dict[str, nn.Parameter],
        swapped: list[tuple[nn.Module, type[nn.Module]]],  # modules with their original classes
        buffers: Buffers,  # that training changes
        stored: Mapping[nn.Parameter, torch.dtype],  # frozen ones in less precision, and the type that they are read in
    ) -> None:
        self.adapters, self.unfrozen, self._swapped = adapters, unfrozen, swapped
        self._weights = Weights(sites, unfrozen, buffers, stored)
        self._merged = self._unloaded = False

    @property
    def merged(self) -> bool:
        return self._merged

    def parameters(self) -> list[nn.Parameter]:
        """Everything that trains: the adapters' parameters in site order, then the unfrozen ones."""
        of_adapters = [p for adapter in self.adapters.values() for p in adapter.parameters() if p.requires_grad]
        return of_adapters + list(self.unfrozen.values())

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """The same by name, as in `state_dict`."""
        return self._of_adapters() | self.unfrozen

    def _of_adapters(self) -> dict[str, nn.Parameter]:
        return {
            f"{site}.{name}": parameter
            for site, adapter in self.adapters.items()
            for name, parameter in adapter.named_parameters()
            if parameter.requires_grad
        }

    def num_trainable(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def state_dict(self) -> dict[str, Tensor]:
        """What trains, live and without gradient: ``<site>.<parameter>``; unfrozen parameters and buffers by name."""
        self._require()
        state = {name: parameter.detach() for name, parameter in self._of_adapters().items()}
        others = self._weights.trained()
        assert not state.keys() & others.keys()
        return state | others

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`.

        Raises:
            InputError: a key is missing or unexpected, or a shape differs; nothing is loaded.
        """
        self._require(merged=False)
        if (current := self.state_dict()).keys() != state.keys():
            missing, unexpected = sorted(current.keys() - state.keys())[:5], sorted(state.keys() - current.keys())[:5]
            raise InputError(f"the state belongs to other adapters: missing {missing}, unexpected {unexpected}")
        for name, tensor in current.items():
            if (shape := state[name].shape) != tensor.shape:
                raise InputError(f"{name!r} has shape {tuple(shape)}, but {tuple(tensor.shape)} in the model")
        for name, tensor in current.items():
            tensor.copy_(state[name])

    def merge(self, alpha: float = 1.0) -> None:
        """Write W + alpha * ΔW to the weights and θ0 + alpha * (θ - θ0) to the unfrozen parameters; see `unmerge`.

        ``alpha`` 1 gives the adapted model at no extra cost per forward pass, 0 the pretrained one bit for bit, and
        values between them the WiSE-FT curve (Wortsman et al., CVPR 2022, https://arxiv.org/abs/2109.01903).

        Examples:
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

    def merge_updates(self, updates: Mapping[str, Tensor]) -> None:
        """Write W + the given update (out, in) of each site, and what else trains; those of `deltas` give `merge`.

        Raises:
            InputError: a site has no update of its shape; nothing is written.
        """
        self._require(merged=False)
        for name, base in self._weights.base():
            if (update := updates.get(name)) is None or update.shape != base.shape:
                given = None if update is None else tuple(update.shape)
                raise InputError(f"{name} is a matrix of {tuple(base.shape)}, and its update is {given}")
        self._weights.write(((name, _sum(base, updates[name])) for name, base in self._weights.base()), 1.0)
        self._set_merged(True)

    def unmerge(self) -> None:
        """Restore the pretrained weights bit for bit and reattach the adapters.

        Examples:
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

        Examples:
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
        """Merge for good (a merged alpha is kept) and restore the original classes and keys, for export.

        Examples:
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
        self._weights.make_permanent()

    @torch.no_grad()
    def pairs(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """(site name, pretrained matrix, scaled ΔW without gradient) for each adapter; also while merged."""
        self._require()
        for name, base in self._weights.base():
            with without_autocast(base.device.type):
                yield name, base, self.adapters[name].update(base)

    @torch.enable_grad()
    def changes(self) -> Iterator[tuple[Tensor, list[nn.Parameter]]]:
        """(change, parameters it is of) with gradient: each scaled ΔW, and what is unfrozen less its start."""
        self._require(merged=False)
        for name, base in self._weights.base():
            with without_autocast(base.device.type):
                yield self.adapters[name].update(base), list(self.adapters[name].parameters())
        for name, parameter in self.unfrozen.items():
            yield parameter - self._weights.initial(name).to(parameter), [parameter]

    def deltas(self) -> Iterator[tuple[str, Tensor]]:
        """(site name, scaled ΔW without gradient) for each adapter; also while merged."""
        return ((name, delta) for name, _, delta in self.pairs())

    def statistics(self) -> dict[str, dict[str, float]]:
        """For each site the ranks and norms of its scaled ΔW, see `spectrum`."""
        return {name: spectrum(delta) for name, delta in self.deltas()}

    def base_sha256(self, shapes_of: Mapping[str, tuple[int, ...]] | None = None) -> str:
        """Hex digest of the sites' pretrained weights and the unfrozen parameters' shapes; also while merged.

        ``shapes_of`` has shapes by name in place of their own, as those of a head of another number of classes.
        """
        self._require()
        known = shapes_of or {}
        unfrozen = {name: known.get(name, tuple(p.shape)) for name, p in self.unfrozen.items()}
        shapes = {f"{name} {shape}": torch.empty(0) for name, shape in unfrozen.items()}
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
            adapters_of(module).merged = merged

    def _require(self, merged: bool | None = None) -> None:
        if self._unloaded:
            raise RuntimeError("the adapters are merged for good (merge_and_unload) and can no longer be used")
        if merged is not None and self._merged != merged:
            raise RuntimeError(f"the adapters are {'not ' if merged else ''}merged")


def _sum(base: Tensor, update: Tensor) -> Tensor:
    """``base`` plus ``update``, in single precision at least."""
    return base + update.to(base.device, torch.promote_types(base.dtype, torch.float32))
