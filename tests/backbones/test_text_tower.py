"""Text features from the prefix tree are open_clip's; towers that do not allow it are recognised."""

import pytest
import torch
from backbones_towers import NAMES, TEMPLATES, adapted, assert_equal, clip, gradients, prompts
from torch import nn
from torch.nn import functional as F

from kravl.adapters.injection.inject import inject
from kravl.adapters.lora import LoRA
from kravl.backbones.text import class_features
from kravl.backbones.text.class_features import ClassPrompts
from kravl.backbones.text.prompt_tree import PromptTree, chunk_prompts
from kravl.backbones.text.tower import CausalTextTower, causal_text_tower

SIZES = [len(TEMPLATES)] * len(NAMES)


def class_prompts(model: nn.Module, max_rows: int = 8192) -> ClassPrompts:
    tokens = prompts()[:-1].to(model.logit_scale.device)
    return ClassPrompts(tokens, SIZES, model.encode_text, causal_text_tower(model), max_rows)


def plain(model: nn.Module) -> torch.Tensor:
    """As open_clip's own zero-shot classifier has it."""
    tokens = prompts()[:-1].to(model.logit_scale.device)
    features = F.normalize(model.encode_text(tokens), dim=-1)
    return F.normalize(features.unflatten(0, (len(NAMES), len(TEMPLATES))).mean(dim=1), dim=-1)


TOWERS = {
    "CLIP": {},
    "layer scale": {"text": {"ls_init_value": 0.3}},
    "end of text by its token": {"text": {"pool_type": "eos", "eos_id": 49407}},
    "CustomTextCLIP": {"custom": True, "text": {"proj_bias": True}},
}


@pytest.mark.parametrize("settings", TOWERS.values(), ids=TOWERS)
@pytest.mark.parametrize("max_rows", [8192, 60])
def test_features_and_gradients_are_those_of_all_77_tokens(settings, max_rows, device):
    model = clip(**settings)
    parameters = adapted(model).parameters()
    model.to(device)
    actual = class_prompts(model, max_rows)

    features, expected = actual.features(), plain(model)

    assert actual._trees, "the tree was not used"
    assert (len(actual._trees) > 1) == (max_rows == 60)
    assert_equal([features], [expected])
    assert_equal(gradients(features, parameters), gradients(expected, parameters))


def test_every_weight_of_the_tower_gets_the_same_gradient():
    model = clip()
    text = [p for name, p in model.named_parameters() if not name.startswith(("visual.", "logit"))]

    assert_equal(gradients(class_prompts(model).features(), text), gradients(plain(model), text))


@pytest.mark.parametrize("autocast", [False, True])
def test_two_passes_have_the_same_bits(autocast):
    model = clip().float()
    parameters, actual = adapted(model).parameters(), class_prompts(model, max_rows=60)

    with torch.autocast("cpu", enabled=autocast):
        first, again = (gradients(actual.features(), parameters) for _ in range(2))

    assert all(a is b is None or torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_checkpointing_keeps_less_and_changes_no_gradient():
    model = clip()
    parameters, actual = adapted(model).parameters(), class_prompts(model)

    def bytes_and_gradients() -> tuple[int, list[torch.Tensor]]:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.nbytes) or x, lambda x: x):
            features = actual.features()
        return sum(sizes), gradients(features, parameters)

    size, expected = bytes_and_gradients()
    model.set_grad_checkpointing(True)
    smaller, recomputed = bytes_and_gradients()

    assert smaller < size / 2
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(recomputed, expected, strict=True))


def test_each_distinct_prefix_is_one_row():
    tree = PromptTree([(1, 2, 9), (1, 3, 4, 9), (1, 2, 5, 9), (1, 2, 9)])

    assert tree.num_rows() == 8  # 1; 1 2; 1 2 9; 1 3; 1 3 4; 1 3 4 9; 1 2 5; 1 2 5 9
    assert sorted(tree.positions.tolist()) == [0, 1, 1, 2, 2, 2, 3, 3]
    assert [tuple(paths.shape) for paths in tree.paths] == [(1, 3), (2, 4)]
    ends = torch.cat([tree.tokens[paths].sum(dim=1) for paths in tree.paths])
    assert ends[tree.leaves].tolist() == [12, 17, 17, 12]
    flat = torch.cat([paths.flatten() for paths in tree.paths])
    assert torch.equal(flat[tree.in_paths], torch.arange(tree.num_rows()))


def test_chunks_keep_to_their_size_and_hold_every_prompt_once():
    ends = prompts().argmax(dim=1).tolist()
    rows = [tuple(tokens[: end + 1]) for tokens, end in zip(prompts().tolist(), ends, strict=True)]

    pieces = chunk_prompts(rows, max_rows=60)

    assert sorted(i for piece in pieces for i in piece) == list(range(len(rows)))
    assert all(PromptTree([rows[i] for i in piece]).num_rows() <= 60 for piece in pieces)
    assert chunk_prompts([(1, 2, 3), (1, 2, 4)], max_rows=1) == [[0], [1]]


