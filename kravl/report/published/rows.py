"""Published accuracies as data: every file of datasets/published, read strictly.

A file is a source and its tables; a table has what its numbers have in ``common``, and names along its ``columns`` and
``rows``, as the paper prints it (datasets/README.md).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from kravl.runtime.errors import InputError, unknown
from kravl.runtime.files import read_text, shipped
from kravl.runtime.yaml_files import LOADER, parse_yaml, read_yaml
from kravl.tracking.methods import known_methods, shown

NAMES = "names.yaml"
NAME_GROUPS = ("methods", "backbones", "means", "protocols")
SOURCE = ("paper", "place", "url")
TABLE = ("common", "note", "columns", "rows")
REQUIRED = ("method", "backbone", "set", "shots", "protocol", "read")
TEXTS = ("variant", "templates", "place", "url")
AXES = (*REQUIRED, "metric", "evaluation", "seeds", "oracle", "error", *TEXTS)
READ = ("table", "figure", "log")
UNSTATED = "unstated"  # by the source: such a row is quoted and stands beside no run
TEST = "test/accuracy"
METRICS = (TEST, "ood_mean", "harmonic_mean")  # of every evaluation; its sets have one each besides
Place = tuple[str | int, ...]  # keys from the top of a file to a value


@dataclass(frozen=True)
class PublishedRow:
    """One published accuracy.

    Attributes:
        method, backbone, dataset, protocol: kravl's names where it has the thing, else those of names.yaml;
            ``dataset`` may be a mean over several sets.
        shots: as `Group.amount`: ``0`` without training, ``all``, or ``unstated``.
        value: a fraction.
        metric, evaluation: as in the record of a run.
        variant: a setting other than the method's own, which no run stands beside.
        template: the prompt, where the number depends on it and the source says which.
        oracle: something was chosen by looking at test images.
        read: off a ``table``, a ``figure`` or a ``log``.
        error: of reading a figure, in percentage points; None where the number is printed, or ``unstated``.
        seeds: how many the number is a mean of; None where the source does not say.
    """

    method: str
    title: str
    backbone: str
    dataset: str
    shots: str
    protocol: str
    value: float
    read: str
    paper: str
    place: str
    url: str
    metric: str = TEST
    evaluation: str = "in_domain"
    variant: str = ""
    template: str | None = None
    oracle: bool = False
    error: float | str | None = None
    seeds: int | None = None
    note: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """What two rows may not have in common."""
        where = (self.method, self.variant, self.backbone, self.dataset, self.shots, self.protocol)
        return (*where, self.evaluation, self.metric, self.template or "")


class Names(NamedTuple):
    """The legal names: those of kravl's own files and of names.yaml. ``means`` are the sets of each mean, if known."""

    methods: Mapping[str, str]
    backbones: Collection[str]
    means: Mapping[str, Sequence[str] | None]
    protocols: Collection[str]
    sets: Collection[str]
    evaluations: Collection[str]


class _File:
    """A file's content, and errors that name it, the line and the key."""

    def __init__(self, path: Path) -> None:
        self.path, self._text = path, read_text(path)
        self.content = parse_yaml(self._text, str(path))

    def error(self, place: Place, message: object) -> InputError:
        node, line = yaml.compose(self._text, Loader=LOADER), 1
        for part in place:
            if isinstance(node, yaml.SequenceNode):
                node = node.value[part]
            else:
                pairs = node.value if isinstance(node, yaml.MappingNode) else ()
                key, node = next((pair for pair in pairs if pair[0].value == str(part)), (node, None))
                line = key.start_mark.line + 1 if key else line
            line = node.start_mark.line + 1 if isinstance(node, yaml.ScalarNode) else line
        named = ".".join(str(part + 1) if isinstance(part, int) else part for part in place)
        return InputError(f"{self.path}, line {line}{f', {named}' if named else ''}: {message}")

    def mapping(self, place: Place, legal: Collection[str] = ()) -> dict[str, Any]:
        """The mapping at ``place``, whose keys are all ``legal``, if that is given."""
        node: Any = self.content
        for part in place:
            node = node[part]
        if not isinstance(node, dict) or not node:
            raise self.error(place, f"must be a mapping, not {str(node)[:60]!r}")
        for key in node:
            if legal and key not in legal:
                raise self.error((*place, str(key)), unknown("key", key, legal))
        return node


