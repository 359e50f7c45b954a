"""Frozen matrices stored in bfloat16 give, bit for bit, what the rounded ones give: each file in configs/adapter."""

import contextlib
import copy
import pickle

import pytest
import timm
import torch
from torch import nn

from kravl.adapters.full import Full
from kravl.adapters.injection.inject import inject
from kravl.adapters.injection.storage import round_weights
from kravl.adapters.kra import KRAdapter
from kravl.runtime.errors import InputError


def pair(case, make_adapter, perturb):
    """The model with stored weights and the one with the same numbers in single precision, equally adapted."""
    twin = copy.deepcopy(case.model)
    round_weights(twin, torch.bfloat16)
    pairs = []
    for model, dtype in ((case.model, torch.bfloat16), (twin, None)):
        torch.manual_seed(0)
        pairs.append((model, inject(model, make_adapter, case.targets, frozen_dtype=dtype)))
        perturb(pairs[-1][1])
    return pairs


def numbers(case, model, adapters):
    y = case.run(model)
    return [y, *torch.autograd.grad(y.square().sum(), adapters.parameters())]


def assert_equal_steps(case, pairs):
    actual, expected = (numbers(case, model, adapters) for model, adapters in pairs)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


@pytest.mark.parametrize("case", ["clip"], indirect=True)
@pytest.mark.parametrize("autocast", [False, True])
def test_a_step_has_the_bits_of_rounded_weights(make_adapter, case, perturb, autocast):
    pairs = pair(case, make_adapter, perturb)

    with torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
        assert_equal_steps(case, pairs)

    assert {p.dtype for p in pairs[0][1].parameters()} == {torch.float32}


@pytest.mark.parametrize("case", ["vit", "convnext"], indirect=True)
def test_so_has_one_of_fused_rows_and_one_beside_convolutions(case, perturb):
    assert_equal_steps(case, pair(case, KRAdapter, perturb))


@pytest.mark.parametrize("case", ["clip"], indirect=True)
def test_merged_on_the_curve_and_for_good_it_is_the_model_of_rounded_weights(make_adapter, case, perturb):
    (model, adapters), (twin, reference) = pair(case, make_adapter, perturb)
    narrow = {name: p.dtype for name, p in model.named_parameters()}

    for alpha in (0.0, 0.5, 1.0):
        adapters.merge(alpha)
        reference.merge(alpha)
        with torch.no_grad():
            assert torch.equal(case.run(model), case.run(twin))
        adapters.unmerge()
        reference.unmerge()
    assert {name: p.dtype for name, p in model.named_parameters()} == narrow
    updates = dict(adapters.deltas())
    adapters.merge_updates(updates)
    reference.merge_updates(updates)
    with torch.no_grad():
        assert torch.equal(case.run(model), case.run(twin))
    adapters.merge_and_unload()
    reference.merge_and_unload()

    state, expected = model.state_dict(), twin.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert [type(module) for module in model.modules()] == [type(module) for module in twin.modules()]


@pytest.mark.parametrize("case", ["clip", "vit"], indirect=True)
def test_nearly_all_of_a_transformer_is_stored_in_half_the_memory(case):
    before = sum(p.nbytes for p in case.model.parameters())

    inject(
        case.model,
        None,
        [],
        unfreeze=["*.ln_1.*" if hasattr(case.model, "visual") else "*.norm1.*"],
        frozen_dtype=torch.bfloat16,
    )

    kept = sum(p.nbytes for p in case.model.parameters() if p.dtype == torch.float32)
    assert sum(p.nbytes for p in case.model.parameters()) == (before + kept) / 2
    whole = [name for name, p in case.model.named_parameters() if p.dtype == torch.float32 and p.dim() > 1]
    clip = ["positional_embedding", "text_projection", "visual.positional_embedding", "visual.proj"]
    vit = ["cls_token", "pos_embed", "patch_embed.proj.weight"]
    assert whole == ([*clip, "visual.conv1.weight"] if hasattr(case.model, "visual") else vit)


