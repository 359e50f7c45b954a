"""The settings of every cell of a grid, held against what its runs would refuse, before the first of them starts."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from kravl.config.compose import as_written, typed
from kravl.config.schema import Config
from kravl.runtime.errors import InputError
from kravl.study.grid import Cell, StudyRun

# what `kravl.run.train.check` does not look at, and a grid has many of
UNREAD = ("data", "data_root", "name", "runs", "seed", "shots", "split_seed", "study", "label")


def check_cells(runs: Sequence[StudyRun]) -> None:
    """Check every distinct combination of settings once, whatever its data set and seed; no model is built.

    Raises:
        InputError: some are refused: each reason once, with the methods and the number of cells that it is of.
    """
    from kravl.run.train import check  # with torch

    distinct: dict[str, Config] = {}
    keys: dict[int, str] = {}  # a base is shared by the runs of a cell
    reasons: dict[tuple[str, int | None], str | None] = {}
    refused: defaultdict[str, dict[Cell, None]] = defaultdict(dict)
    for run in runs:
        if (key := keys.get(id(run.base))) is None:
            key = keys[id(run.base)] = _key(as_written(run.base))
            distinct[key] = distinct.get(key) or typed(run.base)
        if (key, run.shots) not in reasons:
            reasons[key, run.shots] = _reason(check, replace(distinct[key], shots=run.shots))
        if (reason := reasons[key, run.shots]) is not None:
            refused[reason][run.cell] = None
    if refused:
        lines = [f"{_named(list(cells))}: {reason}" for reason, cells in refused.items()]
        count = len(set().union(*refused.values()))
        raise InputError(f"{count} of the {len({run.cell for run in runs})} cells would be refused: {'; '.join(lines)}")


def _named(cells: Sequence[Cell]) -> str:
    """The methods of ``cells``, and how many cells there are of each."""
    counts = Counter(cell.method for cell in cells)
    return ", ".join(f"{method} ({count} cell{'s' if count > 1 else ''})" for method, count in counts.items())


def _reason(check: Callable[[Config], None], cfg: Config) -> str | None:
    try:
        check(cfg)
    except InputError as error:
        return str(error)
    return None


def _key(settings: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in settings.items() if key not in UNREAD}, sort_keys=True)
