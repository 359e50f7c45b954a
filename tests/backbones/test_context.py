"""A learned context on the prefix tree is CoOp's own forward pass; at its start it changes nothing."""

import copy
from typing import Any

import open_clip
import pytest
import torch
from backbones_towers import NAMES, assert_equal, clip, gradients
from torch import Tensor, nn
from torch.nn import functional as F

from kravl.backbones.clip import ClipClassifier
from kravl.backbones.text.class_features import ClassPrompts
from kravl.backbones.text.context import ContextSettings, context_prompts, initial_context
from kravl.backbones.text.tower import causal_text_tower
from kravl.backbones.vit import VitClassifier
from kravl.runtime.errors import InputError

TOKENIZER = open_clip.get_tokenizer("ViT-B-32")
TINY = {"name": "kravl-tiny", "pretrained": "kravl"}
CLASSES = ("red circle", "blue square", "arrow")
TEMPLATES = ("a photo of a {}.",)
TOWERS = {
    "CLIP": {},
    "end of text by its token": {"text": {"pool_type": "eos", "eos_id": 49407}},
    "CustomTextCLIP": {"custom": True, "text": {"proj_bias": True}},
}


def coop(model: nn.Module, context: Tensor) -> Tensor:
    """As CoOp's repository computes it: all 77 tokens of "X ... X name.", with the context in place of the X's."""
    owner: Any = getattr(model, "text", model)
    size = context.shape[-2]
    tokens = TOKENIZER([f"{' '.join(['X'] * size)} {name}." for name in NAMES])
    x = owner.token_embedding(tokens).double()
    x = torch.cat([x[:, :1], context.expand(len(NAMES), -1, -1), x[:, 1 + size :]], dim=1)
    x = owner.transformer(x + owner.positional_embedding, attn_mask=owner.attn_mask)
    x = owner.ln_final(x)[torch.arange(len(x)), tokens.argmax(dim=-1)]
    projection = owner.text_projection
    return F.normalize(projection(x) if isinstance(projection, nn.Linear) else x @ projection, dim=-1)


@pytest.mark.parametrize("settings", TOWERS.values(), ids=TOWERS)
@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("max_rows", [8192, 90])
def test_features_and_gradients_are_those_of_plain_autograd(
    settings: dict[str, Any], per_class: bool, max_rows: int
) -> None:
    model = clip(**settings).requires_grad_(False)
    shape = (len(NAMES), 5, 32) if per_class else (5, 32)
    context = nn.Parameter(torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))
    tokens = context_prompts(TOKENIZER, NAMES, ContextSettings(5, per_class=per_class))
    tower = causal_text_tower(model, lambda: context)
    actual = ClassPrompts(tokens, [1] * len(NAMES), model.encode_text, tower, max_rows)

    features, expected = actual.features(), coop(model, context)

    assert (len(actual._trees) > 1) == (max_rows == 90)
    assert_equal([features], [expected])
    assert_equal(gradients(features, [context]), gradients(expected, [context]))


def test_the_context_is_computed_once_for_all_classes() -> None:
    tokens = context_prompts(TOKENIZER, NAMES, ContextSettings(16))
    model = clip()
    prompts = ClassPrompts(tokens, [1] * len(NAMES), model.encode_text, causal_text_tower(model, lambda: None), 8192)
    prompts._build_trees()

    (tree,) = prompts._trees
    assert sorted(tree.tokens[tree.tokens < 0].tolist()) == list(range(-16, 0))
    assert tree.num_rows() <= 17 + sum(len(TOKENIZER.encode(f"{name}.")) + 1 for name in NAMES)


