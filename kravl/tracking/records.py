"""What the record of a run must be, so that nothing in one file can stop or falsify what is made of it."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kravl.runtime.errors import InputError, printable
from kravl.tracking.run_folder import ZERO_SHOT, RunFolder
from kravl.tracking.settings import deciding_settings

SCHEMA = 1
DEEPEST = 50  # mappings within lists within mappings
LONGEST = 300  # characters of a name
LARGEST = 1e15  # of a number in a table
LARGEST_WHOLE = 2**63  # of one that names or counts
HALF = re.compile("[\ud800-\udfff]")  # of a pair that JSON can hold and UTF-8 cannot
SHARES = ("ood_mean", "harmonic_mean")  # as every metric whose name ends in /accuracy
Fields = Mapping[str, Callable[[Any], bool]]


def is_number(value: object) -> bool:
    """Whether a table can show ``value``."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST_WHOLE


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST and value.isprintable() and value.strip() != ""


def _is_method(value: object) -> bool:
    return _is_name(value) and value != ZERO_SHOT


def _is_amount(value: object) -> bool:
    share = isinstance(value, float) and 0 < value < 1
    return value is None or share or (is_number(value) and value == int(value) >= 1)  # type: ignore[call-overload]


def _are_metrics(value: object) -> bool:
    return isinstance(value, dict) and all(
        _is_name(name) and (number is None or (is_number(number) and (not _is_share(name) or 0 <= number <= 1)))
        for name, number in value.items()
    )


def _is_share(name: str) -> bool:
    return name.endswith("/accuracy") or name in SHARES


def _is_curve(value: object) -> bool:
    """WiSE-FT's points: metrics by alpha."""
    return isinstance(value, list) and all(
        _are_metrics(point) and is_number(alpha := point.get("alpha")) and 0 <= alpha <= 1 for point in value
    )


def _are_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(number is None or is_number(number) for number in value.values())


def _are_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str | None) for text in value.values())


def _is_config(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    try:
        deciding_settings(value)
    except (ValueError, TypeError, AttributeError):
        return False
    return True


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


RUN_FIELDS: Fields = {
    "backbone": _is_name,
    "dataset": _is_name,
    "evaluation": _is_name,
    "method": _is_method,
    "shots": _is_amount,
    "seed": _is_whole,
    "split_seed": _is_whole,
    "split_protocol": _is_name,
    "split_sha256": lambda value: isinstance(value, str) and len(value) <= LONGEST,
    "templates": _is_list,
    "metrics": _are_metrics,
    "zero_shot": _or_none(_are_metrics),
    "wise_ft": _is_curve,
    "trainable_parameters": _is_whole,
    "effective_rank": _are_numbers,
    "versions": _are_texts,
    "config": _is_config,
}
NAMED_FIELDS: Fields = {**RUN_FIELDS, "name": _is_name}
EVALUATION_FIELDS: Fields = {name: RUN_FIELDS[name] for name in ("evaluation", "metrics", "zero_shot", "wise_ft")}
COST_FIELDS: Fields = {}


def record_of(folder: RunFolder) -> dict[str, Any]:
    """The record of the finished run in ``folder``, for what shows or sends it. Raises InputError for no valid one."""
    record = folder.metrics()
    if problem := record_problem(record, NAMED_FIELDS):
        raise InputError(f"{folder.path / 'metrics.json'} is not what kravl writes: {problem}")
    return record


def is_done(folder: RunFolder) -> bool:
    """Whether ``folder`` holds a whole run, see `RunFolder.done`. Raises InputError where its record is damaged."""
    done = folder.done
    if folder.finished:
        record_of(folder)
    return done


def record_problem(record: Mapping[str, Any], fields: Fields) -> str | None:
    """Why this is not a valid record with the ``fields``, in one line, or None."""
    if odd := next(odd_values(record), None):
        return odd
    if (schema := record.get("schema", SCHEMA)) != SCHEMA:
        return f"schema {str(schema)[:LONGEST]}, not {SCHEMA}"
    wrong = [name for name, check in fields.items() if not (name in record and check(record[name]))]
    return f"missing or invalid: {', '.join(wrong)}" if wrong else None


def odd_values(tree: Any, place: str = "", depth: int = 0) -> Iterator[str]:
    """A line for each value below ``tree`` that kravl writes in no file of a run."""
    if depth > DEEPEST:
        yield f"{place[:LONGEST]} is nested more than {DEEPEST} deep"
    elif isinstance(tree, Mapping | list):
        pairs = tree.items() if isinstance(tree, Mapping) else ((place, value) for value in tree)
        for name, value in pairs:
            if isinstance(tree, Mapping):
                yield from odd_values(name, f"a name in {place or 'it'}", depth)
            yield from odd_values(value, str(name), depth + 1)
    elif isinstance(tree, float) and not math.isfinite(tree):
        yield f"{printable(place)[:LONGEST]} is {tree}, which is no number"
    elif isinstance(tree, int) and abs(tree) >= LARGEST_WHOLE:
        yield f"{printable(place)[:LONGEST]} is a number of more than 64 bits"
    elif isinstance(tree, str) and HALF.search(tree):
        yield f"{printable(place)[:LONGEST]} holds half a character"
