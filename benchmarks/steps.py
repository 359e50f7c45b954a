"""The loops that step.py compares: kravl's training step, as public few-shot code writes it, and PEFT's (peft_clip.py).

Of kravl's there are two more, with settings that change numbers and so are not its default: dropout that prompts share
(kravl-shared) and frozen matrices stored in bfloat16 (kravl-stored).

The plain loop encodes every class prompt with all 77 tokens in every step and keeps nothing between steps. Its adapted
layers are written out, all by autograd: KRAdapter by the formula of the released layer, LoRA as two branches with q, k
and v apart (CLIP-LoRA, https://arxiv.org/abs/2405.18541). Both start from the same weights and factors.
"""

import copy
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import open_clip
import torch
from layers import PublishedLayer
from torch import Tensor, nn
from torch.nn import functional as F

from kravl.adapters.base import Adapter
from kravl.adapters.injection.inject import inject
from kravl.adapters.injection.parameter import adapters_of
from kravl.adapters.kra import KRAdapter
from kravl.adapters.lora import LoRA
from kravl.backbones.clip import ClipClassifier

BOTH, APART = ["*.attn.qkv", "*.mlp.c_*"], ["*.attn.[qkv]"]
# method -> its adapter and the matrices that it goes on; LoRA of rank 2 on q, k and v, as CLIP-LoRA
METHODS = {
    "KRAdapter": (partial(KRAdapter, scale=2.0), BOTH),
    "LoRA": (partial(LoRA, rank=2, alpha=1, rank_stabilised=True), APART),
    "LoRA, dropout 0.25": (partial(LoRA, rank=2, alpha=1, rank_stabilised=True, dropout=0.25), APART),
}
PROBE = "linear probe"
MATRICES = "full fine-tuning of the matrices"  # of those that KRAdapter adapts, in kravl's loop alone
HEAD = 64  # width of an attention head
PLAIN, KRAVL, PEFT, PEFT_77 = ("plain", "kravl", "peft", "peft-77")
SHARED, STORED = "kravl-shared", "kravl-stored"
OWN = {KRAVL: {}, SHARED: {"shared_dropout": True}, STORED: {"dtype": "bf16"}}
LOOPS = (PLAIN, KRAVL, PEFT, PEFT_77, SHARED, STORED)
TEMPLATE = "a photo of a {}."