@pytest.mark.parametrize("case", ["clip"], indirect=True)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_are_stored_and_merged_on_their_own(case, perturb, duplicate):
    (model, adapters), _ = pair(case, KRAdapter, perturb)
    copied_model, copied = duplicate((model, adapters))
    adapted = case.run(model)

    copied.merge()

    torch.testing.assert_close(case.run(copied_model), adapted)
    assert torch.equal(case.run(model), adapted)
    copied.unmerge()
    assert torch.equal(case.run(copied_model), adapted)


def test_what_trains_and_what_another_module_reads_stays_as_it_is():
    class Tied(nn.Module):
        """Reads the table of its own embedding as a matrix."""

        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(8, 4)
            self.out = nn.Linear(4, 4)
            self.register_parameter("scores", self.words.weight)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.out(self.words(tokens)) @ self.scores.T

    model = Tied()
    inject(model, None, [], unfreeze=["out.*"], frozen_dtype=torch.bfloat16)

    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_reader_of_a_stored_weight_gets_it_in_its_own_type():
    layer = nn.Sequential(nn.Linear(4, 3), nn.Embedding(5, 4))
    weights = [part.weight.detach().bfloat16().float() for part in layer]

    inject(layer, None, [], frozen_dtype=torch.bfloat16)

    assert all(torch.equal(part.weight, weight) for part, weight in zip(layer, weights, strict=True))
    assert [p.dtype for p in layer.parameters()] == [torch.bfloat16, torch.float32, torch.bfloat16]
    tokens = torch.tensor([[0, 4]])
    assert torch.equal(layer[1](tokens), weights[1][tokens])


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_table_that_is_adapted_as_a_matrix_reads_as_adapted(dtype):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(8, 4)
            self.out = nn.Linear(4, 8, bias=False)
            self.out.weight = self.words.weight

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.out(self.words(tokens))

    model, tokens = Tied(), torch.tensor([[0, 5]])
    adapters = inject(model, Full, ["out"], frozen_dtype=dtype)
    nn.init.normal_(adapters.parameters()[0])
    live = model(tokens)

    adapters.merge()

    torch.testing.assert_close(model(tokens), live)


def test_a_model_that_is_widened_after_injection_is_restored_bit_for_bit():
    model = nn.Sequential(nn.Linear(4, 3))
    adapters = inject(model, Full, ["0"], frozen_dtype=torch.bfloat16)
    model.float()
    before = model[0].weight.clone()
    nn.init.ones_(adapters.parameters()[0])

    adapters.merge()
    adapters.unmerge()
    adapters.merge(0.0)
    adapters.unmerge()

    assert torch.equal(model[0]._parameters["weight"], before)


def test_a_matrix_that_its_parent_hands_to_a_function_stays_as_it_is():
    beit = timm.models.beit.Beit(img_size=32, patch_size=16, embed_dim=48, depth=2, num_heads=3, num_classes=5)

    inject(beit, None, [], frozen_dtype=torch.bfloat16)

    types = {name: p.dtype for name, p in beit.named_parameters() if name.startswith("blocks.1") and p.dim() > 1}
    assert types.pop("blocks.1.attn.qkv.weight") == torch.float32
    assert set(types.values()) == {torch.bfloat16} and len(types) == 3


def test_one_row_goes_through_a_stored_layer_with_a_trained_bias():
    model, x = nn.Sequential(nn.Linear(4, 3)), torch.ones(4)
    inject(model, None, [], unfreeze=["0.bias"], frozen_dtype=torch.bfloat16)

    model(x).sum().backward()

    assert model[0].bias.grad.tolist() == [1.0, 1.0, 1.0]


def test_another_type_is_refused_and_changes_nothing():
    model = nn.Sequential(nn.Linear(4, 3))

    with pytest.raises(InputError, match=r"frozen_dtype must be torch\.bfloat16 or None, not torch\.float32"):
        inject(model, Full, ["0"], frozen_dtype=torch.float32)

    assert type(model[0]) is nn.Linear
