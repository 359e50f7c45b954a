"""The data of the page's charts: groups of runs as plain numbers, so that thousands of runs stay small."""

from collections.abc import Iterable, Sequence
from typing import Any

from kravl.report.groups import Group, Setting, Stat, mean_over_sets
from kravl.report.interactive.run_files import RunFiles
from kravl.report.robustness import BASELINES, effective_robustness, robustness_line, wise_ft_line
from kravl.report.tables import by_setting
from kravl.tracking.methods import COLOURS, look, shown
from kravl.tracking.run_folder import ZERO_SHOT

STATS = ("ood_mean", "harmonic_mean", "trainable_parameters", "effective_rank", "train_seconds")
MEAN_TITLE = "mean over data sets"


def payload(groups: Sequence[Group], files: RunFiles) -> dict[str, Any]:
    """Settings, each with its groups; statistics are [mean, sample deviation or null, n], metrics fractions."""
    members = [(setting, list(listed)) for setting, listed in by_setting(groups)]
    return {
        **looks({group.method for group in groups}),
        "settings": [_setting(setting, listed, files) for setting, listed in members] + _means(members),
    }


def looks(methods: Iterable[str]) -> dict[str, Any]:
    """How the page shows the ``methods``, in the colours of `palette`, and which of all are the line's."""
    shapes = {}
    for method in sorted({ZERO_SHOT, *methods}):
        seen = look(method)
        dash = " ".join(map(str, seen.dash)) or "none"
        shapes[method] = {"name": seen.name, "colour": f"var(--{seen.colour})", "symbol": seen.marker, "dash": dash}
    return {"baselines": [shown(method) for method in BASELINES], "looks": shapes}


def palette() -> str:
    """The colours of `kravl.tracking.methods` as variables of CSS, on a light ground and on a dark one."""
    light, dark = ("; ".join(f"--{name}: {pair[ground]}" for name, pair in COLOURS.items()) for ground in (0, 1))
    return (
        f":root {{ {light}; }}\n"
        f'@media screen and (prefers-color-scheme: dark) {{ :root:not([data-theme="light"]) {{ {dark}; }} }}\n'
        f'@media screen {{ :root[data-theme="dark"] {{ {dark}; }} }}\n'
    )


def _setting(setting: Setting, groups: list[Group], files: RunFiles) -> dict[str, Any]:
    details = next(filter(None, (files.details(run) for group in groups for run in group.runs)), None)
    names = list(details["class_names"]) if details else []
    line = robustness_line(groups)
    return {
        "name": list(setting),
        "line": line and line._asdict(),
        "classes": names,
        "groups": [
            {
                **_numbers(group),
                "beyond": line and _short(effective_robustness(line, group)),
                "wise": [[_short(value) for value in point] for point in wise_ft_line(group, groups)],
                "reliability": files.reliability(group),
                "recall": files.recall(group, names),
                "curve": files.learning_curve(group),
            }
            for group in groups
        ],
        "pictures": None,
    }


def _numbers(group: Group) -> dict[str, Any]:
    names = [name for name in group.names if name.endswith(("/accuracy", "/ece")) or name in STATS]
    stats = {name: _stat(stat) for name in names if (stat := group.stat(name))}
    return {"method": group.method, "shots": group.amount, "order": group.shots, "n": len(group.runs), "stats": stats}


def _stat(stat: Stat) -> list[float | None]:
    return [_short(stat.mean), _short(stat.std), stat.n]


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _means(members: Sequence[tuple[Setting, list[Group]]]) -> list[dict[str, Any]]:
    """For each backbone and evaluation with several data sets, the mean over them of what was run on all of them.

    Averaged seed by seed, so that the deviation is that of the mean over data sets.
    """
    means = []
    for backbone, evaluation in dict.fromkeys((setting.backbone, setting.evaluation) for setting, _ in members):
        sets = [groups for s, groups in members if (s.backbone, s.evaluation) == (backbone, evaluation)]
        if len(sets) < 2:
            continue
        lists = [{(g.method, g.amount): g for g in groups} for groups in sets]
        everywhere = [key for key in lists[0] if all(key in each for each in lists)]
        rows = [_mean_row([each[key] for each in lists]) for key in everywhere]
        name = [backbone, f"{MEAN_TITLE} ({len(sets)})", evaluation]
        rows = [row for row in rows if row["n"]]
        means.append({"name": name, "line": None, "classes": [], "groups": rows, "pictures": None})
    return means


def _mean_row(groups: Sequence[Group]) -> dict[str, Any]:
    first, *others = groups
    common = [seed for seed in first.by_seed if all(seed in other.by_seed for other in others)]
    stats = {name: _stat(stat) for name in ("test/accuracy", *STATS) if (stat := mean_over_sets(groups, name))}
    absent: dict[str, Any] = {"beyond": None, "wise": [], "reliability": {}, "recall": [], "curve": []}
    head = {"method": first.method, "shots": first.amount, "order": first.shots, "n": len(common)}
    return {**head, "stats": stats, **absent}