def test_dropout_in_the_tower_takes_the_plain_path_with_the_same_context() -> None:
    model = clip().requires_grad_(False)
    context = torch.randn(4, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    tokens = context_prompts(TOKENIZER, NAMES, ContextSettings(4))
    tower = causal_text_tower(model, lambda: context)
    assert tower is not None

    assert_equal([F.normalize(tower.encode_truncated(tokens, tower.ends(tokens)), dim=-1)], [coop(model, context)])


def tiny(context: ContextSettings | None = None) -> ClipClassifier:
    torch.manual_seed(0)
    classifier = ClipClassifier(CLASSES, TEMPLATES, **TINY).requires_grad_(False)
    if context:
        classifier.learn_context(context)
        classifier.model.context.requires_grad_(True)
    classifier.add_classes(("a heart",), TEMPLATES)
    return classifier.double().eval()


@torch.no_grad()
def test_at_its_start_there_is_no_context_and_every_other_is_one_of_further_classes_too() -> None:
    features = F.normalize(torch.randn(3, tiny().encode_text().shape[1], dtype=torch.float64), dim=-1)
    plain, learned = tiny(), tiny(ContextSettings(16))

    untrained = learned(features)
    learned.model.context += 0.1
    learned.prepare()
    trained = learned(features)

    assert torch.equal(untrained, plain(features))
    assert trained.shape == (3, 4)
    assert (trained - untrained).abs().amin(dim=0).min() > 1e-6  # the column of the further class as well
    assert [p.shape for p in learned.new_parameters()] == [(16, learned.model.token_embedding.weight.shape[1])]


@torch.no_grad()
def test_words_as_a_start_are_the_template_of_these_words() -> None:
    plain, learned = tiny(), tiny(ContextSettings(4, init="a photo of a"))
    before = plain.encode_text()

    learned.model.context[0, 0] += 1e-9  # else it stands for no context
    learned.prepare()

    assert learned._text_features is not None
    assert (learned._text_features - before).abs().max() < 1e-6
    of_classes = initial_context(
        learned.model.token_embedding, learned._tokenizer, ContextSettings(4, "a photo of a", True), 3
    )
    assert torch.equal(of_classes, learned._context_start.expand(3, -1, -1))


@torch.no_grad()
def test_a_copy_has_a_context_of_its_own() -> None:
    learned = tiny(ContextSettings(4))
    twin = copy.deepcopy(learned)
    features = torch.eye(learned.encode_text().shape[1], dtype=torch.float64)[:2]

    twin.model.context += 1
    twin.prepare()

    assert (twin(features) - learned(features)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("context", "line"),
    [
        (
            ContextSettings(80),
            r"context_tokens=80 does not fit: the class 'red circle' takes 5 tokens .*=19 is the most",
        ),
        (ContextSettings(3, "a photo of a"), "'a photo of a' has 4 tokens and context_tokens=3; pass context_tokens=4"),
    ],
)
def test_a_context_that_does_not_fit_says_what_does(context: ContextSettings, line: str) -> None:
    with pytest.raises(InputError, match=line):
        ClipClassifier.check_context(TINY, context, CLASSES)


def test_the_longest_class_is_named_with_the_most_that_fits() -> None:
    long = " ".join(["word"] * 60)
    with pytest.raises(InputError) as raised:
        context_prompts(TOKENIZER, ("cat", long), ContextSettings(16))
    assert f"the class {long[:80]!r} takes 63 tokens" in str(raised.value)
    assert "makes 79, and the text tower takes 77; context_tokens=14 is the most" in str(raised.value)

    assert context_prompts(TOKENIZER, ("cat", long), ContextSettings(14)).shape == (2, 77)
    with pytest.raises(InputError, match="no context fits; give it a shorter name"):
        context_prompts(TOKENIZER, (" ".join(["word"] * 90),), ContextSettings(1))


def test_towers_without_such_tokens_are_refused_before_weights() -> None:
    with pytest.raises(InputError, match="VitClassifier has no text tower: context_tokens=16 takes a CLIP backbone"):
        VitClassifier.check_context({"name": "vit_tiny_patch16_224", "pretrained": False}, ContextSettings(16), CLASSES)
    settings = {"name": "coca_ViT-B-32", "pretrained": None}
    with pytest.raises(InputError, match="the text tower of 'coca_ViT-B-32' is not a causal transformer"):
        ClipClassifier.check_context(settings, ContextSettings(16), CLASSES)
    ClipClassifier.check_context({"name": "ViT-B-16", "pretrained": "openai"}, ContextSettings(16), CLASSES)
