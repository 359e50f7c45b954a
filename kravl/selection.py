"""Which runs a report takes: those of a study, or those whose records say what is asked for."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kravl.aggregate import Run
from kravl.runtime.errors import InputError, unknown

SHORT = 7  # characters from which on the beginning of a hash or commit will do


def select(runs: Iterable[Run], conditions: Sequence[str]) -> list[Run]:
    """The runs that fulfil all of ``conditions``, each ``key=value`` or ``key=one,other`` over the keys of a record.

    Keys are dotted (``config.optim.lr``, ``versions.torch``); a hash or commit may be cut after seven characters.

    Raises:
        InputError: no ``=``, a key that no run has (the nearest is named), or a value that none has (all are named).
    """
    kept = list(runs)
    for condition in conditions:
        key, equals, wanted = condition.partition("=")
        if not equals:
            raise InputError(f"--where {condition} is no key=value")
        records = [flat(run.record) for run in kept]
        if not any(key in record for record in records):
            raise unknown("key of --where", key, {name for record in records for name in record})
        values = [wanted, *wanted.split(",")]
        found = [run for run, record in zip(kept, records, strict=True) if _says(record, key, values)]
        if not found:
            legal = {_text(record[key]) for record in records if key in record}
            raise unknown(f"value of {key}", wanted, legal)
        kept = found
    return kept


def _says(record: Mapping[str, Any], key: str, values: Sequence[str]) -> bool:
    if key not in record:
        return False
    said = _text(record[key])
    return any(said == value or (len(value) >= SHORT and said.startswith(value)) for value in values)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found
