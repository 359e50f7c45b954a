"""The fit of each head on kept features: against a plain PyTorch loop of the same steps, and a grid of all of them.

python benchmarks/heads.py                     prints a table, then a JSON object in one line
python benchmarks/heads.py --quick             checks itself; its figures mean nothing

One fit: 1,600 features of 512 numbers in 100 classes. Grid: every shipped head at its own settings, 1, 2, 4, 8 and 16
shots, three seeds, read from a feature file, and scored on as many other features. Logistic regression is compared with
scikit-learn's. Times are medians over rounds; ratios are medians of those within rounds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from measure import interleaved, ratio
from omegaconf import OmegaConf
from record import add_options, publish, record
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from kravl.backbones.heads.head import Head, Problem, Support
from kravl.config.instantiate import build
from kravl.config.schema import CONFIGS
from kravl.data.loading.feature_cache import FeatureStore

SCALE, SHOTS, SEEDS = 100.0, (1, 2, 4, 8, 16), (1, 2, 3)
NODES = {
    path.stem: dict(node["head"])
    for path in sorted((CONFIGS / "method").glob("*.yaml"))
    if "head" in (node := OmegaConf.load(path))
}
Loop = Callable[[Support, dict[str, Any], int], None]


def clustered(classes: int, shots: int, width: int) -> Support:
    """Unit features that scatter around the centres of classes, and text beside those."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, width, generator=generator)
    labels = torch.arange(classes).repeat(shots)
    features = centres[labels] + 1.5 * torch.randn(len(labels), width, generator=generator)
    text = centres + torch.randn(classes, width, generator=generator)
    return Support(F.normalize(features, dim=-1)[:, None], labels, F.normalize(text, dim=-1), 1)


def fitted(name: str, support: Support, **changes: Any) -> Head:
    text = support.text
    problem = Problem(len(text), text.shape[1], len(support.labels), SCALE, text, torch.eye(text.shape[1]))
    head = build({**NODES[name], **changes}, Head)(problem)
    head.fit(support)
    return head


def unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def train(
    parameters: list[Tensor], loss: Callable[[Tensor, Tensor], Tensor], optimizer: torch.optim.Optimizer, steps: int,
    batch: int, support: Support,
) -> None:  # fmt: skip
    """The loop of public few-shot code, on features in memory."""
    features, labels = support.first_views(), support.labels
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    done = 0
    while done < steps:
        for rows in torch.randperm(len(labels)).split(batch):
            if done == steps:
                break
            value = loss(features[rows], labels[rows])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            scheduler.step()
            done += 1


def plain_tip_adapter_f(s: Support, node: dict[str, Any], steps: int) -> None:
    keys, values = nn.Parameter(s.first_views().clone()), F.one_hot(s.labels, len(s.text)).float()

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(SCALE * x @ s.text.T + torch.exp(-5.5 * (1 - x @ keys.T)) @ values, y)

    train([keys], loss, torch.optim.AdamW([keys], 1e-3, eps=1e-4), steps, node["batch_size"], s)


def plain_taskres(s: Support, node: dict[str, Any], steps: int) -> None:
    x0 = nn.Parameter(torch.zeros_like(s.text))

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(SCALE * x @ unit(s.text + 0.5 * x0).T, y)

    train([x0], loss, torch.optim.Adam([x0], 2e-3), steps, node["batch_size"], s)


def plain_clip_adapter(s: Support, node: dict[str, Any], steps: int) -> None:
    width = s.text.shape[1]
    layers = nn.Linear(width, width // 4, bias=False), nn.Linear(width // 4, width, bias=False)
    mlp = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU())

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(SCALE * unit(0.2 * mlp(x) + 0.8 * x) @ s.text.T, y)

    parameters = list(mlp.parameters())
    train(parameters, loss, torch.optim.SGD(parameters, 1e-2, momentum=0.9), steps, node["batch_size"], s)


def plain_zs_lp(s: Support, node: dict[str, Any], steps: int, penalty: float = 0.0) -> None:
    w = nn.Parameter(s.text.clone())

    def loss(x: Tensor, y: Tensor) -> Tensor:
        value = F.cross_entropy(SCALE * x @ unit(w).T, y)
        return value + penalty * (w - s.text).square().sum(1).mean() if penalty else value

    train([w], loss, torch.optim.SGD([w], 0.1, momentum=0.9), steps, node["batch_size"], s)


def plain_lp_plus_plus(s: Support, node: dict[str, Any], steps: int) -> None:
    w, b = nn.Parameter(torch.zeros_like(s.text)), nn.Parameter(torch.zeros(len(s.text)))
    blend = nn.Parameter(torch.ones(len(s.text)))

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(x @ w.T + b + blend * (x @ s.text.T), y)

    train([w, b, blend], loss, torch.optim.SGD([w, b, blend], 1.0, momentum=0.9), steps, len(s.labels), s)


