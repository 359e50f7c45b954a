"""The file of a study: methods, backbones, data sets, shots and seeds, and the settings of each."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from kravl.config.bounds import SEED, Bounds, shown, whole
from kravl.runtime.errors import InputError, nearest, printable, require_name, some_of, unknown
from kravl.runtime.files import shipped
from kravl.runtime.yaml_files import read_yaml
from kravl.tracking.run_folder import ZERO_SHOT

Settings = dict[str, list[str]]  # a name in tables -> its settings, as on train.py's command line
AXES = ("backbones", "datasets", "methods")
SHOTS = whole(1)
OF_CELLS = ("backbone", "data", "method", "name")  # settings in which the cells of a grid differ
WHOLE = re.compile(r"[+-]?[0-9]{1,40}")
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
    # interpolations in settings are those of a run's config
    given = {key: _read(f"{file}: {key}", key, value) for key, value in content.items()}
    for change in changes:
        key, sets, value = change.partition("=")
        if key in LISTS and sets:
            given[LISTS[key]] = _numbers_typed(key, value)
    study = Study(**given)
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


def _read(where: str, key: str, value: Any) -> Any:
    """The ``value`` of a key as `Study` has it. Raises InputError for one of another kind."""
    if key in AXES:
        return _axis(where, value)
    if key in LISTS.values():
        return [_number(where, number) for number in _list(where, value, "[1, 2, 3]")]
    if key in ("settings", "other_seeds"):
        return _settings(where, value)
    if value is None and key in ("runs", "baseline"):
        return None
    if isinstance(value, bool | list | Mapping | None):
        raise InputError(f"{where} is {shown(value)}; it must be text")
    return str(value)


def _axis(where: str, value: Any) -> Settings:
    if isinstance(value, list):
        for name in value:
            _text(where, name)
        if double := sorted({name for name in value if value.count(name) > 1}):
            raise InputError(f"{where} names {double[0]!r} twice")
        return {name: [] for name in value}
    if not isinstance(value, Mapping):
        raise InputError(f"{where} is {shown(value)}; it must be a list of names, or names with settings of their own")
    return {_text(where, name): _settings(f"{where}: {name!r}", given) for name, given in value.items()}


def _settings(where: str, value: Any) -> list[str]:
    if value is None:
        return []
    return [_text(where, setting) for setting in _list(where, value, "[optim.lr=1e-3]")]


def _list(where: str, value: Any, example: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{where} is {shown(value)}; it must be a list, such as {example}")
    return value


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where} has {shown(value)}, which is {type(value).__name__}; write it as text, in quotes")
    return value


def _number(where: str, value: Any) -> int | None:
    if isinstance(value, str) and WHOLE.fullmatch(value):
        return int(value)
    if type(value) is not int and not (value is None and where.endswith("shots")):
        raise InputError(f"{where} has {'null' if value is None else shown(value)}; each must be a whole number")
    return value


def _numbers_typed(key: str, value: str) -> list[int | None]:
    """Of a command line, with brackets or without."""
    text = value.strip()
    text = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    items = [item.strip() for item in text.split(",")] if text else []
    legal = ("null",) if key == "shots" else ()
    if (wrong := next((i for i in items if not WHOLE.fullmatch(i) and i not in legal), None)) is not None:
        example = "shots=1,4 or shots=null, which is all images" if key == "shots" else f"{key}=1,2,3"
        raise InputError(f"{key}={shown(value)}: {shown(wrong)!r} is no whole number; a list is {example}")
    return [None if item == "null" else int(item) for item in items]


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
    for listed in (study.settings, study.other_seeds):
        _check_settings(str(file), listed, of_cells=OF_CELLS)
    _check_numbers(file, "seeds", study.seeds, SEED)
    _check_numbers(file, "shots", [amount for amount in study.shots if amount is not None], SHOTS)
    if ZERO_SHOT in study.methods:
        raise InputError(f"{file}: methods: {ZERO_SHOT!r} is what tables call the model before any training")
    if study.baseline is not None and study.baseline not in (baselines := (*study.methods, ZERO_SHOT)):
        raise unknown(f"baseline in {file}", study.baseline, baselines)


def _check_numbers(file: Path, key: str, numbers: Sequence[int], bounds: Bounds) -> None:
    for number in numbers:
        if not bounds.allow(number):
            raise InputError(f"{file}: {key} has {shown(number)}; each must be {bounds}")


def _check_name(file: Path, key: str, name: str) -> None:
    try:
        require_name(key, name)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _check_settings(where: str, settings: list[str], of_cells: tuple[str, ...] = ()) -> None:
    keys = [setting.partition("=")[0].lstrip("+~") for setting in settings]
    for key, setting in zip(keys, settings, strict=True):
        if "=" not in setting:
            raise InputError(f"{where} sets {setting!r}, which is not key=value")
        if key in ("shots", "seed", "runs", "study", "label", *of_cells):
            raise InputError(f"{where} sets {key}, which the study itself decides")
        if keys.count(key) > 1:
            raise InputError(f"{where} sets {key} twice; leave one of them out")
