"""Two processes that share the classes have the features and the gradients of one that has them all."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
from backbones_towers import NAMES, TEMPLATES, adapted, assert_equal, clip, prompts
from torch import Tensor, distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from kravl.backbones.text.class_features import ClassPrompts
from kravl.backbones.text.tower import causal_text_tower

pytestmark = pytest.mark.long

LABELS = torch.tensor([0, 5, 3, len(NAMES) - 1])


class Step(torch.nn.Module):
    """The loss of some images whose features are given."""

    def __init__(self) -> None:
        super().__init__()
        self.model = clip()
        adapted(self.model, ("transformer.*.attn.qkv", "transformer.*.mlp.c_*"))
        self.images = torch.randn(4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        of_classes = prompts()[:-1].unflatten(0, (len(NAMES), len(TEMPLATES)))
        sizes = [1 + i % 2 for i in range(len(NAMES))]
        tokens = torch.cat([tokens[:size] for tokens, size in zip(of_classes, sizes, strict=True)])
        self.prompts = ClassPrompts(tokens, sizes, self.model.encode_text, causal_text_tower(self.model), 8192)

    def forward(self, images: slice) -> tuple[Tensor, Tensor]:
        features = self.prompts.shared_features()
        loss = torch.nn.functional.cross_entropy(10 * self.images[images] @ features.T, LABELS[images])
        return features.detach(), loss

    def results(self, images: slice, runner: torch.nn.Module) -> list[Tensor]:
        features, loss = runner(images)
        loss.backward()
        return [features, *(p.grad for p in self.parameters() if p.requires_grad)]


def _process(rank: int, folder: str) -> None:
    distributed.init_process_group(
        "gloo", f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(minutes=5)
    )
    step = Step()
    results = step.results(slice(2 * rank, 2 * rank + 2), DistributedDataParallel(step))
    classes = len(step.prompts._share[0]._sizes)
    torch.save({"results": results, "classes": classes}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_shared_features_and_gradients_are_those_of_one_process(tmp_path: Path) -> None:
    step = Step()
    alone = step.results(slice(0, 4), step)

    other = multiprocessing.get_context("spawn").Process(target=_process, args=(1, str(tmp_path)))
    other.start()
    _process(0, str(tmp_path))
    other.join()

    shared = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert len(NAMES) % 2 == 0 or shared[0]["classes"] != shared[1]["classes"]
    assert shared[0]["classes"] + shared[1]["classes"] == len(NAMES)
    for results in shared:
        assert_equal(results["results"], alone)
    assert all(torch.equal(a, b) for a, b in zip(shared[0]["results"], shared[1]["results"], strict=True))
