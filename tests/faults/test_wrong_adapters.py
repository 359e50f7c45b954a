"""Row 19: an adapter of another model is refused with what it is of and what the model is."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from faults.campaign import Outcome, Row
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from kravl.adapters.injection.adapter_set import AdapterSet
from kravl.adapters.injection.inject import inject
from kravl.adapters.injection.serialization import load_adapters, save_adapters
from kravl.adapters.kra import KRAdapter
from kravl.adapters.lora import LoRA
from kravl.runtime.errors import InputError

FACTS = {"quick_gelu": False, "classes": "2, sha256 a"}
LOW_RANK = partial(LoRA, rank=2, alpha=2)
QUERY = ["blocks.*.attn.q"]


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    sizes = {"img_size": 16, "patch_size": 16, "embed_dim": 8, "depth": 2, "num_heads": 2, "num_classes": 2}
    return timm.models.vision_transformer.VisionTransformer(**sizes)


def adapted(seed: int = 0, make: Callable[..., object] = LOW_RANK, targets: list[str] = QUERY) -> AdapterSet:
    adapters = inject(model(seed), make, targets)
    with torch.no_grad():
        for tensor in adapters.state_dict().values():
            tensor.normal_()
    return adapters


def _rewritten(path: Path, drop: str = "", dtype: torch.dtype | None = None) -> None:
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    kept = {name: t.to(dtype or t.dtype) for name, t in tensors.items() if not drop or drop not in name}
    save_file(kept, path, metadata)


# what is told apart, the adapters and facts to load into, and what happens to the file before
Kind = tuple[str, Callable[[], AdapterSet], dict[str, object], Callable[[Path], None]]
KINDS: dict[str, Kind] = {
    "another backbone": ("base_sha256", partial(adapted, seed=1), FACTS, lambda path: None),
    "another activation": (
        "'quick_gelu': False.*'quick_gelu': True",
        adapted,
        FACTS | {"quick_gelu": True},
        lambda p: None,
    ),
    "another rank": (
        "'rank': 2.*'rank': 1",
        partial(adapted, make=partial(LoRA, rank=1, alpha=2)),
        FACTS,
        lambda p: None,
    ),
    "another scale": (
        "'alpha': 2.*'alpha': 1",
        partial(adapted, make=partial(LoRA, rank=2, alpha=1)),
        FACTS,
        lambda p: None,
    ),
    "another method": ("LoRA.*KRAdapter", partial(adapted, make=KRAdapter), FACTS, lambda path: None),
    "other sites": (r"attn\.q.*attn\.k", partial(adapted, targets=["blocks.*.attn.k"]), FACTS, lambda path: None),
    "missing keys": ("damaged", adapted, FACTS, partial(_rewritten, drop="blocks.0")),
    "another type of number": ("damaged", adapted, FACTS, partial(_rewritten, dtype=torch.float16)),
    "swapped classes": ("sha256 a.*sha256 b", adapted, FACTS | {"classes": "2, sha256 b"}, lambda path: None),
}


def problem(kind: str, folder: Path) -> str:
    """Why the file of ``kind`` was not refused as it should be, else empty."""
    expected, make, facts, change = KINDS[kind]
    path = folder / f"{kind}.safetensors"
    save_adapters(adapted(), path, FACTS)
    change(path)
    wrong = make()
    before = {name: tensor.clone() for name, tensor in wrong.state_dict().items()}
    with pytest.raises(InputError, match=rf"(?s){kind}\.safetensors' .*{expected}"):
        load_adapters(wrong, path, facts)
    altered = [name for name, tensor in wrong.state_dict().items() if not torch.equal(tensor, before[name])]
    return f"{kind}: {altered[0]} has changed" if altered else ""


def difference(folder: Path) -> float:
    """The largest difference of logits between the loaded adapter, merged and not, in single precision."""
    path = folder / "right.safetensors"
    source = adapted()
    save_adapters(source, path, FACTS)
    network = model().eval()
    adapters = inject(network, LOW_RANK, QUERY)
    load_adapters(adapters, path, FACTS)
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        nn.init.normal_(network.head.weight)
        unmerged = copy.deepcopy(network)(images)
        adapters.merge()
        return float((network(images) - unmerged).abs().max())


def run(count: int, folder: Path) -> Outcome:
    """The first ``count`` kinds, and the right adapter merged and not."""
    failures = [line for kind in list(KINDS)[:count] if (line := problem(kind, folder))]
    apart = difference(folder)
    failures += [f"merged and unmerged logits are {apart:.1e} apart"] if apart >= 1e-5 else []
    return Outcome(count, f"{count - len(failures)} of {count} refused; merged {apart:.1e} apart", failures)


ROW = Row(19, "an adapter of another model", "8 of 8 refused, merged logits < 1e-5 apart", len(KINDS), len(KINDS), run)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_of_another_model_is_refused_with_both_fingerprints(kind: str, tmp_path: Path) -> None:
    assert problem(kind, tmp_path) == ""


def test_the_right_adapter_gives_the_same_logits_merged_and_not(tmp_path: Path) -> None:
    assert difference(tmp_path) < 1e-5


def test_a_file_without_facts_is_read_as_before(tmp_path: Path) -> None:
    save_adapters(adapted(), tmp_path / "older.safetensors")

    load_adapters(adapted(), tmp_path / "older.safetensors", FACTS)
