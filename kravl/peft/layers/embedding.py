"""Adapted embeddings: an nn.Embedding is a linear map of one-hot vectors, so ΔW is (embedding_dim, num_embeddings)."""

from typing import Any

from torch import Tensor

from kravl.peft.layers.layer import AdapterLayer, Sizes
from kravl.runtime.errors import InputError


class AdaptedEmbedding(AdapterLayer):
    """Embeddings plus the columns of ΔW of the same tokens; KRAdapter looks them up without building ΔW.

    Dropout does not apply. Where the base layer scales its embeddings (Gemma), the update is scaled as well.

    Raises:
        InputError: the embedding renormalises its weight in each forward pass (``max_norm``).
    """

    def sizes(self) -> Sizes:
        base = self.get_base_layer()
        if base.max_norm is not None:
            raise InputError("an nn.Embedding with max_norm rewrites its weight while it is used and cannot be adapted")
        return {"weight": (base.embedding_dim, base.num_embeddings)}

    def stored(self, delta: Tensor, name: str) -> Tensor:
        return delta.T

    def added(self, adapter: Any, x: Tensor, y: Tensor) -> Tensor:
        update = adapter.scale * adapter.delta_columns(x)
        scale = self._get_embed_scale()
        return (update if scale is None else update * scale.to(update.dtype)).to(y.dtype)
