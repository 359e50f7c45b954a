"""``kravl approximate``: which updates can an adapter express, and which does AdamW find?"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kravl.cli.configured import run_configured
from kravl.cli.main import EXIT_INTERRUPTED, framed, say
from kravl.config.schema import CONFIGS
from kravl.runtime.errors import InputError, unknown
from kravl.runtime.yaml_files import read_yaml

RESULTS = "results.jsonl"


@framed
def main(arguments: Sequence[str]) -> int:
    """Fit and show; see `approximate`."""
    return run_configured("approximate", approximate, arguments)


def approximate(cfg: Any) -> None:
    """Fit what is not fitted yet, then show all that the study holds.

    Raises:
        InputError: an unknown target, method or setting, before the first fit.
    """

    from kravl.analysis.approximation.report import report_fits
    from kravl.analysis.approximation.study import plan_fits
    from kravl.analysis.approximation.sweep import Ledger, sweep

    grid, device = make_grid(cfg), make_device(cfg.device)
    trials, notes = plan_fits(grid, fit_settings(cfg.fit))
    out = Path(cfg.out)
    lock = _open(out)
    try:
        if cfg.overwrite:
            (out / RESULTS).unlink(missing_ok=True)
        ledger = Ledger(out / RESULTS)
        failures = sweep(trials, grid.goals, ledger, device)
    except KeyboardInterrupt:
        line = f"interrupted; the finished fits are in {out / RESULTS}: run the same command again to resume"
        sys.exit(say(line, EXIT_INTERRUPTED))
    finally:
        lock.release()
    found = [ledger.records[trial.key] for trial, _ in trials if trial.key in ledger.records]
    report_fits(found, [*notes, *failures], out)
    if failures:
        sys.exit(f"error: {len(failures)} of {len(trials)} fits diverged: {failures[0]}")


def _open(out: Path) -> Any:
    from kravl.runtime.lock import Lock

    try:
        return Lock(out)
    except OSError as error:
        raise InputError(f"the folder {out} cannot be written: {error.strerror}; pass out=/a/folder") from error


def make_device(name: str) -> Any:
    """The torch device. Raises InputError where there is none of this name."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"unknown device {name!r}; give cpu, cuda or cuda:1") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device={name}, but there is no CUDA device here; give device=cpu")
    return device


def fit_settings(fit: Any) -> Any:
    """`FitSettings` of the config. Raises InputError for values that nothing can be fitted with."""
    from kravl.analysis.approximation.fit import FitSettings

    if fit.schedule not in ("cosine", "constant"):
        raise unknown("fit.schedule", fit.schedule, ("cosine", "constant"))
    if fit.steps < 1 or fit.lr <= 0:
        raise InputError(f"fit.steps={fit.steps}, fit.lr={fit.lr}: both must be positive")
    return FitSettings(**fit)


def make_grid(cfg: Any) -> Any:
    """The `Grid` that the config names. Raises InputError where it names nothing that exists, or nothing at all."""
    from kravl.adapters.base import Adapter
    from kravl.analysis.approximation.study import Goal, Grid, Method
    from kravl.analysis.approximation.target import Target
    from kravl.config.instantiate import build

    if len(cfg.shape) != 2 or min(cfg.shape) < 1:
        raise InputError(f"shape={list(cfg.shape)} is no matrix; give shape=[out,in]")
    if wrong := [budget for budget in cfg.budgets if budget <= 0]:
        raise InputError(f"budgets hold {wrong[0]:g}; they are multiples of KRAdapter's number of parameters, above 0")
    if not cfg.targets or not cfg.seeds:
        raise InputError("nothing to fit: give targets=[...] and seeds=[...]")
    goals, methods = {}, {}
    for name in cfg.targets:
        node = _node("target", name, cfg.variants)
        goals[name] = Goal(build(node, Target, cfg.plugins)(), node)
    for name in cfg.methods or sorted(path.stem for path in (CONFIGS / "adapter").glob("*.yaml")):
        node = _node("adapter", name, cfg.variants)
        scale = (cfg.variants.get(name) or {}).get("scale")
        methods[name] = Method(build(node, Adapter, cfg.plugins), scale)
    return Grid(goals, methods, tuple(cfg.shape), list(cfg.budgets), list(cfg.seeds))


def _node(group: str, name: str, variants: Any) -> dict[str, Any]:
    """The settings of a file of ``configs/<group>``, or of one with the changes of a variant.

    An adapter's ``scale`` is left to the fit: every update has one, though not every class takes it as such.
    """
    files = {path.stem: path for path in (CONFIGS / group).glob("*.yaml")}
    changes = dict(variants.get(name) or {})
    base = changes.pop("of", None if changes else name)
    if base is None:
        raise InputError(f"the variant {name} does not say of what; give variants.{name}.of=NAME")
    if base not in files:
        raise unknown(group, base, [*files, *variants] if base == name else files)
    if group == "adapter":
        changes.pop("scale", None)
    return {**read_yaml(files[base]), **changes}
