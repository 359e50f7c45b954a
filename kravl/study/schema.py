"""The file of a study: methods, backbones, data sets, shots and seeds, and the settings of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kravl.config.bounds import SEED, Bounds, shown, whole
from kravl.runtime.errors import InputError, first_line, nearest, printable, require_name, some_of, unknown
from kravl.runtime.files import read_yaml, shipped
from kravl.tracking.run_folder import ZERO_SHOT

Settings = dict[str, list[str]]  # a name in tables -> its settings, as on train.py's command line
AXES = ("backbones", "datasets", "methods")
SHOTS = whole(1)
LISTS = {"shots": "shots", "seed": "seeds"}  # setting of a run -> the study's list of it


@dataclass
class Study:
    """Every method on every backbone and data set, at every number of shots, with every seed.

    A name without a file in ``configs`` needs a setting that chooses one: ``lora_r4: [method=lora, adapter.rank=4]``.
    """

    name: str = MISSING  # the group in W&B
    question: str = ""  # heads the report
    backbones: Settings = field(default_factory=dict)
    datasets: Settings = field(default_factory=dict)
    methods: Settings = field(default_factory=dict)
    shots: list[int | None] = field(default_factory=lambda: [1, 2, 4, 8, 16])  # images per class; null: all
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    settings: list[str] = field(default_factory=list)  # of every run
    other_seeds: list[str] = field(default_factory=list)  # of all seeds but the first, such as alphas=1
    runs: str | None = None  # the folder of its runs; null: runs/<name>
    baseline: str | None = None  # the method that the report compares the others with

    @property
    def folder(self) -> str:
        """Where its runs are, unless the command line says otherwise."""
        return f"runs/{self.name}" if self.runs is None else self.runs


def read_study(file: Path, changes: Sequence[str] = ()) -> Study:
    """The study in ``file``; the names of an axis that is a plain list have no settings.

    ``shots=1,4`` and ``seed=5`` among ``changes`` replace its lists.

    Raises:
        InputError: no such file, not YAML, an unknown key (the nearest is named), a name given twice, an empty axis, or
            a value of the wrong type.
    """
    if not file.is_file():
        raise _no_study(file)
    content = read_yaml(file)
    legal = [each.name for each in fields(Study)]
    for key in content:
        if key not in legal:
            raise unknown(f"key in {file}", key, legal)
    try:
        given = {key: _entries(file, key, value) for key, value in content.items()}
        for change in changes:
            key, _, value = change.partition("=")
            if key in LISTS:
                given[LISTS[key]] = OmegaConf.create(f"[{value}]")
        # interpolations in settings are those of a run's config
        merged = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(Study), given), resolve=False)
    except OmegaConfBaseException as error:
        raise InputError(f"{file}: {first_line(error)}") from error
    assert isinstance(merged, dict)
    study = Study(**{str(key): value for key, value in merged.items()})
    study.question = printable(" ".join(study.question.split()))
    _check(file, study)
    return study


def _no_study(file: Path) -> InputError:
    """The nearest in the same folder, else those that come with kravl."""
    others = sorted(map(str, (file if file.is_dir() else file.parent).glob("*.yaml")))
    if file.is_dir():
        return InputError(f"{str(file)!r} is a folder; name one of its studies: {some_of(others) or 'it has none'}")
    shipped_ones = sorted(map(str, shipped("experiments/studies").glob("*.yaml")))
    same = [path for path in (*others, *shipped_ones) if Path(path).stem == file.stem]
    known = [*same, *others] or shipped_ones
    meant = (same or nearest(str(file), known))[0]
    return InputError(f"no study {str(file)!r}: did you mean {meant!r}? ({some_of(known)})")


def _entries(file: Path, key: Any, value: Any) -> Any:
    if key not in AXES:
        return value
    if isinstance(value, list):
        if double := sorted({str(name) for name in value if value.count(name) > 1}):
            raise InputError(f"{file}: {key} names {double[0]!r} twice")
        return {name: [] for name in value}
    return {name: settings or [] for name, settings in value.items()} if isinstance(value, Mapping) else value


def _check(file: Path, study: Study) -> None:
    for axis in (*AXES, "shots", "seeds"):
        if not getattr(study, axis):
            raise InputError(f"{file}: {axis} is empty: there is nothing to run")
    if study.name == MISSING:
        raise InputError(f"{file} has no name")
    _check_name(file, "name", study.name)
    for axis in AXES:
        for name, settings in getattr(study, axis).items():
            _check_name(file, axis, name)
            _check_settings(f"{file}: {name!r} of {axis}", settings)
    _check_settings(str(file), [*study.settings, *study.other_seeds], of_cells=("backbone", "data", "method", "name"))
    for number in study.seeds:
        _within(file, "seeds", number, SEED)
    for amount in study.shots:
        _within(file, "shots", amount, SHOTS)
    if ZERO_SHOT in study.methods:
        raise InputError(f"{file}: methods: {ZERO_SHOT!r} is what tables call the model before any training")
    if study.baseline is not None and study.baseline not in (baselines := (*study.methods, ZERO_SHOT)):
        raise unknown(f"baseline in {file}", study.baseline, baselines)


def _within(file: Path, key: str, number: int | None, bounds: Bounds) -> None:
    if number is not None and not bounds.allow(number):
        raise InputError(f"{file}: {key} has {shown(number)}; each must be {bounds}")


def _check_name(file: Path, key: str, name: str) -> None:
    try:
        require_name(key, name)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _check_settings(where: str, settings: list[str], of_cells: tuple[str, ...] = ()) -> None:
    for setting in settings:
        key = setting.partition("=")[0].lstrip("+~")
        if "=" not in setting:
            raise InputError(f"{where} sets {setting!r}, which is not key=value")
        if key in ("shots", "seed", "runs", "study", "label", *of_cells):
            raise InputError(f"{where} sets {key}, which the study itself decides")
