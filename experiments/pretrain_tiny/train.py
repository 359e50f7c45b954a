"""Pretrain kravl-tiny: a CLIP on pictograms and their names.

    python experiments/pretrain_tiny/train.py CORPUS_FOLDER OUT_FOLDER [--steps N] [--start MODEL.pt ...]

Half of the patches are left out (FLIP, Li et al., CVPR 2023, https://arxiv.org/abs/2212.00794) until the last eighth
of the steps. Runs on a GPU where there is one. Writes model.pt and log.csv.
"""

import argparse
import csv
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from batches import Batch, Corpus, ahead
from open_clip.model import CLIP
from torch import Tensor, nn
from torch.nn import functional as F
from towers import encode_image, encode_text

from kravl.backbones.tiny import CONFIG

EVERY = 50  # steps between two lines of the log


@dataclass(frozen=True)
class Recipe:
    """How it is trained.

    Attributes:
        concepts: of a batch; each is drawn twice.
        teaching: weight of the agreement with the teacher.
        alike: weight of the loss between two drawings of one concept by different designers.
        strength: of augmentation, at the first and at the last step.
        whole_from: share of the steps after which no patch is left out.
    """

    steps: int = 3000
    concepts: int = 192
    lr: float = 1.5e-3
    weight_decay: float = 0.1
    warmup: float = 0.03
    teaching: float = 2.0
    alike: float = 0.0
    strength: tuple[float, ...] = (0.05, 0.7)
    whole_from: float = 7 / 8

    def plan(self) -> Iterator[tuple[float, bool]]:
        """Strength of augmentation and whether all patches are kept, for every step."""
        first, last = self.strength
        for share in (step / self.steps for step in range(self.steps)):
            yield first + (last - first) * share, share >= self.whole_from

    def lr_at(self, share: float) -> float:
        return self.lr * min(share / self.warmup, 0.5 + 0.5 * math.cos(math.pi * share))


class Student(nn.Module):
    """The CLIP that is kept, and the head that is compared with the teacher."""

    def __init__(self, taught: int) -> None:
        super().__init__()
        config = json.loads(CONFIG.read_text())
        self.clip = CLIP(**config, output_dict=False)
        self.pupil = nn.Linear(config["vision_cfg"]["width"], taught)
        self._image = torch.compile(encode_image, dynamic=False)

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """CLIP's loss, that between two drawings, and mean cosine to the teacher's view of what it has seen."""
        with torch.autocast(batch.images.device.type, torch.bfloat16):
            features, text = (
                self._image(self.clip.visual, batch.images, batch.kept),
                encode_text(self.clip, batch.tokens),
            )
            image, guess = features @ self.clip.visual.proj, self.pupil(features)
        agreement = (F.normalize(guess.float(), dim=1) * batch.seen).sum() / batch.seen.norm(dim=1).sum()
        scale, true = self.clip.logit_scale.exp(), batch.true.float()
        one, other = image.float().chunk(2)
        alike = contrastive(one, other, torch.eye(len(one), device=one.device), scale)
        return contrastive(image.float(), text.float(), true, scale), alike, agreement

    def groups(self, weight_decay: float) -> list[dict]:
        """Biases and norms are not decayed."""
        matrices = [p for p in self.parameters() if p.ndim > 1]
        rest = [p for p in self.parameters() if p.ndim <= 1]
        return [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def contrastive(image: Tensor, text: Tensor, true: Tensor, scale: Tensor) -> Tensor:
    """CLIP's loss where several captions may be true of a picture, and several pictures of a caption."""
    logits = scale * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    of_image = -(true / true.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    of_text = -(true / true.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (of_image + of_text) / 2


def update(student: Student, optimiser: torch.optim.Optimizer, lr: float, loss: Tensor) -> None:
    for group in optimiser.param_groups:
        group["lr"] = lr
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(student.parameters(), 1.0)
    optimiser.step()
    with torch.no_grad():
        student.clip.logit_scale.clamp_(max=math.log(100))


def main(corpus: Corpus, out: Path, recipe: Recipe, start: Path | None) -> None:
    device = corpus.pictures.device
    student = Student(corpus.targets.shape[1]).to(device)
    if start:
        student.clip.load_state_dict(torch.load(start, map_location=device, weights_only=True))
    optimiser = torch.optim.AdamW(student.groups(recipe.weight_decay), betas=(0.9, 0.98), fused=True)
    begin, recent = time.perf_counter(), []
    with (out / "log.csv").open("w", newline="", buffering=1) as file:
        log = csv.writer(file)
        log.writerow(["step", "pictures", "seconds", "loss", "alike", "agreement", "scale"])
        for step, batch in enumerate(ahead(corpus.batches(recipe.concepts, recipe.plan()))):
            loss, alike, agreement = student.losses(batch)
            total = loss + recipe.alike * alike + recipe.teaching * (1 - agreement)
            update(student, optimiser, recipe.lr_at(step / recipe.steps), total)
            recent.append(torch.stack([loss, alike, agreement]).detach())
            if step % EVERY == 0 or step == recipe.steps - 1:
                means = [round(mean, 4) for mean in torch.stack(recent).mean(0).tolist()]
                scale = round(student.clip.logit_scale.exp().item(), 2)
                log.writerow([step, (step + 1) * len(batch.images), round(time.perf_counter() - begin), *means, scale])
                print(step, (step + 1) * len(batch.images), *means, scale, flush=True)
                torch.save(student.clip.state_dict(), out / "model.pt")
                recent = []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=Path, help="a model.pt to go on from, with a new schedule")
    parser.add_argument("--seed", type=int, default=1)
    for field in fields(Recipe):
        many = "+" if isinstance(field.default, tuple) else None
        kind = float if many else type(field.default)
        parser.add_argument(f"--{field.name}", type=kind, nargs=many, default=field.default)
    args = vars(parser.parse_args())
    corpus, out, start, seed = (args.pop(name) for name in ("corpus", "out", "start", "seed"))
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    main(Corpus(corpus, device, seed), out, Recipe(**args), start)
