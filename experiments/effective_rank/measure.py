"""One line for each finished run of the study, and what is left of its update at another rank or norm, untrained.

    python experiments/effective_rank/measure.py RUNS [--interventions [--shots 16] [--seeds 1 2 3] [--datasets digits]]

Appends to runs.jsonl and interventions.jsonl beside this file; what they have already is passed over, so that the
study may go on for days and on several machines. Interventions need the KRAdapter runs of the same set and shots.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import fmean

import torch
from rich.progress import track
from torch import Tensor

from kravl.adapters.rank import ranks_and_norms
from kravl.evaluation.metrics import Results, score, summary
from kravl.evaluation.predict import Batches, predict
from kravl.report.runs import FinishedRun, read_runs
from kravl.run.build import Run
from kravl.run.finished.restore import restore
from kravl.run.finished.saved import saved_config
from kravl.runtime.errors import InputError
from kravl.tracking.run_folder import RunFolder
from kravl.training.spectrum_monitor import read_trace
from kravl.training.trainer import make_trainer

HERE = Path(__file__).parent
TOP = (1, 16)  # leading directions whose share of the update's energy is recorded
CUTS = (4, 16, 64)  # directions that are kept
SHARES = (0.25, 0.5, 0.75)  # of the WiSE-FT curve
Updates = dict[str, Tensor]


def key_of(run: FinishedRun) -> str:
    """What tells a run from the others of the studies, also on another machine."""
    record = run.record
    return f"{record['method']} {record['dataset']} {record['shots']} {record['seed']}"


def known(path: Path) -> dict[str, dict]:
    """The lines of ``path`` by key."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return {row["key"]: row for row in map(json.loads, lines)}


def append(path: Path, row: Mapping[str, object]) -> None:
    """Add a line, whole or not at all, as far as one write of a file can be."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def accuracies(results: Results) -> dict[str, float | None]:
    """In domain and out of it, None without other sets: accuracy and expected calibration error, fractions."""
    others = [name for name in results if name != "test"]
    return {
        "test": results["test"]["accuracy"],
        "ood": summary(results)["ood_mean"],
        "test_ece": results["test"]["ece"],
        "ood_ece": fmean(results[name]["ece"] for name in others) if others else None,
    }


def line(run: FinishedRun) -> dict[str, object]:
    """A finished run's accuracies, and the mean over matrices of the ranks, norms and leading shares of its update."""
    record = run.record
    values = read_trace(run.folder / "spectra.safetensors").singular_values
    sites = [ranks_and_norms(each) for each in values.values()]
    spectrum = {name: fmean(site[name] for site in sites) for name in sites[0]}
    shares = {f"top_{k}": fmean(_share(each, k) for each in values.values()) for k in TOP}
    metrics = record["metrics"]
    sets = {name: {m: metrics[f"{name}/{m}"] for m in ("accuracy", "ece")} for name in record["sets_sha256"]}
    name_of = ("backbone", "method", "dataset", "shots", "seed", "adapter", "hyperparameters")
    named = {name: record[name] for name in name_of}
    made = {name: record[name] for name in ("trainable_parameters", "precision")} | {"commit": record["git_commit"]}
    return {"key": key_of(run), **named, **made, **accuracies(sets), **spectrum, **shares}


def _share(values: Tensor, k: int) -> float:
    power = values.double().square().sort(descending=True).values
    return (power[:k].sum() / power.sum()).item()


