"""From class names to prompts and text features: the normalised mean over templates, in chunks that fit in memory."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from kravl.backbones.text.prompt_tree import PromptTree, chunk_prompts
from kravl.backbones.text.tower import CausalTextTower
from kravl.runtime.distributed import gather_rows, num_processes, own_share
from kravl.runtime.signals import raise_if_stopped

EQUAL = 1e5  # features that agree to so much are equal but for rounding
Encode = Callable[[Tensor], Tensor]
Prompts = Sequence[str | Sequence[str]]  # templates, each with one {} for the class name, or for each class its prompts


def class_prompts(class_names: Sequence[str], prompts: Prompts) -> list[list[str]]:
    """The prompts of each class: each of the templates with its name, or its own as they are."""
    own = [[prompt] if isinstance(prompt, str) else list(prompt) for prompt in prompts]
    if not all(isinstance(prompt, str) for prompt in prompts):
        assert len(own) == len(class_names)
        return own
    return [[template.format(class_name) for (template,) in own] for class_name in class_names]


class ClassPrompts(nn.Module):
    """The tokens of the prompts of C classes, class by class.

    Args:
        tokens: (prompts, length).
        sizes: how many prompts each class has.
        encode: tokens (n, length) -> features (n, d), where ``tower`` is None.
        tower: a text tower known well enough to skip redundant work.
        max_rows: rows of the text tower's linear layers (tokens or prefixes of prompts) that are computed at a time. If
            the text tower trains, several chunks are recomputed in the backward pass: the activations of only one
            are in memory at a time.
    """

    tokens: Tensor

    def __init__(
        self, tokens: Tensor, sizes: Sequence[int], encode: Encode, tower: CausalTextTower | None, max_rows: int
    ) -> None:
        super().__init__()
        self.register_buffer("tokens", tokens, persistent=False)
        self._sizes, self._encode, self._tower, self._max_rows = list(sizes), encode, tower, max_rows
        self._trees = nn.ModuleList()
        # of each prompt among the concatenated features of the trees; a buffer, as a copy to a GPU would wait for it
        self.register_buffer("_places", None, persistent=False)
        self._places: Tensor | None
        self._ends: Tensor | None
        self.register_buffer("_ends", None if tower is None else tower.ends(tokens), persistent=False)
        self._length = tokens.shape[1] if self._ends is None else int(self._ends.max()) + 1  # that is computed
        self._share: list[ClassPrompts] = []  # at most one; not a child module: processes would differ in it

    def features(self) -> Tensor:
        """Unit features (C, d) under the current weights."""
        chunks = list(self._chunks())
        recompute = len(chunks) > 1 and torch.is_grad_enabled()
        encoded = []
        for chunk in chunks:
            if not torch.is_grad_enabled():  # a training step is finished first
                raise_if_stopped()
            encoded.append(_recomputed(chunk, self.tokens) if recompute else chunk())
        features = F.normalize(torch.cat(encoded), dim=-1)
        if self._places is not None:
            features = features[self._places]
        if len(set(self._sizes)) == 1:
            means = features.unflatten(0, (len(self._sizes), -1)).mean(dim=1)
        else:
            means = torch.stack([prompts.mean(dim=0) for prompts in features.split(self._sizes)])
        return F.normalize(means, dim=-1)

    def shared_features(self) -> Tensor:
        """The same where several processes train together, each encoding its share of the classes."""
        if num_processes() == 1 or len(self._sizes) < num_processes():
            return self.features()
        share, sizes = own_share(len(self._sizes))
        if not self._share:
            tokens = torch.cat(self.tokens.split(self._sizes)[share])
            prompts = ClassPrompts(tokens, self._sizes[share], self._encode, self._tower, self._max_rows)
            self._share.append(prompts)
        return gather_rows(self._share[0].features(), sizes)

    def equal(self, class_names: Sequence[str], features: Tensor) -> list[str]:
        """``'a' and 'b'`` for each group of classes whose ``features`` (C, d) are equal and whose tokens are not.

        Classes of the same tokens are told where those are made.
        """
        groups: defaultdict[bytes, list[int]] = defaultdict(list)
        for i, row in enumerate(features.double().mul(EQUAL).round().add(0.0).cpu().numpy()):
            groups[row.tobytes()].append(i)
        tokens = self.tokens.split(self._sizes)
        alike = [group for group in groups.values() if len(group) > 1]
        untold = [group for group in alike if len({tuple(sorted(map(tuple, tokens[i].tolist()))) for i in group}) > 1]
        return [" and ".join(repr(class_names[i]) for i in group) for group in untold]

    def _chunks(self) -> Iterator[Callable[[], Tensor]]:
        tower = self._tower
        if tower is not None and tower.can_share_prefixes():
            self._build_trees()
            yield from (_bound(tower.encode_tree, tree) for tree in self._trees)
            return
        count = max(1, self._max_rows // self._length)
        for i in range(0, len(self.tokens), count):
            rows = slice(i, i + count)
            if tower is None:
                yield _bound(self._encode, self.tokens[rows])
            else:
                assert self._ends is not None
                yield _bound(tower.encode_truncated, self.tokens[rows, : self._length], self._ends[rows])

    def _build_trees(self) -> None:
        if len(self._trees):
            return
        assert self._ends is not None
        pairs = zip(self.tokens.tolist(), self._ends.tolist(), strict=True)
        prompts = [tuple(tokens[: end + 1]) for tokens, end in pairs]
        chunks = chunk_prompts(prompts, self._max_rows)
        self._trees.extend(PromptTree([prompts[i] for i in chunk]) for chunk in chunks)
        self._trees.to(self.tokens.device)
        order = [i for chunk in chunks for i in chunk]
        self._places = torch.tensor(order, device=self.tokens.device).argsort()


def _recomputed(chunk: Callable[[], Tensor], on_device: Tensor) -> Tensor:
    """``chunk()``, whose backward pass computes it again, with the same random numbers.

    PyTorch keeps the state of a GPU's generator only where an argument lies on that GPU: without one, dropout would
    draw other masks in the backward pass than in the forward pass.
    """
    return checkpoint(lambda _: chunk(), on_device, use_reentrant=False)


def _bound(encode: Callable[..., Tensor], *arguments: object) -> Callable[[], Tensor]:
    return lambda: encode(*arguments)
