"""Fits run one after another, each recorded as soon as it is done."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kravl.analysis.approximation.budget import MakeAdapter
from kravl.analysis.approximation.fit import Decomposed, FitDivergedError
from kravl.analysis.approximation.study import Goal, Trial, run_trial
from kravl.analysis.approximation.target import draw_matrix
from kravl.runtime.errors import InputError
from kravl.runtime.files import refuse_endless
from kravl.runtime.own_files import open_own

log = logging.getLogger(__name__)


class Ledger:
    """The file ``path`` and its records by ``key``.

    Raises:
        InputError: a line other than the last cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, dict[str, Any]] = {}
        refuse_endless(path)
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not a file of fits: {error.reason} at byte {error.start}") from error
        complete, _, torn = text.rpartition("\n")
        for number, line in enumerate(complete.splitlines(), start=1):
            try:
                record = json.loads(line)
                self.records[record["key"]] = record
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(f"{path}, line {number} is not a record of a fit; delete the line: {error}") from error
        if torn:  # a line that an interrupted process did not finish
            os.truncate(path, len(complete.encode()) + (1 if complete else 0))

    def append(self, record: dict[str, Any]) -> None:
        """Add one record and flush it to disk."""
        with os.fdopen(open_own(self.path, os.O_WRONLY | os.O_APPEND), "a") as file:
            file.write(json.dumps(record, sort_keys=True, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.records[record["key"]] = record


def sweep(
    trials: Sequence[tuple[Trial, MakeAdapter]], goals: Mapping[str, Goal], ledger: Ledger, device: torch.device
) -> list[str]:
    """Append a record for each of ``trials`` that has none; returns a line for each that diverged.

    A target is drawn and decomposed once for all methods fitted to it.
    """
    missing = [each for each in trials if each[0].key not in ledger.records]
    if done := len(trials) - len(missing):
        log.info("%d of %d fits are already in %s", done, len(trials), ledger.path)
    columns = TextColumn("{task.description:<40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    failures = []
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(missing))
        for (name, seed), group in groupby(missing, key=lambda each: (each[0].target, each[0].seed)):
            members = list(group)
            target = Decomposed(draw_matrix(name, goals[name].target, members[0][0].shape, seed).to(device))
            for trial, make in members:
                progress.update(task, description=f"{name}, {trial.method}, seed {seed}")
                try:
                    ledger.append(run_trial(trial, make, target))
                except FitDivergedError as error:
                    failures.append(f"{name}, {trial.method}, seed {seed}: {error}")
                progress.advance(task)
    return failures
