"""The settings of every cell of a grid, held against what its runs would refuse, before the first of them starts."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kravl.config.compose import as_written, typed
from kravl.config.schema import Config
from kravl.runtime.errors import InputError, some_of
from kravl.study.grid import Cell, StudyRun
from kravl.tracking.run_folder import RunFolder

# what `kravl.run.train.check` does not look at, and a grid has many of
UNREAD = ("data", "data_root", "name", "runs", "seed", "shots", "split_seed", "study", "label")
# what decides which weights are adapted, and which train besides
OF_STRUCTURE = ("adapter", "backbone", "context_init", "context_per_class", "context_tokens", "head", "linear_head",
                "plugins", "sites", "stages", "targets", "train_statistics", "unfreeze")  # fmt: skip
OF_DATA = ("data", "evaluation", "plugins")
LISTED = 3  # methods, or cells of one, in a line


def check_cells(runs: Sequence[StudyRun]) -> None:
    """Check every distinct combination of settings once, whatever its seed; no weights are loaded, no image is listed.

    Raises:
        InputError: some are refused: each reason once, with the cells that it is of.
    """
    refused: defaultdict[str, dict[Cell, None]] = defaultdict(dict)
    checks = _Checks()
    reasons: dict[tuple[int, int | None], str | None] = {}  # a base is shared by the seeds of a cell
    for run in runs:
        place = id(run.base), run.shots
        if place not in reasons:
            reasons[place] = checks.reason(run)
        if (reason := reasons[place]) is not None:
            refused[reason][run.cell] = None
    if refused:
        lines = [f"{_named(list(cells))}: {reason}" for reason, cells in refused.items()]
        count = len(set().union(*refused.values()))
        raise InputError(f"{count} of the {len({run.cell for run in runs})} cells would be refused: {'; '.join(lines)}")


def _named(cells: Sequence[Cell]) -> str:
    """The ``cells`` by method: the only one of a method in full, of several their number."""
    of_method: defaultdict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        of_method[cell.method].append(cell)
    return some_of([_counted(method, each) for method, each in of_method.items()], LISTED)


def _counted(method: str, cells: Sequence[Cell]) -> str:
    if len(cells) == 1:
        return f"{method} on {cells[0].dataset} ({cells[0].backbone})"
    return f"{method} ({len(cells)} cells)"


class _Checks:
    """What `kravl train` checks before it loads anything, each check once for what it looks at."""

    def __init__(self) -> None:
        self._reasons: dict[tuple[str, str], str | None] = {}
        self._keys: dict[int, tuple[str, str, str]] = {}
        self._encoders: dict[str, Any] = {}

    def reason(self, run: StudyRun) -> str | None:
        """Why the runs with these settings would be refused; None where they would not be."""
        from kravl.run.sources import check_source_settings
        from kravl.run.stages.plan import check_warmup
        from kravl.run.train import check  # with torch

        if id(run.base) not in self._keys:
            self._keys[id(run.base)] = _keys(as_written(run.base))
        read, of_data, of_structure = self._keys[id(run.base)]
        # else it is the same to a check how many there are
        read = f"{run.shots if run.base.optim.steps_per_shot is not None else run.shots is None} {read}"
        return (
            self._once(check, run, read)
            or self._once(check_source_settings, run, of_data)
            or self._once(self._structure, run, of_structure)
            or (None if RunFolder(run.folder).begun else self._once(check_warmup, run, read))
        )

    def _once(self, check: Callable[[Config], None], run: StudyRun, key: str) -> str | None:
        place = check.__name__, key
        if place not in self._reasons:
            try:
                check(replace(typed(run.base), shots=run.shots))
                self._reasons[place] = None
            except InputError as error:
                self._reasons[place] = str(error)
        return self._reasons[place]

    def _structure(self, cfg: Config) -> None:
        from kravl.run.build import ANY_CLASSES, check_structure, skeleton

        key = json.dumps([cfg.backbone.build, cfg.plugins], sort_keys=True)
        if key not in self._encoders:  # of a large model it takes a second
            self._encoders[key] = skeleton(cfg, len(ANY_CLASSES))
        if self._encoders[key] is not None:  # else only the loaded one can be asked
            check_structure(cfg, self._encoders[key])


def _keys(settings: Mapping[str, Any]) -> tuple[str, str, str]:
    """What each of the three checks looks at."""
    trains = settings["optim"]["epochs"] != 0
    read, of_data, of_structure = (
        json.dumps({key: settings[key] for key in sorted(keys)}, sort_keys=True)
        for keys in (settings.keys() - set(UNREAD), OF_DATA, OF_STRUCTURE)
    )
    return read, of_data, f"{trains} {of_structure}"
