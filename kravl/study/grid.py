"""The runs of a study in order, and the same as plain commands for Hydra's sweeps."""

import itertools
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kravl.config.compose import as_written, compose_checked, composing, register_configs
from kravl.config.quoting import as_overrides, quoted
from kravl.runtime.errors import InputError, unknown
from kravl.study.schema import AXES, LISTS, OF_CELLS, Settings, Study
from kravl.tracking.run_folder import folder_of
from kravl.tracking.settings import places_of

CHOICE = {"backbones": "backbone", "datasets": "data", "methods": "method"}  # axis -> group of configs
NAME = {"backbones": "backbone.name", "datasets": "data.name", "methods": "label"}  # axis -> key of the name in tables
MOST_RUNS = 200_000
SHOWN = 80  # characters of a setting in an error
ALL = "null"  # shots that mean all images, on a command line


class Cell(NamedTuple):
    """The runs of a method on a backbone and a data set, which differ in shots and seed alone."""

    backbone: str
    dataset: str
    method: str


@dataclass(frozen=True)
class StudyRun:
    """One run of the grid; ``shots`` None is all images; ``place`` is its folder below that of the runs."""

    cell: Cell
    shots: int | None
    seed: int
    place: Path
    folder: Path
    base: Any

    def config(self) -> Any:
        """What train.py composes for it."""
        cfg = self.base.copy()
        cfg.shots, cfg.seed = self.shots, self.seed
        return cfg

    @property
    def title(self) -> str:
        """A description for people that tells it from the other runs."""
        amount = "all images" if self.shots is None else f"{self.shots}-shot"
        return f"{self.cell.method} on {self.cell.dataset} ({self.cell.backbone}), {amount}, seed {self.seed}"


def settings_of(axis: str, name: str, settings: Sequence[str]) -> list[str]:
    """The command line's settings for one ``name`` of an ``axis``: the file it stands for, and what it changes."""
    choice = CHOICE[axis]
    if any(setting.startswith(f"{choice}=") for setting in settings):
        return [*settings, quoted(NAME[axis], name)]
    # other weights would give a backbone another name
    stated = [quoted(NAME[axis], name)] if axis == "backbones" and settings else []
    return [f"{choice}={name}", *settings, *stated]


def overrides(study: Study, cell: Cell) -> list[str]:
    """The settings of a cell that the study's file gives, as on the command line; later ones win."""
    axes = zip(("backbones", "datasets", "methods"), cell, strict=True)
    of_cell = [setting for axis, name in axes for setting in settings_of(axis, name, getattr(study, axis)[name])]
    return [*study.settings, *of_cell, *_names(study)]


def _names(study: Study) -> list[str]:
    """Its name and folder as settings of a run; the folder may refer to a variable."""
    return [quoted("study", study.name), quoted("runs", study.folder, literal=False)]


def _settings(changes: Sequence[str]) -> list[str]:
    """Without what `read_study` takes."""
    return [change for change in changes if change.partition("=")[0] not in LISTS]


def _by_seed(study: Study) -> list[tuple[list[int], list[str]]]:
    """Seeds that have the same settings, with what is set for them alone."""
    first = 1 if study.other_seeds else len(study.seeds)
    return [(study.seeds[:first], []), *([(others, study.other_seeds)] if (others := study.seeds[first:]) else [])]


def plan_runs(study: Study, changes: Sequence[str] = ()) -> list[StudyRun]:
    """The runs of the grid, the full grid with one seed before the next: methods can be compared after an early stop.

    Args:
        changes: settings of every run, as on train.py's command line, over those of the study.

    Raises:
        InputError: an unknown method, data set, backbone or setting (the nearest is named), a change of what the study
            decides, a setting of its file that the command line alone may give, or two runs that a table could not
            distinguish.
    """
    _check_changes(changes)
    _check_size(study)
    _register(study, changes)
    cells = [Cell(*names) for names in itertools.product(study.backbones, study.datasets, study.methods)]
    runs: list[StudyRun] = []
    typed = as_overrides(_settings(changes), "train")
    with composing():
        for cell, (seeds, own) in itertools.product(cells, _by_seed(study)):
            try:
                written = as_overrides([*overrides(study, cell), *own], "train")
                cfg = compose_checked(typed, "train", of_file=written)
            except InputError as error:
                raise InputError(f"{cell.method} on {cell.dataset} ({cell.backbone}): {error}") from error
            runs += [run for shots in study.shots for run in _runs(cell, shots, seeds, cfg)]
    _refuse_collisions(runs)
    order = {seed: place for place, seed in enumerate(study.seeds)}
    amounts = {shots: place for place, shots in enumerate(study.shots)}
    return sorted(runs, key=lambda run: (order[run.seed], amounts[run.shots]))


