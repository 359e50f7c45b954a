"""Why the runs of a report may not be comparable: different images, prompts, versions or settings."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from kravl.report.groups import Group
from kravl.report.runs import flatten
from kravl.tracking.run_folder import ZERO_SHOT
from kravl.tracking.settings import deciding_settings

PER_RUN = ("seed", "split_seed", "name", "evaluation", "alphas")  # settings that the runs of a group may differ in


def comparability_warnings(groups: Iterable[Group]) -> list[str]:
    """One line for each difference other than seed and method between runs that a reader would compare."""
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
            split = f"{dataset}, shots {shots}, {protocol} split_seed {seed}"
            yield f"{split}: runs were trained on different images (--where split_sha256=... selects one of {kinds})"


def _within_setting(groups: list[Group]) -> Iterator[str]:
    runs = [run for group in groups for run in group.runs]
    for field in ("split_protocol", "templates", "git_commit", "precision"):
        yield from _differing(field, field, (run.record.get(field) for run in runs))
    for package in sorted({name for run in runs for name in run.record["versions"]}):
        versions = (run.record["versions"].get(package) for run in runs)
        yield from _differing(f"version of {package}", f"versions.{package}", versions)
    for group in groups:
        if group.method == ZERO_SHOT:
            if len(group.runs) > 1:
                yield f"{len(group.runs)} different zero-shot results"
            continue
        title = f"{group.method}, shots {group.amount}"
        seeds = Counter(run.record["seed"] for run in group.runs)
        yield from (f"{title}: {count} runs have seed {seed}" for seed, count in sorted(seeds.items()) if count > 1)
        configs = [flatten(deciding_settings(run.record["config"])) for run in group.runs]
        for key in sorted({key for config in configs for key in config} - set(PER_RUN)):
            lines = _differing(key, f"config.{key}", (config.get(key) for config in configs))
            yield from (f"{title}: {line}" for line in lines)


def _differing(name: str, key: str, values: Iterable[Any]) -> Iterator[str]:
    listed = list(values)
    if any(value != listed[0] for value in listed):  # cheap: thousands of runs agree in most of hundreds of keys
        distinct = sorted({json.dumps(value, ensure_ascii=False, sort_keys=True) for value in listed})
        yield f"runs differ in {name}: {' / '.join(distinct)} (--where {key}=... selects one)"
