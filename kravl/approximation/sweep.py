"""Run the trials of a study that its file lacks, one after the other, with a progress bar."""

import logging
from collections.abc import Mapping, Sequence
from itertools import groupby

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kravl.approximation.budget import MakeAdapter
from kravl.approximation.fit import DivergedError
from kravl.approximation.ledger import Ledger
from kravl.approximation.measure import Decomposed
from kravl.approximation.study import Goal, Trial, run
from kravl.approximation.target import draw

log = logging.getLogger(__name__)


def sweep(
    trials: Sequence[tuple[Trial, MakeAdapter]], goals: Mapping[str, Goal], ledger: Ledger, device: torch.device
) -> list[str]:
    """Append a record for each of ``trials`` that has none; a line for each that diverged.

    A target is drawn and decomposed once for all methods that are fitted to it.
    """
    missing = [each for each in trials if each[0].key not in ledger.records]
    if done := len(trials) - len(missing):
        log.info("%d of %d fits are in %s already", done, len(trials), ledger.path)
    columns = TextColumn("{task.description:<40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    failures = []
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(missing))
        for (name, seed), group in groupby(missing, key=lambda each: (each[0].target, each[0].seed)):
            members = list(group)
            target = Decomposed(draw(name, goals[name].target, members[0][0].shape, seed).to(device))
            for trial, make in members:
                progress.update(task, description=f"{name}, {trial.method}, seed {seed}")
                try:
                    ledger.append(run(trial, make, target))
                except DivergedError as error:
                    failures.append(f"{name}, {trial.method}, seed {seed}: {error}")
                progress.advance(task)
    return failures