def _check_changes(changes: Sequence[str]) -> None:
    """Raise InputError for a change of every run under which the names of a grid would no longer say what is run."""
    for change in changes:
        key = change.partition("=")[0].lstrip("+~")
        if key == "seeds":  # as in a study's file
            raise unknown("setting", key, [*LISTS, *OF_CELLS], near=["seed"])
        if key in (*OF_CELLS, "label", "study"):
            raise InputError(f"{change[:SHOWN]} of every run: the study decides {key}; change it in the study's file")
        if key.startswith(("hydra.", "hydra/")):
            raise InputError(f"{change[:SHOWN]}: a study starts its runs itself; add it to a line of --print-commands")


def _check_size(study: Study) -> None:
    lengths = [len(getattr(study, axis)) for axis in (*AXES, "shots", "seeds")]
    if (runs := math.prod(lengths)) > MOST_RUNS:
        raise InputError(f"the study {study.name} has {runs:,} runs; at most {MOST_RUNS:,} are planned at once")


def _register(study: Study, changes: Sequence[str]) -> None:
    own = itertools.chain(*study.methods.values(), *study.datasets.values())
    every = [*study.settings, *study.other_seeds, *changes, *own]
    register_configs(setting.removeprefix("experiment=") for setting in every if setting.startswith("experiment="))


def _runs(cell: Cell, shots: int | None, seeds: Sequence[int], cfg: Any) -> Iterator[StudyRun]:
    cfg.shots = shots  # the name follows it
    config = as_written(cfg)
    name = cfg.name
    there = {path.name for path in Path(cfg.runs, name).glob("seed*")}  # listed once: a grid may have many seeds
    begun = {path.partition("-")[0] for path in there}
    runs = cfg.runs
    for seed, place in places_of(name, seeds, config):
        known = place.name in there or f"seed{seed}" not in begun
        folder = Path(runs, place) if known else folder_of(runs, name, seed, {**config, "seed": seed})
        yield StudyRun(cell, shots, seed, place, folder, cfg)


def _refuse_collisions(runs: Sequence[StudyRun]) -> None:
    taken: dict[tuple[object, ...], StudyRun] = {}
    of_base: dict[int, tuple[str, ...]] = {}  # a config holds the names of all its seeds
    for run in runs:
        if id(run.base) not in of_base:
            base = run.base
            of_base[id(base)] = (base.backbone.name, base.data.name, base.evaluation.name, base.label)
        names = of_base[id(run.base)]
        for key in ((*names, run.shots, run.seed), (run.folder,)):
            if other := taken.get(key):
                raise InputError(
                    f"two runs have the same name in tables and folders: {other.title}, and {run.title}; "
                    "give one of them another name in the study, or another setting"
                )
            taken[key] = run


def commands(study: Study, changes: Sequence[str] = ()) -> list[str]:
    """As few train.py commands as possible: names without settings share one, each other name has its own.

    Add ``hydra/launcher=slurm`` or another launcher to run them elsewhere.

    Raises:
        InputError: as `plan_runs`: on a command line a setting may say more than in a file.
    """
    plan_runs(study, changes)
    changes = _settings(changes)
    shots = ",".join(ALL if number is None else str(number) for number in study.shots)
    common = [*_names(study), f"shots={shots}"]
    parts = [_parts(axis, getattr(study, axis)) for axis in AXES]
    settings = _of_one_run(study.settings)
    lines: list[list[str]] = []
    for seeds, own in _by_seed(study):
        last = [f"seed={','.join(map(str, seeds))}", *_of_one_run([*own, *changes])]
        lines += [[*settings, *itertools.chain(*chosen), *common, *last] for chosen in itertools.product(*parts)]
    return [f"python train.py -m {' '.join(map(shlex.quote, line))}" for line in lines]


def _parts(axis: str, entries: Settings) -> list[list[str]]:
    plain = [name for name, settings in entries.items() if not settings]
    return [
        *([settings_of(axis, ",".join(plain), [])] if plain else []),
        *(settings_of(axis, name, _of_one_run(settings)) for name, settings in entries.items() if settings),
    ]


def _of_one_run(settings: Sequence[str]) -> list[str]:
    """Settings of a study for ``-m``, under which a comma in a text that is not in quotes begins another run."""
    plain, swept = as_overrides(settings, "train"), as_overrides(settings, "train", multirun=True)
    return [typed if one == other else one for typed, one, other in zip(settings, plain, swept, strict=True)]
