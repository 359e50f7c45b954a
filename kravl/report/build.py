"""Builds a report from the command line's options: which runs, in which order, against which baseline."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from kravl.report.groups import Group, comparability_warnings, group_runs
from kravl.report.paper_table import beside_published, overviews
from kravl.report.published.compare import published_matches, with_published
from kravl.report.robustness import curve_notes
from kravl.report.runs import FinishedRun, leave_out_shortened, read_runs, select, without_start
from kravl.report.significance import compare
from kravl.report.wandb_runs import PREFIX, read_wandb
from kravl.report.writers import Report
from kravl.runtime.errors import InputError, printable
from kravl.runtime.files import no_folder
from kravl.study.grid import plan_runs
from kravl.study.schema import Study, read_study
from kravl.tracking.run_folder import ZERO_SHOT
from kravl.tracking.settings import place_of

BASELINE = "lora"  # unless a study or the command line names another


def read_report(options: argparse.Namespace) -> tuple[Report, list[FinishedRun]]:
    source: str = options.runs
    if not source.strip():
        raise InputError("no folder is given: the name is empty; kravl report takes a folder that holds runs")
    if not (logged := source.startswith(PREFIX)) and not Path(source).is_dir():
        raise InputError(f"{no_folder(Path(source))}; kravl report takes a folder that holds runs, at any depth")
    runs, problems = read_wandb(source) if logged else read_runs(Path(source))
    if not options.shortened:
        runs, lines = leave_out_shortened(runs)
        problems = [*problems, *lines]
    study = read_study(options.study, options.set) if options.study else None
    planned = plan_runs(study, options.set) if study else []
    if study and runs:
        places = {run.place for run in planned}
        runs = [without_start(run) for run in runs if _place(run) in places]
        if missing := len(places - {_place(run) for run in runs}):
            problems.append(f"{missing} of the {len(places)} runs of {study.name} are not finished")
    if not runs:
        reason = "; ".join(problems) or "no metrics.json in it"
        raise InputError(f"no finished run below {source}: {reason}")
    runs = select(runs, options.where)
    groups = with_published(group_runs(runs, population=options.std == "population"))
    groups = _in_order(groups, study.methods) if study else groups
    named = options.baseline or (study.baseline if study else None)
    baseline, lines = _baseline(groups, named, required=options.baseline is not None)
    axes = (
        {"methods": list(study.methods), "datasets": sorted({run.base.data.name for run in planned})} if study else {}
    )
    # a path, a name or a setting in a line may hold what steers a terminal, or half a character
    notes = [printable(line) for line in (*problems, *comparability_warnings(groups), *curve_notes(groups), *lines)]
    comparisons = compare(groups, baseline) if baseline else []
    matches = published_matches(groups)
    listed = beside_published(overviews(groups, axes), matches)
    return Report(_title(study), groups, notes, listed, baseline, comparisons, matches), runs


def _place(run: FinishedRun) -> Path | None:
    """The run's folder below the folder of all runs, by its record, wherever that was read from; None of a bad name."""
    try:
        return place_of(str(run.record.get("name")), run.record["seed"], run.record["config"])
    except InputError:
        return None


def _title(study: Study | None) -> str:
    return "Runs" if study is None else f"{study.name}: {study.question}" if study.question else study.name


def _in_order(groups: Sequence[Group], methods: Iterable[str]) -> list[Group]:
    """As the study names its methods; one that it does not name, by a record that was edited, comes last."""
    order = {name: place for place, name in enumerate([ZERO_SHOT, *methods])}
    return sorted(groups, key=lambda group: (group.setting, order.get(group.method, len(order)), group.method))


def _baseline(groups: Sequence[Group], named: str | None, required: bool) -> tuple[str | None, list[str]]:
    """The method to compare with, or None with a note on why nothing is compared; a ``required`` one is not checked."""
    methods = {group.method for group in groups}
    several = len(methods - {ZERO_SHOT}) > 1 or named == ZERO_SHOT
    if required or (named or BASELINE) in methods or not several:
        return (named or BASELINE if several or required else None), []
    return None, [f"no significance test: no run has the baseline {named or BASELINE!r}; pass --baseline METHOD"]