class Interventions:
    """Evaluates changed updates of finished runs without training, each set's images decoded once for all runs."""

    def __init__(self, reference: Mapping[tuple[str, int], Mapping[str, float]]) -> None:
        self._reference = reference  # (set, shots) -> site -> norm
        self._images: dict[str, dict[str, Batches]] = {}

    def row(self, finished: FinishedRun) -> dict[str, object]:
        """Accuracies of the update as it is, on the WiSE-FT curve, cut, without its leading directions, flat, and at
        KRAdapter's norm, matrix by matrix."""
        folder = RunFolder(finished.folder)
        cfg = saved_config(folder, {})
        run = restore(cfg, folder)
        trainer = make_trainer({**cfg.trainer, "enable_progress_bar": False}, {}, finished.folder, False)
        sets = self._decoded(run)
        classes = run.data.evaluation_classes()

        def scored(write: Callable[[], None]) -> dict[str, float | None]:
            write()
            try:
                predictions = predict(trainer, run.classifier, sets, classes)
            finally:
                run.adapters.unmerge()
            return accuracies({name: score(rows) for name, rows in predictions.items()})

        norms = self._reference[finished.record["dataset"], finished.record["shots"]]
        results = {"itself": scored(run.adapters.merge)}
        results |= {f"wise_{share}": scored(lambda share=share: run.adapters.merge(share)) for share in SHARES}
        for name, updates in changed(dict(run.adapters.deltas()), norms):
            results[name] = scored(lambda updates=updates: run.adapters.merge_updates(updates))
        return {"key": key_of(finished), "commit": finished.record["git_commit"], "results": results}

    def _decoded(self, run: Run) -> Mapping[str, Batches]:
        name = run.source.name
        if name not in self._images:
            self._images[name] = {}
            for each, loader in run.data.evaluation_loaders().items():
                batches = self._images[name][each] = Batches()
                for batch in loader:
                    batches.add(*batch)
        return self._images[name]


def changed(updates: Updates, norms: Mapping[str, float]) -> Iterator[tuple[str, Updates]]:
    """The name of each intervention, and the update of each matrix (out, in) under it.

    ``cut_k`` keeps the k leading singular directions as they are, ``without_16`` all but 16, ``flat`` gives all
    directions one singular value at the norm that the update has, and ``norm`` scales it to ``norms``, where there is
    one: full fine-tuning changes further matrices.
    """
    parts = {name: torch.linalg.svd(update.double(), full_matrices=False) for name, update in updates.items()}

    def rebuilt(change: Callable[[Tensor], Tensor]) -> Updates:
        return {name: (u * change(s)) @ v for name, (u, s, v) in parts.items()}

    for k in CUTS:
        yield f"cut_{k}", rebuilt(lambda s, k=k: torch.where(torch.arange(len(s)) < k, s, 0))
    yield f"without_{TOP[1]}", rebuilt(lambda s: torch.where(torch.arange(len(s)) < TOP[1], 0, s))
    yield "flat", rebuilt(flat)
    scales = {name: norms[name] / update.double().norm() for name, update in updates.items() if name in norms}
    yield "norm", {name: update.double() * scales.get(name, 1.0) for name, update in updates.items()}


def flat(values: Tensor) -> Tensor:
    """One value for all that are not zero up to rounding, at the same sum of squares."""
    live = values > 1e-6 * values.max()
    return torch.where(live, values.norm() / live.sum().sqrt(), 0)


def reference_norms(runs: list[FinishedRun]) -> dict[tuple[str, int], dict[str, float]]:
    """The mean norm of KRAdapter's updates, by set and shots, for each matrix."""
    found: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run.record["method"] == "kra":
            trace = read_trace(run.folder / "spectra.safetensors")
            for site, values in trace.singular_values.items():
                found[run.record["dataset"], run.record["shots"]][site].append(values.double().norm().item())
    return {key: {site: fmean(norms) for site, norms in sites.items()} for key, sites in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--interventions", action="store_true", help="also evaluate each update cut, flat and rescaled")
    parser.add_argument("--shots", type=int, nargs="+", help="of the runs that --interventions takes; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", help="likewise")
    parser.add_argument("--datasets", nargs="+", help="likewise")
    arguments = parser.parse_args()
    runs, problems = read_runs(arguments.runs)
    if problems:
        raise InputError(problems[0])
    rows = HERE / "runs.jsonl"
    done = known(rows)
    for run in runs:
        if key_of(run) not in done:
            append(rows, line(run))
    if arguments.interventions:
        file, interventions = HERE / "interventions.jsonl", Interventions(reference_norms(runs))
        done = known(file)
        wanted = {"shots": arguments.shots, "seed": arguments.seeds, "dataset": arguments.datasets}
        left = [run for run in runs if key_of(run) not in done]
        left = [run for run in left if all(v is None or run.record[name] in v for name, v in wanted.items())]
        for run in track(left, "interventions"):
            append(file, interventions.row(run))


if __name__ == "__main__":
    main()
