"""Prompts as tokens: those that a text tower cannot take whole, and classes that it cannot tell apart, are told."""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import open_clip
import torch
from torch import Tensor

from kravl.backbones.weights.sources import require_hub_file
from kravl.runtime.errors import InputError, first_line, some_of, unknown

LONG_PROMPTS = ("cut", "error")
INSTALL = "pip install 'kravl[text]'"
ONCE = "connect to the network once"
# any of which a tokenizer of the hub has
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "spiece.model", "sentencepiece.bpe.model", "vocab.txt")
Tokenizer = Callable[..., Tensor]
log = logging.getLogger(__name__)


def require_text(name: str) -> None:
    """Check that the text tower and the tokenizer of an open_clip model can be had, before anything is loaded.

    Those of Hugging Face take transformers, which is no part of a plain installation, and files of the hub: a
    tokenizer's, unless the model lies in a folder, and the config of a tower.

    Raises:
        InputError: transformers is not installed, or a file is not cached and the hub does not answer.
    """
    text = open_clip.get_model_config(name)["text_cfg"]
    tower, tokenizer = text.get("hf_model_name"), text.get("hf_tokenizer_name")
    if not (tower or tokenizer):
        return
    if find_spec("transformers") is None:
        parts = " and ".join([*(["text tower"] if tower else []), *(["tokenizer"] if tokenizer else [])])
        raise InputError(f"{name!r} takes its {parts} from transformers, which is not installed: {INSTALL}")
    if tower:
        require_hub_file(tower, ["config.json"], f"the text tower of {name!r}", ONCE)
    if tokenizer and not name.startswith("local-dir:"):
        require_hub_file(tokenizer, TOKENIZER_FILES, f"the tokenizer of {name!r}", ONCE)


def tokenizer_of(name: str) -> Any:
    """open_clip's tokenizer of the model ``name``. Raises InputError where it cannot be loaded."""
    try:
        return open_clip.get_tokenizer(name)
    except (ImportError, OSError, ValueError) as error:
        reason = f"{first_line(error).rstrip(':. ')}; what it may need: {INSTALL}"
        raise InputError(f"the tokenizer of {name!r} cannot be loaded: {reason}") from error


def tokenize(
    tokenizer: Tokenizer, class_names: Sequence[str], prompts: Sequence[Sequence[str]], long_prompts: str = "cut"
) -> Tensor:
    """Tokens (prompts, context length) of the ``prompts`` of each class, class by class.

    Args:
        long_prompts: what becomes of prompts beyond the context length: ``cut`` by the tokenizer, which is told, or an
            ``error``.

    Raises:
        InputError: a prompt that is too long, if that is an error; how many there are, and the first.
    """
    if long_prompts not in LONG_PROMPTS:
        raise unknown("data.long_prompts", long_prompts, LONG_PROMPTS)
    flat = [prompt for of_class in prompts for prompt in of_class]
    tokens = tokenizer(flat)
    if long := beyond_context(tokenizer, flat, tokens):
        told = f"{len(long)} of {len(flat)} prompts are longer than the text tower's context, {tokens.shape[1]} tokens"
        first = f"the first is {flat[long[0]][:300]!r}"
        if long_prompts == "error":
            raise InputError(f"{told}; {first}; shorten them, or let them be cut with data.long_prompts=cut")
        log.warning("%s, and are cut: %s; data.long_prompts=error refuses them", told, first)
    _tell_same_tokens(class_names, tokens, prompts)
    return tokens


def beyond_context(tokenizer: Tokenizer, prompts: Sequence[str], tokens: Tensor) -> list[int]:
    """Which of the ``prompts`` the tokenizer has cut to the length of ``tokens`` (n, length).

    A prompt is cut if one more place holds one more token; only rows without padding at their end can be.
    """
    length = tokens.shape[1]
    padding = tokenizer([""])[0, -1]
    full = (tokens[:, -2:] != padding).any(dim=1).nonzero().flatten().tolist()
    if not full:
        return []
    longer = tokenizer([prompts[i] for i in full], context_length=length + 1)
    pairs = zip(full, longer, strict=True)
    return [i for i, row in pairs if not torch.equal(row[row != padding], tokens[i][tokens[i] != padding])]


def _tell_same_tokens(class_names: Sequence[str], tokens: Tensor, prompts: Sequence[Sequence[str]]) -> None:
    """Tell of classes whose prompts are the same; of those of one name and one text the data set has told."""
    groups: defaultdict[tuple[bytes, ...], dict[tuple[str, ...], str]] = defaultdict(dict)
    for name, texts, rows in zip(class_names, prompts, tokens.split([len(of) for of in prompts]), strict=True):
        groups[tuple(sorted(row.numpy().tobytes() for row in rows))][name, *texts] = name
    if same := [" and ".join(map(repr, group.values())) for group in groups.values() if len(group) > 1]:
        listed = some_of(same, 10, "; ")
        log.warning("classes whose prompts are the same to the text tower, which cannot tell them apart: %s", listed)
