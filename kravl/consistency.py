"""What keeps the runs of a report from being compared: other images, prompts, versions or settings."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from kravl.aggregate import ZERO_SHOT, Group

PER_RUN = ("seed", "split_seed", "name", "evaluation", "alphas")  # settings that the runs of a group may differ in


def differences(groups: Iterable[Group]) -> list[str]:
    """One line for each way in which runs that a reader would compare differ, beside seed and method."""
    listed = list(groups)
    lines: list[str] = []
    for setting, members in groupby(listed, key=lambda group: group.setting):
        lines += [f"{' '.join(setting)}: {line}" for line in _within_setting(list(members))]
    trained = [group for group in listed if group.method != ZERO_SHOT]
    return [*dict.fromkeys([*_other_images(trained), *lines])]


def _other_images(groups: Iterable[Group]) -> Iterator[str]:
    drawn: dict[tuple[str, str, str, int], set[str]] = defaultdict(set)
    for group in groups:
        for run in group.runs:
            protocol, seed = run.record["split_protocol"], run.record["split_seed"]
            drawn[group.setting.dataset, group.amount, protocol, seed].add(run.record["split_sha256"])
    for (dataset, shots, protocol, seed), hashes in drawn.items():
        if len(hashes) > 1:
            kinds = ", ".join(sorted(value[:12] for value in hashes))
            draw = f"{dataset}, shots {shots}, {protocol} split_seed {seed}"
            yield f"{draw}: runs were trained on different images (sha256 {kinds})"


def _within_setting(groups: list[Group]) -> Iterator[str]:
    runs = [run for group in groups for run in group.runs]
    for field in ("split_protocol", "templates"):
        yield from _differing(field, (run.record[field] for run in runs))
    for package in sorted({name for run in runs for name in run.record["versions"]}):
        yield from _differing(f"version of {package}", (run.record["versions"].get(package) for run in runs))
    for group in groups:
        if group.method == ZERO_SHOT:
            if len(group.runs) > 1:
                yield f"{len(group.runs)} zero-shot results that are not the same"
            continue
        title = f"{group.method}, shots {group.amount}"
        seeds = [run.record["seed"] for run in group.runs]
        for seed in sorted({seed for seed in seeds if seeds.count(seed) > 1}):
            yield f"{title}: {seeds.count(seed)} runs have seed {seed}"
        configs = [_flat(run.record["config"]) for run in group.runs]
        for key in sorted({key for config in configs for key in config}):
            if key not in PER_RUN:
                yield from (f"{title}: {line}" for line in _differing(key, (config.get(key) for config in configs)))


def _differing(name: str, values: Iterable[Any]) -> Iterator[str]:
    distinct = sorted({json.dumps(value, ensure_ascii=False, sort_keys=True) for value in values})
    if len(distinct) > 1:
        yield f"runs differ in {name}: {' / '.join(distinct)}"


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