def folder() -> Path:
    """The folder of the files."""
    return shipped("datasets") / "published"


@lru_cache(maxsize=4)
def read_names(place: Path | None = None) -> Names:
    """The legal names. Raises InputError for an unknown key of names.yaml, or one that is missing."""
    file = _File((place or folder()) / NAMES)
    groups = file.mapping((), NAME_GROUPS)
    if missing := [group for group in NAME_GROUPS if group not in groups]:
        raise file.error((), f"no {missing[0]}")
    sets = _shipped_names("data")
    for mean, members in groups["means"].items():
        for member in members or ():
            if member not in sets:
                raise file.error(("means", mean), unknown("set", member, sets))
    backbones = {*_shipped_names("backbone"), *groups["backbones"]}
    methods = {name: shown(name) for name in known_methods()} | groups["methods"]
    return Names(methods, backbones, groups["means"], groups["protocols"], sets, _shipped_names("evaluation"))


def _shipped_names(group: str) -> set[str]:
    return {path.stem for path in (shipped("configs") / group).glob("*.yaml")}


@lru_cache(maxsize=4)
def read_published(place: Path | None = None) -> tuple[PublishedRow, ...]:
    """Every row of every file in the folder ``place``, by default the one that ships.

    Raises:
        InputError: a key or a name that is unknown (the nearest is named), a value of the wrong kind, a row that does
            not fit its columns, or the same number twice; with file, line and key.
    """
    names = read_names(place)
    rows: dict[tuple[str, ...], tuple[Path, PublishedRow]] = {}
    for path in sorted((place or folder()).glob("*.yaml")):
        if path.name == NAMES:
            continue
        file = _File(path)
        for where, row in _rows_of(file, names):
            if row.key in rows:
                raise file.error(where, f"the same number as in {rows[row.key][0]}: {', '.join(filter(None, row.key))}")
            rows[row.key] = path, row
    return tuple(row for _, row in rows.values())


def _rows_of(file: _File, names: Names) -> Iterator[tuple[Place, PublishedRow]]:
    top = file.mapping((), ("source", "tables"))
    if missing := [key for key in ("source", "tables") if key not in top]:
        raise file.error((), f"no {missing[0]}")
    source = file.mapping(("source",), SOURCE)
    if missing := [key for key in SOURCE if key not in source]:
        raise file.error(("source",), f"no {missing[0]}")
    if not isinstance(top["tables"], list):
        raise file.error(("tables",), "must be a list")
    for i in range(len(top["tables"])):
        at: Place = ("tables", i)
        table = file.mapping(at, TABLE)
        if missing := [key for key in ("common", "rows") if key not in table]:
            raise file.error(at, f"no {missing[0]}")
        common = {key: (value, (*at, "common", key)) for key, value in file.mapping((*at, "common"), AXES).items()}
        of_source = {key: (value, ("source", key)) for key, value in source.items()}
        for fields, number, where in _cells(file, at):
            if twice := fields.keys() & common.keys():
                raise file.error(where, f"{sorted(twice)[0]} is in common, too")
            row = _row(file, {**of_source, **common, **fields}, (number, where), names)
            yield where, PublishedRow(**row, note=table.get("note", ""))


