"""Few-shot classification of package descriptions by MiniLM-L6, adapted by PEFT's methods and by KRAdapter.

    pip install -e '.[language]'
    python experiments/language/experiment.py           # resumable: what is in results.jsonl is not done again
    python experiments/language/experiment.py --quick   # a check of itself: one step, a few texts, nothing kept

For each method one learning rate of RATES, the same for all, is chosen by the accuracy on held-out texts of a draw of
its own (seed 0); then five draws (seeds 1 to 5) of 16 texts for each of ten sections are trained on and evaluated.
"""

import argparse
import csv
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from corpus import FILE, TRAINED, UNSEEN
from encoder import TextClassifier
from methods import METHODS
from report import write_report
from torch import Tensor
from torch.nn import functional as F

HERE = Path(__file__).parent
RATES = (1e-4, 5e-4, 2e-3, 1e-2)
SEEDS = (1, 2, 3, 4, 5)
SHOTS = TUNING = 16
TEST = 30  # per section; the same in every draw
EPOCHS, BATCH = 3, 16
NOISE = 0.08  # share of the characters that typing noise changes
WORDS = {
    "net": "networking", "sound": "sound and music", "mail": "email", "math": "mathematics", "web": "the web",
    "editors": "text editing", "video": "video", "httpd": "web servers", "hamradio": "amateur radio",
    "text": "text processing", "admin": "system administration", "java": "Java", "python": "Python",
    "database": "databases", "localization": "translation into other languages",
}  # fmt: skip


def names(sections: Sequence[str]) -> list[str]:
    return [WORDS.get(section, section) for section in sections]


def noisy(text: str, generator: random.Random) -> str:
    """The text with letters left out, doubled, exchanged with the next or replaced, each as often."""
    letters = list(text)
    for i in range(len(letters) - 1):
        if letters[i].isalpha() and generator.random() < NOISE:
            kind = generator.randrange(4)
            if kind == 2:
                letters[i], letters[i + 1] = letters[i + 1], letters[i]
            else:
                letters[i] = ("", 2 * letters[i], "", generator.choice("abcdefghijklmnopqrstuvwxyz"))[kind]
    return "".join(letters)


class Draw:
    """The texts of one seed: test texts are the same for all, the others are drawn from the rest."""

    def __init__(self, seed: int, test: int = TEST) -> None:
        rows = list(csv.DictReader(FILE.open(encoding="utf-8")))
        self.train, self.tuning, self.test = [], [], []  # pairs (row, class)
        for label, section in enumerate(TRAINED):
            of_section = [row for row in rows if row["section"] == section]
            random.Random(0).shuffle(of_section)
            rest = of_section[TEST:]
            random.Random(seed).shuffle(rest)
            self.test += [(row, label) for row in of_section[:test]]
            self.train += [(row, label) for row in rest[:SHOTS]]
            self.tuning += [(row, label) for row in rest[SHOTS : SHOTS + TUNING]]
        self.unseen = [(row, UNSEEN.index(row["section"])) for row in rows if row["section"] in UNSEEN]
        if test < TEST:
            self.unseen, self.tuning = self.unseen[::10], self.tuning[::10]

    def sets(self) -> Iterator[tuple[str, list[str], list[int], list[str]]]:
        """Name, texts, labels and class names of each test set."""
        generator = random.Random(1)
        labels, trained = [label for _, label in self.test], names(TRAINED)
        yield "descriptions", [row["description"] for row, _ in self.test], labels, trained
        yield "synopses", [row["synopsis"] for row, _ in self.test], labels, trained
        yield "typing noise", [noisy(row["description"], generator) for row, _ in self.test], labels, trained
        unseen = [row["description"] for row, _ in self.unseen]
        yield "unseen sections", unseen, [label for _, label in self.unseen], names(UNSEEN)


def train(model: TextClassifier, draw: Draw, rate: float, seed: int, steps: int | None) -> float:
    """AdamW, cosine to zero after a tenth of warm-up; mean seconds of a step."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        return 0.0
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    total = steps or EPOCHS * len(draw.train) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=total + 1, pct_start=0.1)
    generator, begin, order = random.Random(seed), time.process_time(), list[int]()
    model.encoder.eval()  # no dropout: the base model's would differ from the adapters'
    for _ in range(total):
        if len(order) < BATCH:
            order = list(range(len(draw.train)))
            generator.shuffle(order)
        rows, order = order[:BATCH], order[BATCH:]
        logits = model([draw.train[i][0]["description"] for i in rows], names(TRAINED))
        loss = F.cross_entropy(logits, torch.tensor([draw.train[i][1] for i in rows]))
        if not loss.isfinite():
            return float("nan")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    return (time.process_time() - begin) / total


def run(method: str, rate: float, seed: int, below: dict[str, Tensor], quick: bool = False) -> dict[str, Any]:
    """One training; on the draw of seed 0 the held-out texts are scored, on the others the test sets."""
    torch.manual_seed(seed)
    model, draw = TextClassifier(method), Draw(seed, 2 if quick else TEST)
    model.below = below
    for sections in (TRAINED, UNSEEN):
        model.name_classes(names(sections))
    record = {"method": method, "rate": rate, "seed": seed, "trainable": model.adapt()}
    record["step_s"] = train(model, draw, rate, seed, 1 if quick else None)
    sets = list(draw.sets())
    if seed == 0:
        sets = [
            ("held out", [row["description"] for row, _ in draw.tuning], [y for _, y in draw.tuning], names(TRAINED))
        ]
    for name, texts, labels, classes in sets:
        hits = (model.predict(texts, classes) == torch.tensor(labels)).int().tolist()
        record[name] = "".join(map(str, hits))
    return record


def chosen_rate(records: Sequence[dict[str, Any]], method: str) -> float:
    """The rate with the most hits on the held-out texts; the smaller of two with as many."""
    tried = [r for r in records if r["method"] == method and r["seed"] == 0]
    return max(tried, key=lambda r: (r["held out"].count("1"), -r["rate"]))["rate"]


def plan(records: list[dict[str, Any]]) -> Iterator[tuple[str, float, int]]:
    """What is not done yet; rates come before the seeds that need them."""
    done = {(r["method"], r["rate"], r["seed"]) for r in records}
    for method in METHODS:
        rates = RATES if method != "zero-shot" else (0.0,)
        for rate in rates:
            if method != "zero-shot" and (method, rate, 0) not in done:
                yield method, rate, 0
        rate = chosen_rate(records, method) if method != "zero-shot" else 0.0
        for seed in SEEDS if method != "zero-shot" else SEEDS[:1]:
            if (method, rate, seed) not in done:
                yield method, rate, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one step of each method on a few texts")
    parser.add_argument("--results", type=Path, default=HERE / "results.jsonl")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        print(json.dumps([run(method, 1e-3, 1, {}, quick=True) for method in METHODS]))
        return
    records = (
        [json.loads(line) for line in options.results.read_text().splitlines()] if options.results.exists() else []
    )
    below: dict[str, Tensor] = {}  # of all runs: they have the frozen layers in common
    for method, rate, seed in plan(records):
        begin = time.perf_counter()
        records.append(run(method, rate, seed, below))
        with options.results.open("a") as file:
            file.write(json.dumps(records[-1]) + "\n")
        print(f"{method} lr {rate:g} seed {seed}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    write_report(records, HERE)


if __name__ == "__main__":
    main()
