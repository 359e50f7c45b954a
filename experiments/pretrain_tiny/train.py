"""Pretrain kravl-tiny: a CLIP on pictograms and their names.

    python experiments/pretrain_tiny/train.py CORPUS_FOLDER OUT_FOLDER [--steps 3000] [--seed 1]

Half of the patches are left out (FLIP, Li et al., CVPR 2023, https://arxiv.org/abs/2212.00794) until the last eighth
of the steps. Writes model.pt and log.csv.
"""

import argparse
import csv
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from augment import augment
from captions import Concepts
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from towers import encode_image, encode_text

from kravl.backbones.tiny import CONFIG, MERGES

MEAN, STD = (torch.tensor(v).view(1, 3, 1, 1) for v in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
LR, WEIGHT_DECAY, WARMUP, CONCEPTS = 1.5e-3, 0.1, 0.03, 192
TEACHING = 2.0  # weight of the agreement with the teacher
STRENGTH = (0.05, 0.7)  # of augmentation, at the first and at the last step
WHOLE_FROM = 7 / 8
PATCHES, KEPT = 64, 32
EVERY = 50  # steps between two lines of the log


class Corpus:
    """Pictures with their captions and the teacher's view of them, in random batches."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.pictures = torch.from_numpy(np.load(folder / "pictures.npy"))
        self.concepts = Concepts(folder / "pictures.json")
        self.mono = torch.tensor([r["mono"] for r in self.concepts.records])
        known = np.load(folder / "teacher.npz")
        self.targets = torch.zeros(len(self.pictures), known["targets"].shape[1])  # zero where the teacher is silent
        self.targets[torch.from_numpy(known["index"])] = F.normalize(torch.from_numpy(known["targets"]), dim=1)
        self.tokenizer = SimpleTokenizer(
            str(MERGES), context_length=json.loads(CONFIG.read_text())["text_cfg"]["context_length"]
        )
        self.seed = seed
        self.random = torch.Generator().manual_seed(seed)

    def batches(self, steps: int) -> Iterator[tuple[float, Tensor, Tensor | None, Tensor, Tensor, Tensor]]:
        """Share of the steps done, images, patches kept of each, tokens, which caption is true, teacher's view."""
        for step, (index, texts, true) in zip(range(steps), self.concepts.batches(CONCEPTS, self.seed), strict=False):
            share = step / steps
            strength = STRENGTH[0] + (STRENGTH[1] - STRENGTH[0]) * share
            images = (augment(self.pictures[index], self.mono[index], self.random, strength) - MEAN) / STD
            tokens = self.tokenizer(texts)
            tokens = tokens[:, : int((tokens != 0).sum(1).max())]
            kept = None
            if share < WHOLE_FROM:
                kept = torch.rand(len(images), PATCHES, generator=self.random).argsort(1)[:, :KEPT]
            yield share, images, kept, tokens, true, self.targets[index]


class Student(nn.Module):
    """The CLIP that is kept, and the head that is compared with the teacher."""

    def __init__(self, taught: int) -> None:
        super().__init__()
        config = json.loads(CONFIG.read_text())
        self.clip = CLIP(**config, output_dict=False)
        self.pupil = nn.Linear(config["vision_cfg"]["width"], taught)
        self._image = torch.compile(encode_image, dynamic=False)

    def losses(
        self, images: Tensor, kept: Tensor | None, tokens: Tensor, true: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Contrastive loss, and mean cosine to the teacher's view of the pictures that it has seen."""
        with torch.autocast("cpu", torch.bfloat16):
            features, text = self._image(self.clip.visual, images, kept), encode_text(self.clip, tokens)
            image, guess = features @ self.clip.visual.proj, self.pupil(features)
        agreement = (F.normalize(guess.float(), dim=1) * seen).sum() / seen.norm(dim=1).sum()
        return contrastive(image.float(), text.float(), true.float(), self.clip.logit_scale.exp()), agreement

    def groups(self) -> list[dict]:
        """Biases and norms are not decayed."""
        matrices = [p for p in self.parameters() if p.ndim > 1]
        rest = [p for p in self.parameters() if p.ndim <= 1]
        return [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": rest, "weight_decay": 0.0}]


def contrastive(image: Tensor, text: Tensor, true: Tensor, scale: Tensor) -> Tensor:
    """CLIP's loss where several captions may be true of a picture, and several pictures of a caption."""
    logits = scale * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    of_image = -(true / true.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    of_text = -(true / true.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (of_image + of_text) / 2


def update(student: Student, optimiser: torch.optim.Optimizer, share: float, loss: Tensor) -> None:
    for group in optimiser.param_groups:
        group["lr"] = LR * min(share / WARMUP, 0.5 + 0.5 * math.cos(math.pi * share))
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(student.parameters(), 1.0)
    optimiser.step()
    with torch.no_grad():
        student.clip.logit_scale.clamp_(max=math.log(100))


def main(corpus: Corpus, out: Path, steps: int) -> None:
    student = Student(corpus.targets.shape[1])
    optimiser = torch.optim.AdamW(student.groups(), lr=LR, betas=(0.9, 0.98), fused=True)
    begin, pictures, recent = time.perf_counter(), 0, []
    with (out / "log.csv").open("w", newline="", buffering=1) as file:
        log = csv.writer(file)
        log.writerow(["step", "pictures", "seconds", "loss", "agreement", "scale"])
        for step, (share, images, *batch) in enumerate(corpus.batches(steps)):
            loss, agreement = student.losses(images, *batch)
            update(student, optimiser, share, loss + TEACHING * (1 - agreement))
            pictures += len(images)
            recent.append((loss.item(), agreement.item()))
            if step % EVERY == 0 or step == steps - 1:
                means = [round(sum(column) / len(recent), 4) for column in zip(*recent, strict=True)]
                scale = round(student.clip.logit_scale.exp().item(), 2)
                log.writerow([step, pictures, round(time.perf_counter() - begin), *means, scale])
                print(step, pictures, *means, scale, flush=True)
                torch.save(student.clip.state_dict(), out / "model.pt")
                recent = []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    main(Corpus(args.corpus, args.seed), args.out, args.steps)
