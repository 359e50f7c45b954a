"""Training with the trainable parameters sharded over processes, with PyTorch's `fully_shard` (FSDP2).

Weights, gradients and AdamW's two moments are sharded: sixteen bytes per parameter in fp32. The weights are gathered
for the duration of a step, because kravl's towers share work across blocks; frozen ones, which have neither gradient
nor moments, are replicated.
https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only


class _Root(nn.Module):
    """Carries PyTorch's hooks, so that the module inside is unchanged once this one is discarded."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


class ShardedStrategy(DDPStrategy):
    """``trainer.strategy=fsdp``: states are saved and loaded unsharded, so a run may resume with another strategy."""

    def _setup_model(self, model: nn.Module) -> Any:
        # others hold these very parameters, such as the code that restores the pretrained ones
        self._originals = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._scalars = [name for name, p in self._originals.items() if p.dim() == 0]
        for name in self._scalars:  # PyTorch shards along the first dimension
            _set_parameter(model, name, nn.Parameter(self._originals[name].detach().reshape(1)))
        frozen = {p for p in model.parameters() if not p.requires_grad}
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        root = fully_shard(_Root(model), mesh=mesh, reshard_after_forward=False, ignored_params=frozen)
        for parameter in self._originals.values():
            parameter.data = parameter.new_empty(0)  # the memory that sharding saves
        return root

    def _register_ddp_hooks(self) -> None:
        """There is no DDP to register them with."""

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Within the block every process has the full weights; all processes must enter it."""
        if not isinstance(self.model, FSDPModule):
            yield
            return
        self.model.unshard()
        try:
            yield
        finally:
            self.model.reshard()

    def on_train_end(self) -> None:
        """Give the module its full weights back."""
        super().on_train_end()
        module = self.lightning_module
        assert module is not None
        for name, tensor in self.lightning_module_state_dict().items():
            if name in self._originals:  # buffers are not sharded
                self._originals[name].data = tensor
                _set_parameter(module, name, self._originals[name])
        self.model = module

    def lightning_module_state_dict(self) -> dict[str, Any]:
        tensors = {name: gather(tensor) for name, tensor in super().lightning_module_state_dict().items()}
        return {name: t.reshape(()) if name in self._scalars else t for name, t in tensors.items()}

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        state: dict[str, Any] = tree_map_only(DTensor, gather, super().optimizer_state(optimizer))
        assert self.lightning_module is not None
        scalars = {id(self.lightning_module.get_parameter(name)) for name in self._scalars}
        for at, parameter in enumerate(_parameters(optimizer)):
            if id(parameter) in scalars and at in state["state"]:
                state["state"][at] = {name: value.reshape(()) for name, value in state["state"][at].items()}
        return state

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        states = []
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = _parameters(optimizer)
            moments = {at: _shard(values, parameters[int(at)]) for at, values in state["state"].items()}
            states.append({**state, "state": moments})
        super().load_optimizer_state_dict({**checkpoint, "optimizer_states": states})


def gathered_weights(trainer: Trainer) -> Any:
    """A context in which every process has the full trainable weights."""
    return trainer.strategy.gathered() if isinstance(trainer.strategy, ShardedStrategy) else nullcontext()


def gather(tensor: Tensor) -> Tensor:
    """The full ``tensor``, gathered from all processes if it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _set_parameter(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    owner, _, last = name.rpartition(".")
    module.get_submodule(owner)._parameters[last] = parameter


def _parameters(optimizer: Any) -> list[Tensor]:
    """The parameters in the order in which the optimiser's state numbers them."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def _shard(values: Mapping[str, Any], parameter: Tensor) -> dict[str, Any]:
    """An optimiser's state of ``parameter``, sharded as it is except for the number of steps."""

    def shard(tensor: Tensor) -> Tensor:
        if not isinstance(parameter, DTensor):
            return tensor
        like = tensor.reshape(parameter.shape).to(parameter.device)
        return distribute_tensor(like, parameter.device_mesh, parameter.placements)

    return {name: value if name == "step" else shard(value) for name, value in values.items()}