def test_training_in_chunks_keeps_the_activations_of_one():
    model = clip()
    adapted(model)

    def saved_bytes(max_rows: int) -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.nbytes) or t, lambda t: t):
            class_prompts(model, max_rows).features()
        return sum(sizes)

    assert saved_bytes(max_rows=60) < saved_bytes(max_rows=8192) / 4


def test_recomputed_blocks_keep_less_and_have_the_same_bits():
    model = clip()
    parameters = adapted(model).parameters()

    def kept_and_gradients(checkpointing: bool):
        model.set_grad_checkpointing(checkpointing)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.nbytes) or t, lambda t: t):
            features = class_prompts(model).features()
        return sum(sizes), gradients(features, parameters)

    (whole, plainly), (less, again) = kept_and_gradients(False), kept_and_gradients(True)

    assert less < whole / 2
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(plainly, again, strict=True))


OTHERS = {
    "no causal mask": {"text": {"no_causal_mask": True, "pool_type": "last"}, "custom": True},
    "pooled at the last position": {"text": {"pool_type": "last"}},
    "pooled at the first position": {"text": {"pool_type": "first"}},
    "a class token of its own": {"text": {"embed_cls": True, "context_length": 76}, "custom": True},
    "blocks of another kind": {"text": {"qk_norm": True}},
}


@pytest.mark.parametrize("settings", OTHERS.values(), ids=OTHERS)
def test_another_tower_runs_unchanged(settings):
    model = clip(**settings)
    assert causal_text_tower(model) is None
    length = model.context_length
    actual = ClassPrompts(prompts()[:-1, :length], SIZES, model.encode_text, causal_text_tower(model), 8192)

    with torch.no_grad():
        features = F.normalize(model.encode_text(prompts()[:-1, :length]), dim=-1)
        expected = F.normalize(features.unflatten(0, (len(NAMES), len(TEMPLATES))).mean(dim=1), dim=-1)
        assert_equal([actual.features()], [expected])


def test_a_model_with_its_own_encoder_runs_unchanged():
    class Other(type(clip())):
        def encode_text(self, text, normalize=False):
            return super().encode_text(text.flip(0), normalize)

    model = clip()
    model.__class__ = Other
    assert causal_text_tower(model) is None


def test_a_tower_that_drops_draws_its_own_numbers_for_every_prompt(monkeypatch):
    model = clip()
    inject(model, lambda o, i: LoRA(o, i, rank=2, alpha=2, dropout=0.5), ["transformer.*.attn.qkv"])
    actual, cuts = class_prompts(model), []
    encode_truncated = CausalTextTower.encode_truncated
    monkeypatch.setattr(
        CausalTextTower, "encode_truncated", lambda *arguments: cuts.append(1) or encode_truncated(*arguments)
    )

    model.train()
    features = actual.features()
    assert cuts and not actual._trees
    assert_equal([features], [plain(model)])  # LoRA's update is zero at first, whatever is dropped
    model.eval()
    actual.features()
    assert len(cuts) == 1 and actual._trees


def test_prompts_that_share_dropout_are_a_tree_with_one_draw_for_what_they_share():
    model = clip()
    adapters = inject(model, lambda o, i: LoRA(o, i, rank=2, alpha=2, dropout=0.5), ["transformer.*.attn.qkv"])
    for parameter in adapters.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tokens = prompts()[:-1]
    twice = tokens.repeat(2, 1)  # every prompt is that of two classes
    features = {}
    for shared in (True, False):
        model.train()
        tower = causal_text_tower(model, shared_dropout=shared)
        both = ClassPrompts(twice, [1] * len(twice), model.encode_text, tower, 8192)
        torch.manual_seed(0)
        features[shared] = both.features().chunk(2)
        assert len(both._trees) == shared
        assert not torch.equal(both.features().chunk(2)[0], features[shared][0]), "nothing was dropped"

    assert torch.equal(*features[True])
    assert not torch.allclose(*features[False], atol=1e-3)


def test_pieces_that_are_computed_again_drop_what_they_dropped_before(device, monkeypatch):
    model = clip()
    adapters = inject(model, lambda o, i: LoRA(o, i, rank=2, alpha=2, dropout=0.5), ["transformer.*.attn.qkv"])
    for parameter in adapters.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.train().to(device)
    prompts = class_prompts(model, max_rows=400)

    def features_and_gradients():
        torch.manual_seed(1)
        features = prompts.features()
        torch.manual_seed(2)  # what a step draws between its two passes
        return [features, *gradients(features, adapters.parameters())]

    again = features_and_gradients()
    monkeypatch.setattr(class_features, "_recomputed", lambda piece, on_device: piece())

    assert_equal(again, features_and_gradients())


def test_in_bfloat16_features_are_no_further_from_float64_than_those_of_all_tokens():
    model = clip()
    adapted(model)
    with torch.no_grad():
        exact = plain(model)
        model.float()
        with torch.autocast("cpu"):
            actual, full = class_prompts(model).features(), plain(model)

    # the norm: rounding of some entry may be larger in either, and which one depends on the kernels
    assert (actual - exact).norm() <= 1.2 * (full - exact).norm()