def clip_of_width(width: int, blocks: int) -> str:
    """The name of an open_clip model of that width in both towers, at the resolution and patches of ViT-B-32."""
    name = f"width-{width}"
    vision = {"image_size": 224, "layers": blocks, "width": width, "head_width": HEAD, "patch_size": 32}
    text = {"context_length": 77, "vocab_size": 49408, "width": width, "heads": width // HEAD, "layers": blocks}
    with TemporaryDirectory() as folder:
        config = {"embed_dim": 512, "vision_cfg": vision, "text_cfg": text}
        (Path(folder) / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(folder)
    return name


class TwoBranches(nn.Module):
    """y = W x + b + scale * B A dropout(x)."""

    def __init__(self, base: nn.Linear, adapter: LoRA) -> None:
        super().__init__()
        self.base, self.a, self.b, self.scale = base, adapter.a, adapter.b, adapter.scale
        self.dropout = nn.Dropout(adapter.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * F.linear(F.linear(self.dropout(x), self.a), self.b)


class PlainAttention(nn.Module):
    """Self-attention whose q, k and v are written out, in place of an adapted nn.MultiheadAttention."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        weight, bias = attention._parameters["in_proj_weight"], attention.in_proj_bias
        blocks = adapters_of(attention)
        rows = [rows for _, rows in blocks.places] or [slice(0, len(weight))]
        adapters = list(blocks) or [None]
        self.parts = nn.ModuleList(
            written_out(_linear(weight[r], bias[r]), adapter) for r, adapter in zip(rows, adapters, strict=True)
        )
        self.heads, self.out_proj = attention.num_heads, attention.out_proj

    def forward(self, x: Tensor, *_: Tensor, attn_mask: Tensor | None = None, need_weights: bool = False) -> Any:
        packed = torch.cat([part(x) for part in self.parts], dim=-1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in packed.chunk(3, dim=-1))
        mask = None if attn_mask is None else attn_mask.to(q.dtype)
        y = F.scaled_dot_product_attention(q, k, v, mask)
        return self.out_proj(y.transpose(1, 2).flatten(2)), None


def written_out(base: nn.Linear, adapter: Adapter | None) -> nn.Module:
    """``base`` with the adapter as public code has it."""
    if adapter is None:
        return base
    layer = PublishedLayer(base, adapter) if isinstance(adapter, KRAdapter) else TwoBranches(base, adapter)  # type: ignore[arg-type]
    layer.weight = base.weight  # open_clip asks the first block for its type
    return layer


def plain_copy(model: Any) -> Any:
    """A copy of an adapted open_clip model in which every block is written out."""
    model = copy.deepcopy(model)
    for tower in (model.visual.transformer, model.transformer):
        for block in tower.resblocks:
            block.attn = PlainAttention(block.attn)
            for name, layer in list(block.mlp.named_children()):
                if "adapters" in layer._modules:
                    base = _linear(layer._parameters["weight"], layer.bias)
                    setattr(block.mlp, name, written_out(base, adapters_of(layer)[0]))
    return model


class Plain(nn.Module):
    """The ``model`` of the plain loop, which encodes all ``tokens`` (classes, 77) of every prompt in every step."""

    def __init__(self, model: nn.Module, tokens: Tensor) -> None:
        super().__init__()
        self.model, self.tokens = model, tokens

    def encode_text(self) -> Tensor:
        return F.normalize(self.model.encode_text(self.tokens), dim=-1)  # type: ignore[operator]

    def image_features(self, images: Tensor) -> Tensor:
        return F.normalize(self.model.encode_image(images), dim=-1)  # type: ignore[operator]


def loops_of(method: str) -> tuple[str, ...]:
    """Those that can train it: PEFT has no KRAdapter without kravl, and neither it nor the plain loop the matrices."""
    if method == MATRICES:
        return (KRAVL,)
    make, _ = METHODS.get(method, (partial(KRAdapter), []))
    drops = (SHARED,) if make.keywords.get("dropout") else ()
    return (PLAIN, KRAVL, *((PEFT, PEFT_77) if make.func is LoRA else ()), *drops, STORED)


@dataclass(frozen=True)
class Setting:
    """Where a step runs and in which type; of bfloat16 the products alone (autocast).

    ``blocks``: of each tower, or all. ``loops``: those that are made, each with a model of its own.
    """

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    blocks: int | None = None
    loops: tuple[str, ...] = (PLAIN, KRAVL)

    def like(self) -> Tensor:
        return torch.empty(0, device=self.device, dtype=torch.promote_types(self.dtype, torch.float32))

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == torch.bfloat16)


class Steps:
    """An open_clip model, random images (batch, 3, size, size) and labels, and the steps of each loop on them."""

    def __init__(self, name: str, method: str, classes: int, batch: int, setting: "Setting") -> None:
        names = open_clip.IMAGENET_CLASSNAMES[:classes]
        self.setting, self.probe, self._made = setting, method == PROBE, (name, method, names)
        made = [loop for loop in setting.loops if loop in OWN]
        alone = len(made) == len(setting.loops) == 1  # else the others are made of weights that are as they were
        self._first = made[0] if alone else KRAVL
        self.classifier, like = self._own(self._first), setting.like()
        size = self.classifier.preprocess.image_size
        self.images = torch.randn(batch, 3, size, size).to(like)
        self.labels = torch.randint(classes, (batch,)).to(like.device)
        tokens = open_clip.get_tokenizer(name)([TEMPLATE.format(name) for name in names]).to(like.device)
        self.models = {loop: self._model(loop, tokens) for loop in setting.loops if loop in loops_of(method)}
        with torch.no_grad(), setting.autocast():
            self.features = self.classifier.image_features(self.images) if self.probe else None
        self.parameters = {loop: [p for p in m.parameters() if p.requires_grad] for loop, m in self.models.items()}
        fused = True if setting.device == "cuda" else None  # of all: a GPU's default takes longer for many weights
        self.optimizers = {loop: torch.optim.AdamW(ps, lr=1e-6, fused=fused) for loop, ps in self.parameters.items()}

    def _own(self, loop: str) -> ClipClassifier:
        """The classifier of one of kravl's loops; all of them start from the same weights and factors."""
        name, method, names = self._made
        torch.manual_seed(0)
        classifier = ClipClassifier(names, [TEMPLATE], name=name, pretrained=None, **OWN[loop])
        for tower in (classifier.model.visual.transformer, classifier.model.transformer):
            tower.resblocks = tower.resblocks[: self.setting.blocks]
        make, targets, unfreeze = KRAdapter, [], ["class_weight"]
        if method == PROBE:
            classifier.free_head()
        elif method == MATRICES:
            unfreeze = ["*.attn.in_proj_weight", "*.mlp.c_*.weight"]
        else:
            (make, targets), unfreeze = METHODS[method], []
        adapters = inject(classifier.encoder(), make, targets, unfreeze, frozen_dtype=classifier.frozen_dtype)
        for adapter in adapters.adapters.values():
            _away_from_zero(adapter)
        if loop == self._first:
            self.adapters = adapters.adapters
        like = self.setting.like()
        return classifier.to(like.device if loop == STORED else like).train()  # stored in a type of their own

    def _model(self, loop: str, tokens: Tensor) -> nn.Module:
        if loop == self._first:
            return self.classifier
        if loop in OWN:
            return self._own(loop)
        if loop == PLAIN:
            return Plain(plain_copy(self.classifier.model), tokens)
        from peft_clip import PeftClip  # with transformers and PEFT, which the other loops do not need

        vocabulary = self.classifier.tokenizer
        numbers = vocabulary.sot_token_id, vocabulary.eot_token_id
        return PeftClip(self.classifier.model, self.adapters, tokens, *numbers, trimmed=loop == PEFT)

    def text(self, loop: str) -> Tensor:
        """Unit class features (classes, d)."""
        with self.setting.autocast():
            features: Tensor = self.models[loop].encode_text()  # type: ignore[operator]
            return features

    def image(self, loop: str) -> Tensor:
        """Unit image features (batch, d)."""
        with self.setting.autocast():
            features: Tensor = self.models[loop].image_features(self.images)  # type: ignore[operator]
            return features

    def loss(self, loop: str) -> Tensor:
        """Cross-entropy of the batch."""
        with self.setting.autocast():
            if loop in OWN:
                return F.cross_entropy(self.models[loop](self.features if self.probe else self.images), self.labels)
            head = F.normalize(self.parameters[loop][0], dim=-1) if self.probe else self.text(loop)
            logits = 100 * self.image(loop).float() @ head.float().T
            return F.cross_entropy(logits, self.labels)

    def step(self, loop: str) -> None:
        """Forward, backward and AdamW."""
        self.loss(loop).backward()
        self.optimizers[loop].step()
        self.optimizers[loop].zero_grad(set_to_none=True)

    def values(self, loop: str) -> list[Tensor]:
        """Features of classes and images, and the gradients of all that trains, these as one sorted vector."""
        features = [self.text(loop), self.image(loop)]
        if not any(feature.requires_grad for feature in features):
            return features
        # every class and image counts differently
        loss = sum((feature.sum(dim=1) * torch.arange(1.0, len(feature) + 1).to(feature)).sum() for feature in features)
        grads = torch.autograd.grad(loss, self.parameters[loop])
        return [*features, torch.cat([grad.flatten() for grad in grads]).sort().values]


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = (nn.Parameter(t.detach(), requires_grad=False) for t in (weight, bias))
    return layer


@torch.no_grad()
def _away_from_zero(adapter: Adapter) -> None:
    for parameter in adapter.parameters():
        if not parameter.count_nonzero():
            parameter.normal_(std=0.02)