def _cells(file: _File, at: Place) -> Iterator[tuple[dict[str, tuple[Any, Place]], Any, Place]]:
    """Names along rows and columns with their places, the number, and its place; what is null was not published."""
    table = file.mapping(at)
    columns, labels = _axis(file, (*at, "columns")) if "columns" in table else (None, [])
    if columns and not isinstance(labels, list):
        raise file.error((*at, "columns", columns), "must be a list")
    axis, _ = _axis(file, (*at, "rows"))
    for name, values in file.mapping((*at, "rows", axis)).items():
        where: Place = (*at, "rows", axis, name)
        numbers = values if columns else [values]
        if columns and (not isinstance(numbers, list) or len(numbers) != len(labels)):
            found = len(numbers) if isinstance(numbers, list) else 1
            raise file.error(where, f"{found} numbers for {len(labels)} columns")
        for j, number in enumerate(numbers):
            named = {columns: (labels[j], (*at, "columns", columns, j))} if columns else {}
            if number is not None:
                yield {**named, axis: (name, where)}, number, where


def _axis(file: _File, place: Place) -> tuple[str, Any]:
    axes = file.mapping(place, AXES)
    if len(axes) != 1:
        raise file.error(place, f"must go along one of {', '.join(AXES)}")
    return next(iter(axes.items()))


def _row(file: _File, fields: Mapping[str, tuple[Any, Place]], cell: tuple[Any, Place], names: Names) -> dict[str, Any]:
    if missing := [key for key in REQUIRED if key not in fields]:
        raise file.error(cell[1], f"no {missing[0]}, neither in common nor along the rows and columns")
    values = {key: value for key, (value, _) in fields.items()}
    for key, (value, place) in fields.items():
        if problem := _problem(key, value, values, names):
            raise file.error(place, problem)
    number, place = cell
    if isinstance(number, bool) or not isinstance(number, int | float) or not 1 < number <= 100:
        raise file.error(place, f"{str(number)[:40]} is no accuracy in percent, a number above 1 and at most 100")
    if ("error" in values) != (values["read"] == "figure"):
        raise file.error(place, "error is what reading off a figure adds, in points: with read: figure, and only there")
    error = values.get("error")
    renamed = {"set": "dataset", "templates": "template"}
    row = {renamed.get(key, key): value for key, value in values.items()}
    row |= {"shots": str(values["shots"]), "value": round(number / 100, 6), "title": names.methods[values["method"]]}
    return row | {"error": float(error) if isinstance(error, int | float) else error}


def _problem(key: str, value: Any, values: Mapping[str, Any], names: Names) -> InputError | str | None:
    """What is wrong with a field, or None."""
    legal: Mapping[str, Collection[str]] = {
        "method": names.methods, "backbone": {*names.backbones, UNSTATED}, "set": {*names.sets, *names.means},
        "protocol": {*names.protocols, UNSTATED}, "evaluation": names.evaluations, "read": READ,
    }  # fmt: skip
    if key in legal:
        return None if value in legal[key] else unknown(key, value, legal[key])
    if key == "metric":
        metrics = _metrics(values.get("evaluation", "in_domain"), names)
        return None if value in metrics else unknown(key, value, metrics)
    kinds = {
        "shots": (_is_whole(value, 0) or value in ("all", UNSTATED), "a whole number, all or unstated"),
        "seeds": (_is_whole(value, 1), "a whole number of at least 1"),
        "oracle": (isinstance(value, bool), "true or false"),
        "error": (_is_error(value), "points, above 0, or unstated"),
        "url": (isinstance(value, str) and value.startswith("https://"), "an address, https://..."),
    }
    fits, kind = kinds.get(key, (isinstance(value, str) and value.strip() != "", "a text"))
    return None if fits else f"{str(value)[:60]!r} is not {kind}"


def _is_whole(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is_error(value: Any) -> bool:
    return value == UNSTATED or (isinstance(value, int | float) and not isinstance(value, bool) and value > 0)


@lru_cache(maxsize=64)
def _sets_of(evaluation: str) -> tuple[str, ...]:
    return tuple(read_yaml(shipped("configs") / "evaluation" / f"{evaluation}.yaml").get("sets") or ())


def _metrics(evaluation: str, names: Names) -> list[str]:
    """The accuracies that a run with this evaluation has."""
    if evaluation not in names.evaluations:
        return list(METRICS)
    return [*METRICS, *(f"{name}/accuracy" for name in _sets_of(evaluation))]