def plain_cross_modal(s: Support, node: dict[str, Any], steps: int) -> None:
    w, half = nn.Parameter(s.text.clone()), node["batch_size"] // 2

    def loss(x: Tensor, y: Tensor) -> Tensor:
        texts = torch.randperm(len(s.text))[:half]
        return F.cross_entropy(SCALE * torch.cat([x, s.text[texts]]) @ w.T, torch.cat([y, texts]))

    train([w], loss, torch.optim.AdamW([w], 1e-3), steps, half, s)


def plain_rla(s: Support, node: dict[str, Any], steps: int) -> None:
    eye = torch.eye(s.text.shape[1])
    a = nn.Parameter(eye.clone())

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(SCALE * unit(x @ a.T) @ s.text.T, y) + (a - eye).square().sum() / 16

    train([a], loss, torch.optim.Adam([a], 1e-3, eps=1e-4), steps, len(s.labels), s)


def plain_logistic_regression(s: Support, node: dict[str, Any], steps: int) -> None:
    LogisticRegression(C=node["c"], max_iter=1000).fit(s.first_views().numpy(), s.labels.numpy())


# for each head that is trained by gradients the same steps, written as one would without a framework
LOOPS: dict[str, Loop] = {
    "tip_adapter_f": plain_tip_adapter_f,
    "taskres": plain_taskres,
    "clip_adapter": plain_clip_adapter,
    "zs_lp": plain_zs_lp,
    "clap": partial(plain_zs_lp, penalty=0.5),
    "lp_plus_plus": plain_lp_plus_plus,
    "cross_modal": plain_cross_modal,
    "rla": plain_rla,
    "prolip": plain_rla,  # a map of as many numbers
    "logistic_regression": plain_logistic_regression,
}


def compare(name: str, loop: Loop | None, support: Support, steps: int, rounds: int) -> dict[str, Any]:
    """A row: one fit of so many steps beside the plain loop; to its end, where the fit has no steps."""
    node, count = NODES[name], len(support.labels)
    each = -(-count // min(node.get("batch_size", count), count))
    changes = {"steps": steps} if "steps" in node else {"epochs": -(-steps // each)} if "epochs" in node else {}
    whole = loop is None or name == "logistic_regression"
    done = changes.get("steps") or changes.get("epochs", 0) * each
    runs: dict[str, Callable[[], object]] = {"head": lambda: fitted(name, support, **({} if whole else changes))}
    if loop is not None:
        runs["plain"] = lambda: loop(support, node, done)
    times = interleaved(runs, rounds, "cpu")
    own, plain = times["head"], times.get("plain")
    return {"what": "one fit", "head": name, "steps": None if whole else done, "ms": 1e3 * statistics.median(own),
            "plain ms": plain and 1e3 * statistics.median(plain), "x plain": plain and ratio(own, plain)}  # fmt: skip


def grid(name: str, whole: Support, store: FeatureStore, changes: dict[str, Any]) -> float:
    """Seconds of this process for the head at every number of shots and seed, from kept features, scored on all."""
    classes, begin = len(whole.text), time.process_time()
    shape = (len(whole.labels), whole.text.shape[1])
    features = store.get({"set": "clustered"}, shape, whole.first_views)
    by_class = torch.stack([(whole.labels == k).nonzero().flatten() for k in range(classes)])
    for shots in SHOTS:
        for seed in SEEDS:
            order = torch.randperm(by_class.shape[1], generator=torch.Generator().manual_seed(seed))
            rows = by_class[:, order[:shots]].flatten()
            part = Support(features[rows][:, None], whole.labels[rows], whole.text, seed)
            head = fitted(name, part, **{key: value for key, value in changes.items() if key in NODES[name]})
            with torch.no_grad():
                head(features, whole.text).argmax(dim=1)
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--steps", type=int, default=100, help="of a fit beside the plain loop; its rate counts")
    add_options(parser, rounds=5, quick="few classes, few steps, one round")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    changes: dict[str, Any] = {}
    if options.quick:
        options.classes, options.width, options.steps, options.rounds = 5, 16, 4, 1
        changes = {"steps": 4, "epochs": 2}
    support = clustered(options.classes, max(SHOTS), options.width)
    rows = [compare(name, LOOPS.get(name), support, options.steps, options.rounds) for name in NODES]
    with tempfile.TemporaryDirectory() as folder:
        store, total = FeatureStore(folder, 1.0), 0.0
        for name in NODES:
            spent = grid(name, support, store, changes)
            total += spent
            rows.append({"what": "grid of 15", "head": name, "steps": None, "ms": 1e3 * spent, "plain ms": None,
                         "x plain": None})  # fmt: skip
    rows.append({"what": "grid of 15", "head": "all", "steps": None, "ms": 1e3 * total, "plain ms": None,
                 "x plain": None})  # fmt: skip
    settings = {key: getattr(options, key) for key in ("classes", "width", "rounds")}
    publish(record("Heads on kept features", rows, settings=settings), options.json)


if __name__ == "__main__":
    main()
